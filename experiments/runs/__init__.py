"""Build a run from its configuration, execute it, record it in its folder and track it."""
