"""A small model trained from scratch: tokenizer, corpus and pre-training."""
