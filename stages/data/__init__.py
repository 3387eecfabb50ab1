"""The data stage: load, verify and render training rows and benchmark problems into one dataset artifact."""
