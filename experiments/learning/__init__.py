"""Train a task's network on labeled samples and query it about unlabeled ones."""
