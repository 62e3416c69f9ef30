"""Find the stages of a network: the layers to tap when nobody names them.

A stage is what a network computes at one resolution. One batch is run through the network with
hooks on every layer, so no table of architectures is needed; only the sizes of the outputs count.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from torch import Tensor, nn

from al_core.errors import InvalidSetting, require_positive
from al_core.layouts import NetworkWidths, channel_dim
from al_core.taps import run_example, unwrapped

MAX_GLOBAL_FACTOR = 16
"""Positions shrink at most by this factor from one layer to the next, 4 a side, as in the stems of
ConvNeXt and Swin; a larger factor is global pooling, after which the classifier comes."""


@dataclass(frozen=True)
class _Output:
    """One layer's only output, a map or tokens.

    Attributes:
        name: The layer's name.
        layer: The layer.
        order: When it was returned, counting all layers' outputs.
        num_positions: h * w of a map, n of tokens.
        is_global: It comes out of global pooling.
    """

    name: str
    layer: nn.Module
    order: int
    num_positions: int
    is_global: bool

    @property
    def is_block(self) -> bool:
        """True for a layer with weights that is made of other layers."""
        return self.has_weights and next(self.layer.children(), None) is not None

    @property
    def has_weights(self) -> bool:
        return next(self.layer.parameters(), None) is not None


def find_stages(model: nn.Module, example: Any, *, at_most: int = 4) -> list[str]:
    """Find the last layer of each stage of a network, to tap it by name.

    A stage ends where the number of positions of the maps or tokens falls to half or less. Within a
    stage the last block counts (a layer made of other layers, such as `layer1` of a ResNet), or
    else the last layer with weights and the activation after it. The last `at_most` stages are
    returned; layers after global pooling and the growing maps of a decoder do not count.

    Where the resolution never changes, as in a vision transformer, the result is `at_most` evenly
    spaced blocks, the last one included: the longest row of sibling blocks is taken.

    Outputs whose layout is unclear are left out (see `ActiveLearning`), as are layers that are
    called several times in a forward or do not return one tensor.

    Args:
        model: The network, wrapped or not; its state and modes stay as they are.
        example: One batch, as `ActiveLearning` takes it. Its image size should be that of training:
            in smaller images the last stages may all have one position.
        at_most: The largest number of names.

    Returns:
        1 to `at_most` names as in `model.named_modules()`, in the order of the forward.

    Raises:
        InvalidSetting: No layer returns a map or tokens.
    """
    require_positive("at_most", at_most)
    inner = unwrapped(model)
    outputs = _outputs(inner, example)
    trunk = _parts(inner, "", outputs)
    stages = _stages(trunk)
    while len(stages) == 1:
        # The trunk may hold two stages in one container: look into the last such container.
        containers = [output for output in trunk if _num_resolutions(output, outputs) > 1]
        if not containers:
            break
        inside = _parts(containers[-1].layer, f"{containers[-1].name}.", outputs)
        trunk = [output for output in trunk if output is not containers[-1]] + inside
        trunk.sort(key=lambda output: output.order)
        stages = _stages(trunk)
    if len(stages) == 1:
        blocks = _longest_row(outputs)
        if len(blocks) > 1:
            count = min(at_most, len(blocks))
            return [blocks[(k + 1) * len(blocks) // count - 1].name for k in range(count)]
    if not stages:
        raise InvalidSetting(
            f"no layer of {type(inner).__name__} returns a map (b, c, h, w) or tokens (b, n, c) "
            "for the example; name the layers to tap: layers=[...]"
        )
    return [_representative(stage).name for stage in stages[-at_most:]]


def _outputs(model: nn.Module, example: Any) -> dict[str, _Output]:
    """Return the outputs of all layers that return one map or one sequence, by name."""
    returned: dict[str, list[Any]] = {}
    order: list[str] = []

    def record(name: str) -> Any:
        def hook(module: nn.Module, args: Any, output: Any) -> None:
            shape = tuple(output.shape) if isinstance(output, Tensor) else None
            returned.setdefault(name, []).append(shape)
            order.append(name)

        return hook

    modules = {name: module for name, module in model.named_modules() if name}
    handles = [module.register_forward_hook(record(name)) for name, module in modules.items()]
    try:
        run_example(model, example)
    finally:
        for handle in handles:
            handle.remove()

    widths = NetworkWidths(model)
    batch_size: int | None = None
    found: dict[str, _Output] = {}
    leaf = ""
    for position, name in enumerate(order):
        module = modules[name]
        if next(module.children(), None) is None:
            leaf = name
        if len(returned[name]) > 1 or returned[name][0] is None:
            continue
        shape = returned[name][0]
        batch_size = shape[0] if batch_size is None and shape else batch_size
        num_positions = _num_positions(shape, module, widths)
        if num_positions and shape[0] == batch_size:
            is_global = _is_global_pooling(modules[leaf]) or _is_global_pooling(module)
            found[name] = _Output(name, module, position, num_positions, is_global)
    return found


def _num_positions(shape: Sequence[int], layer: nn.Module, widths: NetworkWidths) -> int:
    """Return h * w of a map or n of tokens, or 0 for anything else."""
    if len(shape) not in (3, 4):
        return 0
    layout = widths.evidence(layer).layout(shape)
    if layout is None:
        # Both readings of (b, c, h, c) agree on the number of positions.
        return shape[1] * shape[2] if len(shape) == 4 and shape[1] == shape[3] else 0
    num_positions = 1
    for dim in range(1, len(shape)):
        if dim != channel_dim(shape, layout):
            num_positions *= shape[dim]
    return num_positions


def _is_global_pooling(module: nn.Module) -> bool:
    name = type(module).__name__.lower()
    return "pool" in name and ("adaptive" in name or "global" in name)


def _parts(layer: nn.Module, prefix: str, outputs: dict[str, _Output]) -> list[_Output]:
    """Return the outermost layers inside one, in the order of the forward, none of them a backbone.

    A layer with three or more resolutions inside is replaced by its parts; two resolutions are
    those of one stage that begins with a stride.
    """
    found: list[_Output] = []
    for name, child in layer.named_children():
        path = f"{prefix}{name}"
        output = outputs.get(path)
        if output is not None and _num_resolutions(output, outputs) < 3:
            found.append(output)
        else:
            found += _parts(child, f"{path}.", outputs)
    return sorted(found, key=lambda output: output.order)


def _num_resolutions(output: _Output, outputs: dict[str, _Output]) -> int:
    """Count the resolutions inside a layer, its own included, that halve the one before.

    Smaller ones than its own are side branches, such as squeeze-and-excitation.
    """
    sizes = [
        inner.num_positions
        for name, inner in outputs.items()
        if name.startswith(f"{output.name}.") and inner.num_positions >= output.num_positions
    ]
    count, reference = 0, 0
    for size in sorted([*sizes, output.num_positions], reverse=True):
        if not count or 2 * size <= reference:
            count, reference = count + 1, size
    return count


def _stages(trunk: Sequence[_Output]) -> list[list[_Output]]:
    """Group the trunk by resolution; stages without weights, such as pooling, are left out."""
    stages: list[list[_Output]] = []
    reference = previous = 0
    for output in trunk:
        size = output.num_positions
        if output.is_global or size * MAX_GLOBAL_FACTOR < previous:
            break
        if not stages or 2 * size <= reference:
            stages.append([])
            reference = size
        if size < 2 * reference:
            stages[-1].append(output)
            previous = size
    return [stage for stage in stages if any(output.has_weights for output in stage)]


def _representative(stage: Sequence[_Output]) -> _Output:
    blocks = [output for output in stage if output.is_block]
    if blocks:
        return blocks[-1]
    last = max(i for i, output in enumerate(stage) if output.has_weights)
    activations = nn.ReLU.__module__
    while last + 1 < len(stage) and type(stage[last + 1].layer).__module__ == activations:
        last += 1
    return stage[last]


def _longest_row(outputs: dict[str, _Output]) -> list[_Output]:
    """Return the longest row of blocks of one parent and one resolution, in the forward's order."""
    rows: dict[tuple[str, int], list[_Output]] = {}
    for output in sorted(outputs.values(), key=lambda output: output.order):
        if output.is_block:
            row = (output.name.rpartition(".")[0], output.num_positions)
            rows.setdefault(row, []).append(output)
    return max(rows.values(), key=len, default=[])
