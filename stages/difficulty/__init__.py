"""The difficulty stage: which RL prompts the policy can learn from, by its own pass rate."""
