"""What is measured on the test set, one module a task."""
