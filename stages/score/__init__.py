"""The score stage: verdicts and numbers from stored generations. Needs no model and no GPU."""
