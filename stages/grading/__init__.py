"""Reading and grading generations: what scoring and difficulty have in common."""
