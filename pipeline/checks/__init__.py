"""What can be known to be wrong before the first stage starts."""
