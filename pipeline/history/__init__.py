"""A pipeline's scores over all its runs: read from run records and score artifacts, shown as a table and as a page."""
