"""Worked examples of docs/extending.md, run as tests."""
