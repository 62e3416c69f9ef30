"""Single-shot detectors with learning-loss taps: SSD300, and a light one for small machines.

A clean-room re-implementation of the networks, losses and box functions of amdegroot/ssd.pytorch
@ 5b0b77f (Liu et al., arXiv 1512.02325), compatible with its checkpoints; see README.md for what
differs and why.
"""

from vendored.ssd_pytorch.boxes import (
    center_size,
    decode,
    encode,
    intersect,
    jaccard,
    log_sum_exp,
    nms,
    point_form,
)
from vendored.ssd_pytorch.config import COCO, VOC, SSDConfig
from vendored.ssd_pytorch.detect import Detect
from vendored.ssd_pytorch.detector import MultiBoxDetector, Outputs
from vendored.ssd_pytorch.light import LightSSD
from vendored.ssd_pytorch.loss import ImageLosses, MultiBoxLoss
from vendored.ssd_pytorch.matching import match, match_batch, pad_targets
from vendored.ssd_pytorch.priors import PriorBox
from vendored.ssd_pytorch.ssd import SSD, build_ssd
from vendored.ssd_pytorch.trunk import L2Norm, trunk_from_torchvision, vgg_trunk

__all__ = [
    "COCO",
    "SSD",
    "VOC",
    "Detect",
    "ImageLosses",
    "L2Norm",
    "LightSSD",
    "MultiBoxDetector",
    "MultiBoxLoss",
    "Outputs",
    "PriorBox",
    "SSDConfig",
    "build_ssd",
    "center_size",
    "decode",
    "encode",
    "intersect",
    "jaccard",
    "log_sum_exp",
    "match",
    "match_batch",
    "nms",
    "pad_targets",
    "point_form",
    "trunk_from_torchvision",
    "vgg_trunk",
]
