"""Results that leave the house: publishing a checkpoint, reproducing a recorded result."""
