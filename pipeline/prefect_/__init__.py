"""Prefect: the flow, the view, the servers and the schedules. Decides nothing about what is computed."""
