"""Active learning for computer vision: the loop, its contracts, strategies, and Learning Loss.

The library knows samples by position and models by protocol; it needs torch and NumPy only. The
four steps for a model of one's own:

    net = ActiveLearning(net)                       # or ActiveLearning(net, layers=["layer3"])
    outputs, loss_pred = net(inputs)
    loss = losses.mean() + lam * LossPredictionLoss()(loss_pred, losses)
    indices, values = choose_active_learning_indices(net, cycle, rand_state, pool, dataset, device)

The names are those of `al_core.public`, which is imported when the first of them is asked for:
`al_core.errors` and `al_core.files` are of use to programs that must answer before torch is there.
"""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from al_core.public import *  # noqa: F403  # for type checkers alone
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
