"""High-resolution networks that predict heatmaps of body joints.

A clean-room implementation after Sun et al., "Deep High-Resolution Representation Learning for
Human Pose Estimation" (arXiv 1902.09212); see README.md for what could be checked.
"""

from vendored.hrnet.network import STRIDE, PoseHRNet, pose_hrnet_w32, pose_hrnet_w48

__all__ = ["STRIDE", "PoseHRNet", "pose_hrnet_w32", "pose_hrnet_w48"]
