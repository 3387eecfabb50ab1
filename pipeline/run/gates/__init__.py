"""What a run's scores are worth: baseline, verdicts of the gate, more samples where undecided, scores that moved."""
