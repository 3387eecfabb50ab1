"""Token weights: the methods, what they measure and what they cost."""
