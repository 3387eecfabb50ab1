"""Evaluation: benchmarks, engines, graders, sandbox, metrics and statistics. It imports nothing else of ours."""
