"""A pipeline over a matrix of settings."""
