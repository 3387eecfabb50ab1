"""Benchmarks of mathematics: the answer has to be in a box."""
