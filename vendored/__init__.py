"""Clean-room implementations of published networks, compatible with their checkpoints."""
