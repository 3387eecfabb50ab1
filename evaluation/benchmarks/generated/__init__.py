"""Tasks made by a program, for the demo and the tests; not benchmarks of the field."""
