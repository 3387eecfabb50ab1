"""A static site of all that a store holds: runs, scores over time, samples, what flipped, artifacts and lineage."""
