"""What a training step takes in memory, from the step itself computed on tensors that have shapes and no content."""
