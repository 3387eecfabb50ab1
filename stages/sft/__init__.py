"""Supervised fine-tuning on demonstrations, with a choice of how the tokens' losses are weighted."""
