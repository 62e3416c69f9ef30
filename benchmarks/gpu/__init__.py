"""Measurements for a GPU that is at hand for some minutes only."""
