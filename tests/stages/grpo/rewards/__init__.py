"""Rewards, and tricks that must not earn any."""
