"""What `vcore plan` and `vcore eval` print instead of running: prompts, rows, and what a run would need."""
