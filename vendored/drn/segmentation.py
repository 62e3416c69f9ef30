"""Semantic segmentation on a dilated residual network, tapped for learning loss.

Source: Yu, Koltun and Funkhouser, "Dilated Residual Networks" (arXiv 1705.09914, section 5): the
backbone, a 1x1 convolution to class scores at 1/8 of the resolution, and bilinear upsampling.
State_dict, outputs and initialization are compatible with fyu/drn @ d75db2e. The tapped tensors
and the dropout are compatible with superannotateai/active_learning @ aa2b9ae, which adds the loss
prediction of Yoo and Kweon (arXiv 1905.03677, section 3.2).
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
    """A transposed convolution that enlarges each class map ``STRIDE`` times bilinearly.

    Its weights (classes, 1, 16, 16) are fixed and have no gradient.
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

    The features kept of a forward pass are the outputs of layer1 to layer8 (of DRN-A: to layer4),
    the scores at 1/8 of the resolution and the log-probabilities at full resolution: ten (six)
    tensors. The embedding is the average over the last backbone map; it has 512 values, or 2048
    for drn_a_50.

    Differs: ``pretrained`` is off by default, so that building a model never downloads anything.

    Args:
        model_name: A backbone of :data:`vendored.drn.models.MODEL_NAMES`.
        classes: Number of classes, k.
        pretrained_model: Weights of the classification network to start the backbone from: its
            state_dict, or the path of a file with it. The classifier in them is not used.
        pretrained: Start the backbone from the published ImageNet weights.
        use_torch_up: Upsample by interpolation with aligned corners instead of the fixed
            transposed convolution ``up``.
        add_dropout: End every residual stage of the backbone with dropout of probability 0.5,
            active in eval mode too unless :meth:`dropout_sampling` switches it off.

    Attributes:
        record_features: Set it to False to keep no features, which saves memory, most of it for
            the maps at full resolution.

    Raises:
        ValueError: ``classes`` is not positive, the name is unknown or has no published weights,
            two sources of weights are given, or ``pretrained_model`` does not fit the backbone.
        FileNotFoundError: The file ``pretrained_model`` does not exist.
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
        """Compute class log-probabilities and scores of float images (b, 3, h, w).

        Returns:
            Log-probabilities (b, k, h, w) and the scores (b, k, h / 8, w / 8) that they are
            upsampled from. Sides are rounded up to multiples of 8, as upstream.
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
        """Iterate over the parameters to train: those of ``base``, then those of ``seg``."""
        yield from self.base.parameters()
        yield from self.seg.parameters()

    def dropout_sampling(self, active: bool) -> AbstractContextManager[None]:
        """Switch the dropout of ``add_dropout`` in eval mode on or off inside a ``with`` block.

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
        """Accept the superannotate fork's keys as well as upstream's.

        The fork names the backbone's children (``base.layer0.*``), upstream numbers them
        (``base.0.*``). The fork's unused classifier ``base.fc.*`` is left out. ``up.weight`` is
        fixed, so it may be missing, and it is ignored if the model interpolates.
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
