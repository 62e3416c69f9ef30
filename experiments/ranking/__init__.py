"""Ranking of images outside any run, with a model that a run or somebody else has trained."""
