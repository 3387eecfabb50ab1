"""Programs that are tested by cases: what they print for an input, or what a function of theirs returns for it."""
