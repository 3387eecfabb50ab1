"""What carries a stage and computes nothing: spec, process, progress, errors, declarations. No key contains it."""
