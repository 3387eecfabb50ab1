"""A run that has ended goes to MLflow, W&B or trackio: settings, lineage, scores and training curves."""
