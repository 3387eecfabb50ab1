"""Benchmarks of code: a Python function that tests judge."""
