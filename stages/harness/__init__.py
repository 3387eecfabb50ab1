"""What carries a stage and computes nothing: spec, process, progress, errors. No stage key contains it."""
