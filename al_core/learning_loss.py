"""The loss-prediction module, attached to any model.

Source: Yoo & Kweon, *Learning Loss for Active Learning*, CVPR 2019 (arXiv 1905.03677), section 3.2
and figure 2. Names, defaults and state_dict keys are those of superannotateai/active_learning
@aa2b9ae, so heads published for it load.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from al_core.errors import InvalidSetting, TapError, require_positive
from al_core.layouts import (
    Layout,
    LayoutChoice,
    channel_dim,
    check_layout,
    checked_layout,
    pooled,
)
from al_core.output_tap import num_output_statistics, output_statistics
from al_core.stages import find_stages
from al_core.taps import LayerTaps, MethodTaps, Taps, run_example, unwrapped


class ActiveLearning(nn.Module):
    """A model that also predicts its own loss.

    Each tapped feature is average-pooled and passed through a linear layer of width w and a ReLU;
    the results are concatenated and a last linear layer maps them to one number.

    Maps, (b, c, h, w) or (b, h, w, c), are pooled to p x p cells. Differs: the paper taps maps
    only. Tokens (b, n, c) are averaged over all n, class and register tokens included, and need
    p = 1; a feature (b, c) counts as a map of one position.

    The head is computed in float32 (float64 if its weights are), with autocast disabled: in
    bfloat16 most predicted losses would tie.

    Its state_dict has the keys `base_model.*`, `fc.<i>.weight|bias` and `loss_pred.weight|bias`.

    Args:
        base_model: Any model. Without `layers` it must have the methods
            `get_active_learning_feature_channel_counts()` and `get_active_learning_features()`.
        global_avg_pool_size: The side p of the pooled features.
        fc_width: The width w.
        layers: Names of the layers whose outputs are tapped: `ActiveLearning(net,
            layers=["layer1", "layer2"])`. "auto" takes the network's stages (see
            `al_core.find_stages`) and needs `example`.
        example: With `layers`, one batch that is run through the model once, in eval mode, to find
            the numbers of channels: the model's only input, a tuple of its positional inputs, or a
            mapping of its keyword inputs. Without it the head takes its size from the first
            forward and cannot be wrapped in DistributedDataParallel before that.
        layout: Where the channels of the features are: "channels_first" (b, c, h, w),
            "channels_last" (b, h, w, c), "tokens" (b, n, c), or a mapping from layer names to
            these. "auto", also for layers that a mapping leaves out, recognizes the layout from the
            numbers of channels that the network's layers have, and refuses unclear cases.
        output_tap: A function from what the model returns to its log-probabilities (b, k) or
            (b, k, *positions), `lambda outputs: outputs.log_softmax(1)`. The head then sees
            `al_core.output_statistics` of them too, as its last feature and without gradient.
            Differs: the paper has no such feature. With `example` its size is known at once.

    Raises:
        InvalidSetting: A size is not positive, a layer or a layout is unknown, or the model has
            neither the two methods nor `layers`.
        TapError: The features of `example` have an unclear layout, or one that was not declared.
    """

    def __init__(
        self,
        base_model: nn.Module,
        global_avg_pool_size: int = 1,
        fc_width: int = 128,
        *,
        layers: Sequence[str] | Literal["auto"] | None = None,
        example: Any = None,
        layout: LayoutChoice | Mapping[str, LayoutChoice] = "auto",
        output_tap: Callable[[Any], Tensor] | None = None,
    ) -> None:
        super().__init__()
        require_positive("global_avg_pool_size", global_avg_pool_size)
        require_positive("fc_width", fc_width)
        self.global_avg_pool_size = global_avg_pool_size
        self.fc_width = fc_width
        self.base_model = base_model
        self._taps: Taps
        self._output_tap = output_tap
        counts: list[int] | None = None
        outputs: Any = None
        if layers is not None:
            if layers == "auto":
                if example is None:
                    raise InvalidSetting('layers="auto" needs an example: one batch of inputs')
                layers = find_stages(base_model, example)
            self._layouts = _declared(layout, layers)
            self._taps = layer_taps = LayerTaps(base_model, layers)
            if example is not None:
                try:
                    outputs = run_example(base_model, example)
                    counts = self._channel_counts(layer_taps.collect())
                except Exception:  # the caller may wrap the same model again
                    layer_taps.remove()
                    raise
        elif MethodTaps.offered_by(base_model):
            self._taps = taps = MethodTaps(base_model)
            counts = taps.channel_counts
            self._layouts = _declared(layout, [""] * len(counts))
        else:
            raise InvalidSetting(
                f"{type(base_model).__name__} has no get_active_learning_features(); name the "
                "layers to tap, ActiveLearning(net, layers=[...]), or let them be found, "
                'ActiveLearning(net, layers="auto", example=inputs)'
            )
        cells = global_avg_pool_size**2
        self.fc = nn.ModuleList(
            nn.LazyLinear(fc_width) if counts is None else nn.Linear(counts[i] * cells, fc_width)
            for i in range(len(self._layouts))
        )
        if output_tap is not None:
            if example is not None and outputs is None:
                outputs = run_example(base_model, example)
            self.fc.append(
                nn.LazyLinear(fc_width)
                if outputs is None
                else nn.Linear(num_output_statistics(output_tap(outputs)), fc_width)
            )
        self.loss_pred = nn.Linear(len(self.fc) * fc_width, 1)

    def forward(
        self, x: Any = None, detach_lp: bool = False, **keyword_inputs: Any
    ) -> tuple[Any, Tensor]:
        """Run the model and predict its loss.

        Args:
            x: The model's first input; None for a model that takes keyword inputs only.
            detach_lp: Stop the gradient of the predicted loss at the tapped features: the head
                still learns and the model gets no gradient from it. No value changes.
            keyword_inputs: All further inputs of the model.

        Returns:
            The base model's return value, unchanged, of whatever type it is (a tensor, a tuple, a
            dict, a dataclass), and the predicted loss (b,) in float32. Differs: the reference gives
            (b, 1), which broadcasts wrongly in the ranking loss.

        Raises:
            TapError: A feature is missing, has an unclear layout or does not fit the head.
            InvalidSetting: `detach_lp` is not a bool.
        """
        if not isinstance(detach_lp, bool):
            raise InvalidSetting(
                "the second positional argument is detach_lp, true or false; give further inputs "
                f"of the model as keywords (got a {type(detach_lp).__name__})"
            )
        if getattr(self, "_is_replica", False):
            raise TapError(
                "features cannot be tapped under nn.DataParallel, whose copies of the model share "
                "one place for them; use DistributedDataParallel"
            )
        self._taps.clear()
        inputs = () if x is None else (x,)
        outputs = self.base_model(*inputs, **keyword_inputs)
        features = self._taps.collect()
        if len(features) != len(self._layouts):
            raise TapError(
                f"the head was built for {len(self._layouts)} features, got {len(features)}"
            )
        if len({feature.shape[0] for feature in features}) > 1:
            shapes = ", ".join(str(tuple(feature.shape)) for feature in features)
            raise TapError(f"the tapped features have different batch sizes: {shapes}")
        with _without_autocast(features[0].device.type):
            hidden = [
                F.relu(_linear(self.fc[i], self._pooled(f.detach() if detach_lp else f, i)))
                for i, f in enumerate(features)
            ]
            if self._output_tap is not None:
                seen = output_statistics(self._output_tap(outputs))
                hidden.append(F.relu(_linear(self.fc[-1], seen.to(hidden[0].dtype))))
            predicted = _linear(self.loss_pred, torch.cat(hidden, dim=1))
        return outputs, predicted.squeeze(1).float()

    def optim_parameters(self) -> Iterator[nn.Parameter]:
        """Yield the parameters to train: those that the model chooses, then the head's.

        A model that keeps some weights fixed leaves them out of an `optim_parameters()` of its own.
        """
        own = getattr(unwrapped(self.base_model), "optim_parameters", self.base_model.parameters)
        yield from own()
        yield from self.fc.parameters()
        yield from self.loss_pred.parameters()

    def _pooled(self, feature: Tensor, i: int) -> Tensor:
        """Pool feature i to (b, c * p * p), in float32 or the head's float64."""
        layout = self._layout(feature, i)
        linear = self.fc[i]
        size = self.global_avg_pool_size
        # A lazy layer has no size until its first forward, and takes any number of channels.
        if type(linear) is nn.Linear:
            channels = feature.shape[channel_dim(feature.shape, layout)]
            if channels * size**2 != linear.in_features:
                raise TapError(
                    f"{self._taps.names[i]} has {channels} channels, the head was built for "
                    f"{linear.in_features // size**2}: the model's features differ from those of "
                    "get_active_learning_feature_channel_counts() or of the example"
                )
        if feature.ndim == 3 and size != 1:
            raise TapError(
                f"{self._taps.names[i]} has shape {tuple(feature.shape)}, a sequence without "
                f"{size} x {size} cells to average; use global_avg_pool_size=1"
            )
        return pooled(feature, layout, size, _dtype(linear))

    def _channel_counts(self, features: Sequence[Tensor]) -> list[int]:
        """Return the numbers of channels of one forward's features."""
        dims = [channel_dim(f.shape, self._layout(f, i)) for i, f in enumerate(features)]
        return [feature.shape[dim] for feature, dim in zip(features, dims, strict=True)]

    def _layout(self, feature: Tensor, i: int) -> Layout:
        """Return the layout of feature i, declared or recognized."""
        layout = self._layouts[i] or self._taps.layout(i, feature.shape)
        return checked_layout(layout, feature.shape, self._taps.names[i])


def _declared(
    layout: LayoutChoice | Mapping[str, LayoutChoice], layers: Sequence[str]
) -> list[Layout | None]:
    """Return the declared layout of each layer, None where it is to be recognized."""
    if isinstance(layout, Mapping):
        for name in layout:
            if name not in layers:
                raise InvalidSetting(
                    f"layout names {name!r}, which is not a tapped layer; those are "
                    + (", ".join(layer for layer in layers if layer) or "the model's own features")
                )
        chosen = [layout.get(layer, "auto") for layer in layers]
    else:
        chosen = [layout] * len(layers)
    for choice in chosen:
        check_layout(choice)
    return [None if choice == "auto" else choice for choice in chosen]


def _without_autocast(device: str) -> AbstractContextManager[Any]:
    """Return a context without autocast, on devices that have it."""
    if not torch.amp.is_autocast_available(device):
        return nullcontext()
    return torch.autocast(device, enabled=False)


def _dtype(linear: nn.Module) -> torch.dtype:
    """Return the dtype to compute the head in: at least float32, in a half-precision model too."""
    if not isinstance(linear, nn.Linear):  # one that a library put in its place, quantized say
        return torch.float32
    return torch.promote_types(linear.weight.dtype, torch.float32)


def _linear(linear: nn.Module, x: Tensor) -> Tensor:
    """Apply a linear layer in the dtype of x, even if its weights have a lower precision."""
    if isinstance(linear, nn.LazyLinear):
        linear(x.to(linear.weight.dtype))  # gives the layer its size
    if isinstance(linear, nn.Linear) and linear.weight.dtype != x.dtype:
        return F.linear(x, linear.weight.to(x.dtype), linear.bias.to(x.dtype))
    out: Tensor = linear(x)
    return out
