"""The model that training starts from: a small one made from a seed, or a checkpoint that exists."""
