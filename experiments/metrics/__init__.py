"""Metrics on the test set, one module a task, and the schema of `cycles.csv`."""
