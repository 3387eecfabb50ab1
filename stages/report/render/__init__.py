"""What the reports of runs and of sweeps are rendered with: text, tables, drawings and pages."""
