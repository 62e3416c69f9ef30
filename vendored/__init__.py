"""Clean-room re-implementations of the three repositories that the published experiments use."""
