"""Active learning for computer vision: the loop, its contracts, strategies, and Learning Loss.

Samples are identified by position and models by protocol; only torch and NumPy are needed. Four
steps add loss prediction to any model:

    net = ActiveLearning(net, layers="auto", example=inputs)     # or layers=["layer3", "layer4"]
    outputs, loss_pred = net(inputs)
    loss = losses.mean() + lam * LossPredictionLoss()(loss_pred, losses)
    indices, values = choose_active_learning_indices(net, cycle, rand_state, pool, dataset, device)

The public names are those of `al_core.public`, which is imported when the first of them is used.
Programs can therefore import `al_core.errors` and `al_core.files` without loading torch.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from al_core.public import *  # noqa: F403  # for type checkers only
else:

    def __getattr__(name: str) -> Any:
        """Return a public name (PEP 562)."""
        public = import_module("al_core.public")
        if name != "__all__" and name not in public.__all__:
            raise AttributeError(f"module 'al_core' has no attribute {name!r}")
        return getattr(public, name)

    def __dir__() -> list[str]:
        """Return the public names."""
        return sorted({*globals(), *import_module("al_core.public").__all__})
