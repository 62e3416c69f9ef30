"""The configuration groups, packaged so that Hydra finds them from an installed wheel too."""
