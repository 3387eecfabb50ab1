"""Whether a score may pass: tests against a margin, levels over benchmarks and nights, verdicts."""
