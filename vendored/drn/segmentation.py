"""Semantic segmentation on a dilated residual network, tapped for learning loss.

Sources: Yu, Koltun and Funkhouser, "Dilated Residual Networks" (arXiv 1705.09914, section 5):
the backbone, a 1x1 convolution to class scores at 1/8 of the resolution, bilinear upsampling.
State_dict, outputs and initialization are compatible with fyu/drn @ d75db2e; the tapped tensors
and the dropout with superannotateai/active_learning @ aa2b9ae, which wires in Yoo and Kweon,
"Learning Loss for Active Learning" (arXiv 1905.03677, section 3.2).
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from os import PathLike
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from vendored.checkpoints import read_state_dict
from vendored.drn.dropout import dropout_sampling
from vendored.drn.models import build
from vendored.drn.networks import is_stage
from vendored.taps import TappedNetwork, global_average

STRIDE = 8
"""Pixels of the image per position of the scores, in both directions."""


def bilinear_upsampling(classes: int) -> nn.ConvTranspose2d:
    """A transposed convolution that enlarges each class map ``STRIDE`` times, bilinearly.

    Its weights (classes, 1, 16, 16) are fixed: they ask for no gradient.
    """
    size = 2 * STRIDE
    up = nn.ConvTranspose2d(
        classes, classes, size, stride=STRIDE, padding=STRIDE // 2, groups=classes, bias=False
    )
    position = torch.arange(size, dtype=torch.float64, device=up.weight.device)
    tent = 1 - (position - (size - 1) / 2).abs() / STRIDE
    with torch.no_grad():
        up.weight.copy_(torch.outer(tent, tent).expand_as(up.weight))
    up.weight.requires_grad_(False)
    return up


class DRNSeg(TappedNetwork):
    """A dilated residual network without its classifier, with a segmentation head.

    Differs: ``pretrained`` is off by default, so that building a model never asks the network;
    the tensors of the latest forward pass are kept for learning loss (:meth:`forward`).

    Args:
        model_name: A backbone of :data:`vendored.drn.models.MODEL_NAMES`.
        classes: Number of classes, k.
        pretrained_model: Weights of the classification network (its state_dict, or the path of
            a file with it) to start the backbone from; the classifier in them is not used.
        pretrained: Start the backbone from the published ImageNet weights.
        use_torch_up: Upsample by interpolation with aligned corners instead of the fixed
            transposed convolution ``up``.
        add_dropout: End every residual stage of the backbone with dropout of probability 0.5,
            active in eval mode too unless :meth:`dropout_sampling` switches it off.

    Attributes:
        record_features: Whether forward passes keep the tapped tensors. Without a loss head to
            read them, False saves their memory (most of it the maps at full resolution).

    Raises:
        ValueError: ``classes`` is not positive, the name is unknown or has no published weights,
            two sources of weights are given, or ``pretrained_model`` does not fit the backbone.
        FileNotFoundError: ``pretrained_model`` is the path of no file.
        RuntimeError: The published weights could not be downloaded.
    """

    def __init__(
        self,
        model_name: str,
        classes: int,
        pretrained_model: Mapping[str, Tensor] | str | PathLike[str] | None = None,
        pretrained: bool = False,
        use_torch_up: bool = False,
        *,
        add_dropout: bool = False,
    ) -> None:
        super().__init__()
        if classes < 1:
            raise ValueError(f"classes must be positive, not {classes}")
        if pretrained and pretrained_model is not None:
            raise ValueError("give pretrained_model or pretrained=True, not both")
        network = build(model_name, pretrained, add_dropout=add_dropout)
        children = list(network.named_children())[:-2]
        self._child_names = tuple(name for name, _ in children)
        self.tap_channels = (*network.stage_channels, classes, classes)
        self.base = nn.Sequential(*(child for _, child in children))
        self.seg = nn.Conv2d(network.out_dim, classes, 1)
        nn.init.normal_(self.seg.weight, 0.0, math.sqrt(2.0 / classes))
        assert self.seg.bias is not None
        nn.init.zeros_(self.seg.bias)
        self.up: nn.Module = (
            nn.UpsamplingBilinear2d(scale_factor=STRIDE)
            if use_torch_up
            else bilinear_upsampling(classes)
        )
        if pretrained_model is not None:
            self._load_backbone(pretrained_model)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Class log-probabilities and scores of float images (b, 3, h, w).

        While ``record_features`` is true, the tensors of :meth:`get_active_learning_features`
        are kept until the next call begins or :meth:`forget_features` drops them.

        Returns:
            Log-probabilities (b, k, h, w) and the scores (b, k, h / 8, w / 8) that they are
            upsampled from. Sides that are not multiples of 8 are rounded up to one, as upstream.
        """
        self.forget_features()
        taps: list[Tensor] = []
        for name, child in zip(self._child_names, self.base, strict=True):
            x = child(x)
            if self.record_features and is_stage(name):
                taps.append(x)
        embedding = global_average(x)
        scores: Tensor = self.seg(x)
        log_probs = functional.log_softmax(self.up(scores), dim=1)
        self.keep([*taps, scores, log_probs], embedding)
        return log_probs, scores

    def optim_parameters(self) -> Iterator[nn.Parameter]:
        """The parameters to train: those of ``base``, then of ``seg``; never those of ``up``."""
        yield from self.base.parameters()
        yield from self.seg.parameters()

    def dropout_sampling(self, active: bool) -> AbstractContextManager[None]:
        """Within the block, the dropout of ``add_dropout`` is on or off in eval mode.

        ``with model.dropout_sampling(False):`` makes evaluation deterministic.

        Raises:
            ValueError: ``active`` is true but the model was built without ``add_dropout``.
        """
        return dropout_sampling(self, active)

    def _load_backbone(self, source: Mapping[str, Tensor] | str | PathLike[str]) -> None:
        weights = source if isinstance(source, Mapping) else read_state_dict(source)
        head = {key: value for key, value in self.state_dict().items() if key[:5] != "base."}
        backbone = {f"base.{key.removeprefix('module.')}": weights[key] for key in weights}
        try:
            self.load_state_dict({**head, **backbone})
        except RuntimeError as error:
            raise ValueError(f"pretrained_model does not fit the backbone: {error}") from error

    def _load_from_state_dict(self, state_dict: dict[str, Any], prefix: str, *args: Any) -> None:
        """Lets ``load_state_dict`` read the superannotate fork's keys as well as upstream's.

        The fork names the backbone's children (``base.layer0.*``) where upstream numbers them
        (``base.0.*``), and has an unused classifier ``base.fc.*``, which is left out. ``up.weight``
        is fixed, so weights with it fit a model that interpolates, and the other way round.
        """
        for key in [key for key in state_dict if key.startswith(f"{prefix}base.")]:
            child, _, rest = key.removeprefix(f"{prefix}base.").partition(".")
            if child == "fc":
                del state_dict[key]
            elif child in self._child_names:
                index = self._child_names.index(child)
                state_dict[f"{prefix}base.{index}.{rest}"] = state_dict.pop(key)
        up_key = f"{prefix}up.weight"
        if isinstance(self.up, nn.ConvTranspose2d):
            state_dict.setdefault(up_key, self.up.weight)
        else:
            state_dict.pop(up_key, None)
        super()._load_from_state_dict(state_dict, prefix, *args)
