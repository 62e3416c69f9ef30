"""Constructors of the twelve networks of fyu/drn, and of a small one of our own.

The numbers of blocks are those of fyu/drn @ d75db2e (arXiv 1705.09914, section 4 and table 1).
The number in a name counts convolutional layers on the longest path.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypedDict, Unpack

from vendored.drn.blocks import BasicBlock, BlockType, Bottleneck
from vendored.drn.networks import DRN, DRNA
from vendored.drn.weights import imagenet_weights

TINY_CHANNELS = (8, 16, 32, 32, 48, 64, 64, 64)

_LAYERS: dict[str, tuple[BlockType, tuple[int, ...]]] = {
    "drn_c_26": (BasicBlock, (1, 1, 2, 2, 2, 2, 1, 1)),
    "drn_c_42": (BasicBlock, (1, 1, 3, 4, 6, 3, 1, 1)),
    "drn_c_58": (Bottleneck, (1, 1, 3, 4, 6, 3, 1, 1)),
    "drn_d_22": (BasicBlock, (1, 1, 2, 2, 2, 2, 1, 1)),
    "drn_d_24": (BasicBlock, (1, 1, 2, 2, 2, 2, 2, 2)),
    "drn_d_38": (BasicBlock, (1, 1, 3, 4, 6, 3, 1, 1)),
    "drn_d_40": (BasicBlock, (1, 1, 3, 4, 6, 3, 2, 2)),
    "drn_d_54": (Bottleneck, (1, 1, 3, 4, 6, 3, 1, 1)),
    "drn_d_56": (Bottleneck, (1, 1, 3, 4, 6, 3, 2, 2)),
    "drn_d_105": (Bottleneck, (1, 1, 3, 4, 23, 3, 1, 1)),
    "drn_d_107": (Bottleneck, (1, 1, 3, 4, 23, 3, 2, 2)),
    "drn_d_tiny": (BasicBlock, (1, 1, 1, 1, 1, 1, 1, 1)),
}

MODEL_NAMES = ("drn_a_50", *_LAYERS)
"""The names that :func:`build` and ``DRNSeg`` accept."""


class NetworkOptions(TypedDict, total=False):
    """Keyword arguments of DRN-C and DRN-D constructors, explained in :class:`DRN`."""

    num_classes: int
    channels: Sequence[int]
    out_map: bool
    out_middle: bool
    pool_size: int
    add_dropout: bool


def _build(name: str, pretrained: bool, options: NetworkOptions) -> DRN:
    block, layers = _LAYERS[name]
    weights = imagenet_weights(name) if pretrained else None
    network = DRN(block, layers, arch="C" if name.startswith("drn_c") else "D", **options)
    if weights is not None:
        network.load_state_dict(weights)
    return network


def drn_a_50(
    pretrained: bool = False, *, num_classes: int = 1000, add_dropout: bool = False
) -> DRNA:
    """DRN-A-50: ResNet-50 at output stride 8; 25.6 M parameters, 2048 features.

    Raises:
        ValueError, RuntimeError: As in :class:`DRNA` and :func:`imagenet_weights`.
    """
    weights = imagenet_weights("drn_a_50") if pretrained else None
    network = DRNA(Bottleneck, (3, 4, 6, 3), num_classes=num_classes, add_dropout=add_dropout)
    if weights is not None:
        network.load_state_dict(weights)
    return network


def drn_c_26(pretrained: bool = False, **options: Unpack[NetworkOptions]) -> DRN:
    """DRN-C-26: basic blocks 2, 2, 2, 2 in layers 3 to 6; 21.1 M parameters."""
    return _build("drn_c_26", pretrained, options)


def drn_c_42(pretrained: bool = False, **options: Unpack[NetworkOptions]) -> DRN:
    """DRN-C-42: basic blocks 3, 4, 6, 3 in layers 3 to 6; 31.2 M parameters."""
    return _build("drn_c_42", pretrained, options)


def drn_c_58(pretrained: bool = False, **options: Unpack[NetworkOptions]) -> DRN:
    """DRN-C-58: bottlenecks 3, 4, 6, 3 in layers 3 to 6.

    The projections of its last two stages do not contribute to the result and get no gradient, so
    ``DistributedDataParallel`` needs ``find_unused_parameters=True``.
    """
    return _build("drn_c_58", pretrained, options)


def drn_d_22(pretrained: bool = False, **options: Unpack[NetworkOptions]) -> DRN:
    """DRN-D-22: basic blocks 2, 2, 2, 2; one convolution in layers 1, 2, 7, 8; 16.4 M."""
    return _build("drn_d_22", pretrained, options)


def drn_d_24(pretrained: bool = False, **options: Unpack[NetworkOptions]) -> DRN:
    """DRN-D-24: DRN-D-22 with two convolutions in layers 7 and 8. No published weights."""
    return _build("drn_d_24", pretrained, options)


def drn_d_38(pretrained: bool = False, **options: Unpack[NetworkOptions]) -> DRN:
    """DRN-D-38: basic blocks 3, 4, 6, 3; one convolution in layers 1, 2, 7, 8; 26.5 M."""
    return _build("drn_d_38", pretrained, options)


def drn_d_40(pretrained: bool = False, **options: Unpack[NetworkOptions]) -> DRN:
    """DRN-D-40: DRN-D-38 with two convolutions in layers 7 and 8. No published weights."""
    return _build("drn_d_40", pretrained, options)


def drn_d_54(pretrained: bool = False, **options: Unpack[NetworkOptions]) -> DRN:
    """DRN-D-54: bottlenecks 3, 4, 6, 3; one convolution in layers 1, 2, 7, 8; 35.8 M."""
    return _build("drn_d_54", pretrained, options)


def drn_d_56(pretrained: bool = False, **options: Unpack[NetworkOptions]) -> DRN:
    """DRN-D-56: DRN-D-54 with two convolutions in layers 7 and 8. No published weights."""
    return _build("drn_d_56", pretrained, options)


def drn_d_105(pretrained: bool = False, **options: Unpack[NetworkOptions]) -> DRN:
    """DRN-D-105: bottlenecks 3, 4, 23, 3; one convolution in layers 1, 2, 7, 8; 54.8 M."""
    return _build("drn_d_105", pretrained, options)


def drn_d_107(pretrained: bool = False, **options: Unpack[NetworkOptions]) -> DRN:
    """DRN-D-107: DRN-D-105 with two convolutions in layers 7 and 8. No published weights."""
    return _build("drn_d_107", pretrained, options)


def drn_d_tiny(pretrained: bool = False, **options: Unpack[NetworkOptions]) -> DRN:
    """A narrow DRN-D with one block a stage (14 layers), for laptops and tests.

    Differs: this network is ours, not upstream's, and has no published weights.
    """
    narrow: NetworkOptions = {"channels": TINY_CHANNELS}
    return _build("drn_d_tiny", pretrained, {**narrow, **options})


_CONSTRUCTORS = (
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


def build(model_name: str, pretrained: bool = False, *, add_dropout: bool = False) -> DRN | DRNA:
    """Build the network of this name, for 1000 classes.

    Raises:
        ValueError: The name is not in ``MODEL_NAMES``, or there are no published weights for it.
        RuntimeError: The published weights could not be fetched.
    """
    if model_name == "drn_a_50":
        return drn_a_50(pretrained, add_dropout=add_dropout)
    for constructor in _CONSTRUCTORS:
        if constructor.__name__ == model_name:
            return constructor(pretrained, add_dropout=add_dropout)
    raise ValueError(f"unknown network {model_name!r}; the names are {', '.join(MODEL_NAMES)}")
