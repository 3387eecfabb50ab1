"""Benchmarks of mathematics: an answer to be found, in a box."""
