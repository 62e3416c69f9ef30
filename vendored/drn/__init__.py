"""Dilated residual networks for classification and segmentation, with learning-loss taps.

A clean-room re-implementation of the networks of fyu/drn @ d75db2e (Yu, Koltun and Funkhouser,
arXiv 1705.09914), compatible with its checkpoints; see README.md for what differs and why.
"""

from vendored.drn.dropout import SamplingDropout, dropout_sampling
from vendored.drn.models import (
    MODEL_NAMES,
    build,
    drn_a_50,
    drn_c_26,
    drn_c_42,
    drn_c_58,
    drn_d_22,
    drn_d_24,
    drn_d_38,
    drn_d_40,
    drn_d_54,
    drn_d_56,
    drn_d_105,
    drn_d_107,
    drn_d_tiny,
)
from vendored.drn.networks import DRN, DRNA
from vendored.drn.segmentation import DRNSeg
from vendored.drn.weights import IMAGENET_URLS, imagenet_weights

__all__ = [
    "DRN",
    "DRNA",
    "IMAGENET_URLS",
    "MODEL_NAMES",
    "DRNSeg",
    "SamplingDropout",
    "build",
    "drn_a_50",
    "drn_c_26",
    "drn_c_42",
    "drn_c_58",
    "drn_d_22",
    "drn_d_24",
    "drn_d_38",
    "drn_d_40",
    "drn_d_54",
    "drn_d_56",
    "drn_d_105",
    "drn_d_107",
    "drn_d_tiny",
    "dropout_sampling",
    "imagenet_weights",
]
