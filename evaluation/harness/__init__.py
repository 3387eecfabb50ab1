"""What carries sampling and grading and computes nothing: scheduling and replicas. No stage key contains it."""
