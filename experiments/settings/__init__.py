"""Turn Hydra's configuration into checked objects, and errors into messages of one line."""
