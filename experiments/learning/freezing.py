"""Parts of a network that do not change while the rest of it is trained.

Fine-tuning on few labels may keep the first stages of a pretrained network, which know edges and
textures, and the statistics of batch normalization, which small batches would spoil.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from torch import Tensor, nn

from al_core import ActiveLearning, find_stages
from al_core.errors import InvalidSetting
from al_core.taps import run_example
from experiments.settings.recipe import FreezingSettings

ALL_STAGES = 100
"""More than any network has."""
BATCH_NORMS = (nn.BatchNorm1d, nn.BatchNorm2d, nn.BatchNorm3d, nn.SyncBatchNorm)


class Freezing:
    """Keeps parts of networks of one kind as they are.

    Args:
        settings: The parts.
    """

    def __init__(self, settings: FreezingSettings) -> None:
        self._settings = settings
        self._stages: list[str] | None = None  # names of all modules in the stages, found once
        self._around: list[str] = []  # names of the modules that contain these

    def fix_weights(self, network: nn.Module, example: Callable[[], Tensor]) -> None:
        """Take the first stages of a fresh network from training.

        Args:
            network: Without a loss-prediction module, on the CPU.
            example: Returns a batch of its inputs.

        Raises:
            InvalidSetting: It has fewer stages.
        """
        if not self._settings.frozen_stages:
            return
        if self._stages is None:
            count = self._settings.frozen_stages
            self._stages, self._around = _modules_of_stages(network, example(), count)
        for name in (*self._stages, *self._around):
            for parameter in network.get_submodule(name).parameters(recurse=False):
                parameter.requires_grad_(False)

    def fix_modes(self, model: nn.Module) -> None:
        """Put the parts that do not change into evaluation mode, in a model in training mode."""
        network = model.base_model if isinstance(model, ActiveLearning) else model
        assert isinstance(network, nn.Module)
        for name in self._stages or ():
            network.get_submodule(name).training = False
        if self._settings.frozen_batch_norm:
            for module in network.modules():
                if isinstance(module, BATCH_NORMS):
                    module.eval()


def _modules_of_stages(
    network: nn.Module, example: Tensor, count: int
) -> tuple[list[str], list[str]]:
    """Return the modules that a forward is done with when it ends a stage, and those around it.

    The weights of the latter are fixed as well: the embeddings of positions in a transformer, for
    example, which precede all of its blocks.
    """
    stages = find_stages(network, example, at_most=ALL_STAGES)
    if count >= len(stages):
        raise InvalidSetting(
            f"backbone.frozen_stages={count} leaves too little to train: {type(network).__name__} "
            f"has {len(stages)} stages, which end with {', '.join(stages)}"
        )
    done: list[str] = []

    def note(name: str) -> Any:
        return lambda module, inputs, outputs: done.append(name)

    handles = [module.register_forward_hook(note(name)) for name, module in network.named_modules()]
    try:
        run_example(network, example)
    finally:
        for handle in handles:
            handle.remove()
    last = stages[count - 1]
    inside = list(dict.fromkeys(done[: done.index(last) + 1]))
    return inside, [name for name in done if not name or last.startswith(f"{name}.")]
