"""Draw images with labels and predictions for people."""
