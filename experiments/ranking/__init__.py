"""Ranking images that no run knows, with a model that a run, or somebody else, has trained."""
