"""Embeddings of any model's inputs, recorded while the model runs."""

from __future__ import annotations

from functools import partial
from types import TracebackType
from typing import Any, Literal

import torch
from torch import Tensor, nn

from al_core.errors import InvalidSetting, TapError
from al_core.layouts import (
    Layout,
    LayoutChoice,
    NetworkWidths,
    check_layout,
    checked_layout,
    pooled,
)
from al_core.learning_loss import ActiveLearning
from al_core.taps import named_layer, unwrapped


class EmbeddingTap:
    """Record an embedding (b, d) of each batch that passes through a model.

    By default it is the input of the linear layer that is called last, from which a classifier
    computes its logits. Another layer can be named. Maps and tokens are averaged over their
    positions.

        with EmbeddingTap(net) as tap, torch.inference_mode():
            outputs = net(images)
            embedding = tap.collect()

    Hooks belong to the model until `remove` is called or the `with` block ends.

    Args:
        model: Any model, wrapped or not; the base model of an `ActiveLearning` is tapped, without
            the loss-prediction head.
        layer: Name of the layer as in `model.named_modules()`, without wrappers' prefixes. None:
            the `nn.Linear` that is called last in a forward.
        of: Record the layer's "input" or "output"; without a layer's name only "input".
        layout: Layout of what is recorded, as for `ActiveLearning`.

    Raises:
        InvalidSetting: Unknown layer, layout or `of`, or no linear layer in the model.
    """

    def __init__(
        self,
        model: nn.Module,
        layer: str | None = None,
        *,
        of: Literal["input", "output"] = "input",
        layout: LayoutChoice = "auto",
    ) -> None:
        inner = unwrapped(model)
        if isinstance(inner, ActiveLearning):
            inner = unwrapped(inner.base_model)
        check_layout(layout)
        if of not in ("input", "output"):
            raise InvalidSetting(f"of must be input or output, got {of!r}")
        if layer is None:
            tapped: dict[str, nn.Module] = {
                name: m for name, m in inner.named_modules() if isinstance(m, nn.Linear)
            }
            if of == "output":
                raise InvalidSetting('of="output" needs the name of a layer')
            if not tapped:
                raise InvalidSetting(
                    f"{type(inner).__name__} has no linear layer; name the layer whose input is "
                    "the embedding: EmbeddingTap(net, layer=...)"
                )
        else:
            tapped = {layer: named_layer(inner, layer)}
        self._names = tuple(tapped)
        self._of = of
        self._layout: Layout | None = None if layout == "auto" else layout
        widths = NetworkWidths(inner)
        self._evidence = [widths.evidence(module, of=of) for module in tapped.values()]
        self._recorded: tuple[int, Tensor] | None = None
        self._num_logits = 0
        self._is_head = True
        # Partials of methods, not closures: they survive deepcopy and pickle.
        if of == "output":
            self._handles = [
                module.register_forward_hook(partial(self._keep_output, i))
                for i, module in enumerate(tapped.values())
            ]
            return
        self._handles = [
            module.register_forward_pre_hook(partial(self._keep_input, i), with_kwargs=True)
            for i, module in enumerate(tapped.values())
        ]
        if layer is None:
            for module in tapped.values():
                self._handles.append(module.register_forward_hook(self._count_logits))
            self._handles.append(inner.register_forward_hook(self._compare_outputs))

    def collect(self) -> Tensor:
        """Return the embedding of the latest batch and drop it here.

        Returns:
            (b, d) in float32, or float64 where the model computes in it; attached to the graph if
            the forward recorded one.

        Raises:
            TapError: The layer has not been called since the last `collect`, the layout of its
                input or output is unclear, or the linear layer called last is not a classifier: its
                output has another number of elements than the model's.
        """
        recorded, self._recorded = self._recorded, None
        if recorded is None:
            which = repr(self._names[0]) if len(self._names) == 1 else "one of the linear layers"
            raise TapError(
                f"layer {which} was not called in the model's forward, or the model was compiled "
                "and run before it was tapped"
            )
        i, feature = recorded
        if not self._is_head:
            raise TapError(
                f"the model's output is not computed by its last linear layer, {self._names[i]!r}, "
                "whose input would be the embedding; name a layer: EmbeddingTap(net, layer=...)"
            )
        name = f"the {self._of} of layer {self._names[i]!r}"
        layout = self._layout or self._evidence[i].layout(feature.shape)
        layout = checked_layout(layout, feature.shape, name)
        return pooled(feature, layout, 1, torch.promote_types(feature.dtype, torch.float32))

    def remove(self) -> None:
        """Remove the hooks from the model."""
        for handle in self._handles:
            handle.remove()
        self._recorded = None

    def __enter__(self) -> EmbeddingTap:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.remove()

    def __getstate__(self) -> dict[str, Any]:
        # The hooks of a copied model bring a copy of the tap along; activations cannot be copied.
        return {**self.__dict__, "_recorded": None}

    def _keep_input(self, i: int, module: nn.Module, args: Any, kwargs: Any) -> None:
        self._keep(i, next(iter((*args, *kwargs.values())), None))

    def _keep_output(self, i: int, module: nn.Module, args: Any, output: Any) -> None:
        self._keep(i, output)

    def _keep(self, i: int, feature: Any) -> None:
        if not isinstance(feature, Tensor):
            raise TapError(
                f"the {self._of} of layer {self._names[i]!r} is a {type(feature).__name__}, not a "
                "tensor"
            )
        self._recorded = (i, feature)

    def _count_logits(self, module: nn.Module, args: Any, output: Tensor) -> None:
        self._num_logits = output.numel()

    def _compare_outputs(self, module: nn.Module, args: Any, output: Any) -> None:
        # A dict or a dataclass does not say which of its tensors are the logits.
        self._is_head = not isinstance(output, Tensor) or output.numel() == self._num_logits
