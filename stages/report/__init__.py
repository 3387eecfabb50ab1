"""The report stage: what the artifacts of a pipeline say, as Markdown, one self-contained HTML page, and JSON."""
