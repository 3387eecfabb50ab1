"""How GRPO hooks into TRL: its private names, rows that train, the step as a whole."""
