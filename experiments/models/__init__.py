"""Networks behind the tasks, and their weights."""
