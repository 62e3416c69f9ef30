"""Stacked hourglass networks that predict heatmaps of body joints.

A clean-room implementation after Newell, Yang and Deng, "Stacked Hourglass Networks for Human Pose
Estimation" (arXiv 1603.06937); see README.md for what could be checked.
"""

from vendored.stacked_hourglass.network import STRIDE, StackedHourglass, hg1, hg2, hg8

__all__ = ["STRIDE", "StackedHourglass", "hg1", "hg2", "hg8"]
