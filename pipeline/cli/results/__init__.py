"""Commands of `vcore` that show results of many runs: `history` and `browse`."""
