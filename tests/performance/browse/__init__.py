"""The pages of results beside others, in a browser."""
