"""Composes al_core and the vendored models; alone knows Hydra, devices, W&B and disks."""

import os

# Read by OpenCV when it is loaded, hence here; as MAX_PIXELS of experiments.data.decoding.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", "178956970")
