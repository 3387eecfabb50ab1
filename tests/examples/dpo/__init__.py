"""A stage that the project does not have: direct preference optimization (DPO)."""
