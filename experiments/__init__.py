"""Composes al_core and the vendored models; alone knows Hydra, devices, W&B and disks."""

import os

# Read by OpenCV when it is loaded, hence here; as MAX_PIXELS of experiments.data.header.
os.environ.setdefault("OPENCV_IO_MAX_IMAGE_PIXELS", "178956970")
# Read by OpenMP when torch is loaded. A thread that waits in a loop for one that has no core keeps
# it from getting one: a step of two threads then takes ten times as long on a busy machine.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
