"""Running a plan: session, executor, run record, and what looks after the store afterwards."""
