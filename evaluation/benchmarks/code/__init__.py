"""Benchmarks of code: a Python function to be written, judged by tests."""
