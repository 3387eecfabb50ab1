"""Sampling of one checkpoint on all benchmarks with one engine load."""
