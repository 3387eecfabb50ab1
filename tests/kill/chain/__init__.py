"""A stage with the shape of a training stage and the cost of none."""
