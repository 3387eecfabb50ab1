"""The `vcore` command."""
