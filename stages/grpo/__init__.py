"""GRPO from a checkpoint with TRL, rewarded by the grader that the evaluation uses."""
