"""Evaluation: benchmarks, engines, graders, sandbox, metrics and statistics. Usable alone; imports nothing else of ours."""
