"""Find out which dimension of a tapped feature holds the channels, and pool the others away.

Convolutional networks give maps (b, c, h, w), Swin transformers (b, h, w, c), and vision
transformers tokens (b, n, c). The shape alone does not tell them apart: pooling over the wrong
dimensions raises no error and predicts from the rows of the image instead of its channels. A layout
is therefore either declared, or recognized from the widths and the kinds of the network's layers,
or refused.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Literal, get_args

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from al_core.errors import InvalidSetting, TapError

Layout = Literal["channels_first", "channels_last", "tokens"]
"""(b, c, h, w), (b, h, w, c) or (b, n, c); a feature (b, c) fits all three."""
LayoutChoice = Literal["auto", "channels_first", "channels_last", "tokens"]
"""A declared layout, or "auto" to recognize it."""

_Kind = Literal["channels_first", "channels_last"] | None
_NUM_DIMS = {"channels_first": (2, 3, 4), "channels_last": (2, 4), "tokens": (2, 3)}
_FIRST = (
    *(nn.Conv1d, nn.Conv2d, nn.Conv3d),
    *(nn.ConvTranspose1d, nn.ConvTranspose2d, nn.ConvTranspose3d),
    *(nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm),
    *(nn.InstanceNorm1d, nn.InstanceNorm2d, nn.InstanceNorm3d, nn.GroupNorm),
)
_OUT = ("out_channels", "out_features", "num_features", "num_channels")
_IN = ("in_channels", "in_features", "num_features", "num_channels")


def check_layout(layout: object) -> None:
    """Raise InvalidSetting unless `layout` is a layout or "auto"."""
    *most, last = get_args(LayoutChoice)
    if layout not in (*most, last):
        raise InvalidSetting(f"layout must be {', '.join(most)} or {last}, got {layout!r}")


@dataclass(frozen=True)
class LayoutEvidence:
    """Widths and kinds of layers, from which the layout of one layer's output follows.

    A kind is "channels_first" for convolutions without layer norms, "channels_last" for layer norms
    or linear layers without convolutions, None for both or neither. Linear layers beside
    convolutions do not count, since classifiers and squeeze-and-excitation apply them to pooled
    features.

    Attributes:
        own: The output width of the layer's last weighted submodule, in order of registration (for
            its input: the input width of the first); empty for a layer without weights.
        consumed: The input widths of all of the network's layers except the first, which reads the
            image. A concatenation has a width that no layer produces but one consumes.
        kind: The kind of the layer; of the network for a layer without weights.
        network_kind: The kind of the network.
        has_conv1d: There are one-dimensional convolutions in the layer (in the network, for a layer
            without weights), so that a sequence may be (b, c, n).
    """

    own: frozenset[int]
    consumed: frozenset[int]
    kind: _Kind
    network_kind: _Kind
    has_conv1d: bool

    def layout(self, shape: Sequence[int]) -> Layout | None:
        """Return the layout of a feature of this shape, or None where the evidence is unclear."""
        if len(shape) == 2:
            return "channels_first"
        if len(shape) == 3:
            return self._layout_of_sequence(shape)
        return self._layout_of_map(shape) if len(shape) == 4 else None

    def _layout_of_sequence(self, shape: Sequence[int]) -> Layout | None:
        if self.own and not self.has_conv1d:
            first, last = shape[1] in self.own, shape[2] in self.own
            if last or (shape[2] in self.consumed and not first):
                return "tokens"
            return None
        found = self._layout_by_width(shape)
        return "tokens" if found == "channels_last" else found

    def _layout_of_map(self, shape: Sequence[int]) -> Layout | None:
        if self.kind is None:
            return self._layout_by_width(shape)
        claimed, other = (1, 3) if self.kind == "channels_first" else (3, 1)
        if shape[claimed] in self.own:
            return self.kind
        consistent = shape[claimed] in self.consumed or shape[other] not in self.consumed
        if shape[other] in self.own:
            # Either a concatenation whose side is the width of its last part, as in DenseNet, or a
            # layer that moves its channels; a network without layer norms does not do that.
            consistent = shape[claimed] in self.consumed and self.network_kind == self.kind
        return self.kind if consistent else None

    def _layout_by_width(self, shape: Sequence[int]) -> Layout | None:
        """Return the layout in which a width fits, provided that it fits in one dimension only."""
        known = self.own | self.consumed
        first, last = shape[1] in known, shape[-1] in known
        if first == last:
            return None
        return "channels_first" if first else "channels_last"


class NetworkWidths:
    """Collect a network's layer widths once, to give the evidence for any of its layers.

    Args:
        model: The network, without wrappers.
    """

    def __init__(self, model: nn.Module) -> None:
        self._layers = list(_weighted(model))
        widths = [_width(module, _IN) for module in self._layers[1:]]
        self._consumed = frozenset(width for width in widths if width)
        self._kind = _kind(self._layers)

    def evidence(
        self, layer: nn.Module, *, of: Literal["input", "output"] = "output"
    ) -> LayoutEvidence:
        """Return the evidence for the output, or the input, of one layer of the network."""
        layers = list(_weighted(layer))
        width = 0
        if layers:
            width = _width(layers[-1], _OUT) if of == "output" else _width(layers[0], _IN)
        scope = layers or self._layers
        return LayoutEvidence(
            own=frozenset([width] if width else []),
            consumed=self._consumed,
            kind=_kind(scope),
            network_kind=self._kind,
            has_conv1d=any(isinstance(m, (nn.Conv1d, nn.ConvTranspose1d)) for m in scope),
        )


def layout_by_count(shape: Sequence[int], count: int) -> Layout | None:
    """Return the layout in which a feature of this shape has `count` channels, else None.

    Where both candidate dimensions have that size, a map is (b, c, h, w) and tokens are (b, n, c).
    """
    if len(shape) == 3:
        return "tokens" if shape[2] == count else None
    if len(shape) in (2, 4) and shape[1] == count:
        return "channels_first"
    if len(shape) == 4 and shape[3] == count:
        return "channels_last"
    return None


def checked_layout(layout: Layout | None, shape: Sequence[int], name: str) -> Layout:
    """Return the layout of a feature.

    Args:
        layout: Declared or recognized; None where neither succeeded.
        shape: The feature's shape.
        name: The feature's name, for the message.

    Raises:
        TapError: There is no layout, or no feature of this shape can have it.
    """
    if len(shape) not in (2, 3, 4):
        raise TapError(
            f"{name} has shape {tuple(shape)}; "
            "(b, c, h, w), (b, h, w, c), (b, n, c) or (b, c) is needed"
        )
    if layout is None:
        raise TapError(
            f"{name} has shape {tuple(shape)}, and the network's layers do not show clearly "
            "which dimension holds the channels; declare it: "
            'layout="channels_first" for (b, c, h, w), '
            '"channels_last" for (b, h, w, c), "tokens" for (b, n, c)'
        )
    if len(shape) not in _NUM_DIMS[layout]:
        raise TapError(f"{name} has shape {tuple(shape)}, which cannot be layout={layout!r}")
    return layout


def channel_dim(shape: Sequence[int], layout: Layout) -> int:
    """Return the dimension of a feature of this shape that holds the channels."""
    return 1 if layout == "channels_first" else len(shape) - 1


def pooled(feature: Tensor, layout: Layout, size: int, dtype: torch.dtype) -> Tensor:
    """Average a feature over its positions.

    Args:
        feature: (b, c), tokens, or a map, of any floating dtype.
        layout: Its layout, checked.
        size: Side p of the p x p cells into which a map is averaged. A sequence has no cells and
            needs 1.
        dtype: The averages are computed in it.

    Returns:
        (b, c * p * p) in `dtype`; the cells of one channel follow one another.
    """
    channels = channel_dim(feature.shape, layout)
    if feature.ndim == 2:
        feature = feature[:, :, None, None]
    if size == 1:
        # The same numbers as adaptive pooling, but its gradient is one number a channel, not a map
        # as large as the feature and in another memory layout.
        positions = [dim for dim in range(1, feature.ndim) if dim != channels]
        num_positions = 1
        for dim in positions:
            num_positions *= feature.shape[dim]
        return feature.sum(positions, dtype=dtype) / num_positions
    return F.adaptive_avg_pool2d(feature.movedim(channels, 1).to(dtype), size).flatten(1)


def _weighted(model: nn.Module) -> Iterable[nn.Module]:
    """Yield the modules of known width; a container's attributes do not describe its output."""
    for module in model.modules():
        own = next(module.parameters(recurse=False), None)
        is_container = own is None and next(module.children(), None) is not None
        if not is_container and _width(module, _OUT):
            yield module


def _width(module: nn.Module, attributes: Sequence[str]) -> int:
    """Return a layer's width by the first attribute that it has, or 0."""
    for name in attributes:
        width = getattr(module, name, None)
        if isinstance(width, int) and width > 0:
            return width
    normalized = getattr(module, "normalized_shape", ())
    # A norm over several dimensions at once, (c, h, w) for example, has no single width.
    return int(normalized[0]) if isinstance(normalized, tuple) and len(normalized) == 1 else 0


def _kind(modules: Iterable[nn.Module]) -> _Kind:
    kinds = {_kind_of(module) for module in modules}
    if "first" in kinds:
        return None if "norm" in kinds else "channels_first"
    return "channels_last" if kinds & {"norm", "linear"} else None


def _kind_of(module: nn.Module) -> Literal["first", "norm", "linear"] | None:
    name = type(module).__name__.lower()
    # LayerNorm2d of torchvision and timm is a layer norm by class, but normalizes (b, c, h, w).
    if isinstance(module, _FIRST) or name.endswith("2d"):
        return "first"
    # Other libraries write layer norms of their own under these names.
    if isinstance(module, (nn.LayerNorm, nn.RMSNorm)) or "layernorm" in name or "rmsnorm" in name:
        return "norm"
    return "linear" if isinstance(module, nn.Linear) else None
