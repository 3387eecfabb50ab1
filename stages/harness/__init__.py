"""What carries a stage and computes nothing: spec, process, progress, errors, declarations. No stage key contains it."""
