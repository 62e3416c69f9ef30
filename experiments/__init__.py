"""Composes al_core and the vendored models; alone knows Hydra, devices, W&B and disks."""
