"""Published numbers: read from model cards, and compared with what a run measured."""
