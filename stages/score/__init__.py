"""The score stage: verdicts on generations, and the metrics they add up to. Needs no GPU."""
