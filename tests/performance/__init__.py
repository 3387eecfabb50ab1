"""Benchmarks: `make bench`. They print ratios measured in one run and assert nothing about time; `make test` does not
collect them."""
