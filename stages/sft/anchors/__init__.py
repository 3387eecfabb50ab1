"""Penalties for leaving the model that training starts from: the KL divergence of `Anchor`, which methods may have."""
