"""Draw images with labels and predictions for people: panels, captions, thumbnails, duplicates."""
