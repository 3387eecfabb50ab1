"""What would run, and why: the graph, the keys, and the decision for each stage."""
