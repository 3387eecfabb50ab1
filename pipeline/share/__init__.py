"""Results for others: publishing a checkpoint, reproducing a recorded result."""
