"""The loss-prediction module, attached to any model.

Source: Yoo & Kweon, *Learning Loss for Active Learning*, CVPR 2019 (arXiv 1905.03677), section 3.2
and figure 2. Names, defaults and state_dict keys are those of superannotateai/active_learning
@aa2b9ae, so heads published for it load.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from al_core.errors import InvalidSetting, TapError, require_positive
from al_core.taps import LayerTaps, MethodTaps, Taps, unwrapped


class ActiveLearning(nn.Module):
    """A model that also predicts its own loss.

    Each tapped feature is average-pooled to p x p and taken through a linear layer of width w and
    a ReLU; the results are concatenated and a linear layer makes one number of them.

    Its state_dict has the keys `base_model.*`, `fc.<i>.weight|bias` and `loss_pred.weight|bias`.

    Args:
        base_model: Any model. Without `layers` it must have the methods
            `get_active_learning_feature_channel_counts()` and `get_active_learning_features()`.
        global_avg_pool_size: The side p of the pooled features.
        fc_width: The width w.
        layers: Names of the layers to tap, for any other model: `ActiveLearning(net,
            layers=["layer1", "layer2"])`. Their outputs must be (b, c, h, w) or (b, c).
        example: With `layers`, one batch of inputs that is sent through the model once, in eval
            mode, to find the channel counts. Without it the head takes them from the first
            forward, and cannot be put into DistributedDataParallel before that.

    Raises:
        InvalidSetting: Sizes that are not positive, unknown layers, or a model that has neither
            the two methods nor `layers`.
    """

    def __init__(
        self,
        base_model: nn.Module,
        global_avg_pool_size: int = 1,
        fc_width: int = 128,
        *,
        layers: Sequence[str] | None = None,
        example: Tensor | None = None,
    ) -> None:
        super().__init__()
        require_positive("global_avg_pool_size", global_avg_pool_size)
        require_positive("fc_width", fc_width)
        self.global_avg_pool_size = global_avg_pool_size
        self.fc_width = fc_width
        self.base_model = base_model
        self._taps: Taps
        counts: list[int] | None
        if layers is not None:
            self._taps = LayerTaps(base_model, layers)
            counts = None if example is None else self._found_out(example)
            num_taps = len(layers)
        elif MethodTaps.offered_by(base_model):
            self._taps = taps = MethodTaps(base_model)
            counts = taps.channel_counts()
            num_taps = len(counts)
        else:
            raise InvalidSetting(
                f"{type(base_model).__name__} has no get_active_learning_features(); name the "
                "layers to tap: ActiveLearning(net, layers=[...])"
            )
        cells = global_avg_pool_size**2
        self.fc = nn.ModuleList(
            nn.LazyLinear(fc_width) if counts is None else nn.Linear(counts[i] * cells, fc_width)
            for i in range(num_taps)
        )
        self.loss_pred = nn.Linear(num_taps * fc_width, 1)

    def forward(self, x: Any, detach_lp: bool = False) -> tuple[Any, Tensor]:
        """Run the model and predict its loss.

        Args:
            x: What the model takes.
            detach_lp: Stop the gradient of the predicted loss at the tapped features: the head goes
                on learning and the model is left alone. No value changes.

        Returns:
            The model's outputs as they are, and the predicted loss (b,) in float32. Differs: the
            reference gives (b, 1), which broadcasts wrongly in the ranking loss.

        Raises:
            TapError: A feature is missing or does not fit the head.
        """
        if getattr(self, "_is_replica", False):
            raise TapError(
                "features cannot be tapped under nn.DataParallel, whose copies of the model share "
                "one place for them; use DistributedDataParallel"
            )
        self._taps.clear()
        outputs = self.base_model(x)
        features = self._taps.collect()
        if len(features) != len(self.fc):
            raise TapError(f"the head was built for {len(self.fc)} features, got {len(features)}")
        hidden = [
            F.relu(linear(self._pooled(feature.detach() if detach_lp else feature, i)))
            for i, (feature, linear) in enumerate(zip(features, self.fc, strict=True))
        ]
        return outputs, self.loss_pred(torch.cat(hidden, dim=1)).squeeze(1).float()

    def optim_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters to train: the model's own choice of them, then the head's.

        A model that keeps some weights fixed says so by an `optim_parameters()` of its own.
        """
        own = getattr(unwrapped(self.base_model), "optim_parameters", self.base_model.parameters)
        yield from own()
        yield from self.fc.parameters()
        yield from self.loss_pred.parameters()

    def _pooled(self, feature: Tensor, i: int) -> Tensor:
        """Pool feature i to (b, c * p * p)."""
        _check_shape(feature, i)
        if feature.ndim == 2:
            feature = feature[:, :, None, None]
        linear = self.fc[i]
        if self.global_avg_pool_size == 1:
            # The same numbers as adaptive pooling, but its gradient is one number a channel, not a
            # map as large as the feature and in another memory layout.
            pooled = feature.sum((2, 3)) / (feature.shape[2] * feature.shape[3])
        else:
            pooled = F.adaptive_avg_pool2d(feature, self.global_avg_pool_size).flatten(1)
        # A lazy layer has no size until its first forward, and takes whatever comes.
        if type(linear) is nn.Linear and pooled.shape[1] != linear.in_features:
            cells = self.global_avg_pool_size**2
            raise TapError(
                f"tapped feature {i} has {feature.shape[1]} channels, the head was built for "
                f"{linear.in_features // cells}: the model does not give what its "
                "get_active_learning_feature_channel_counts(), or the example, said"
            )
        return pooled

    def _found_out(self, example: Tensor) -> list[int]:
        """Send one batch through the model and read off the channel counts."""
        with evaluation_mode(self.base_model), torch.no_grad():
            self.base_model(example)
        features = self._taps.collect()
        for i, feature in enumerate(features):
            _check_shape(feature, i)
        return [feature.shape[1] for feature in features]


@contextmanager
def evaluation_mode(model: nn.Module) -> Iterator[None]:
    """Put a model into eval mode for a while; afterwards each module has its own mode back.

    A model may have been training with some of its layers frozen in eval mode.
    """
    modes = [(module, module.training) for module in model.modules()]
    model.eval()
    try:
        yield
    finally:
        model.train(modes[0][1])
        for module, training in modes:
            module.training = training


def _check_shape(feature: Tensor, i: int) -> None:
    if feature.ndim not in (2, 4):
        raise TapError(
            f"tapped feature {i} has shape {tuple(feature.shape)}; (b, c, h, w) or (b, c) is needed"
        )
