"""The path of a run's folder. Importing this module is fast: it does not import torch."""

from __future__ import annotations

import hashlib
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

WHOLE_IMAGES = "images"
"""The choice of `query` in which a sample of the pool is an image."""
LIVE = "label_studio"
"""The choice of `oracle` in which a run works with a server of Label Studio."""
PEOPLE = ("people", LIVE)
"""The choices of `oracle` in which people annotate."""
_LONGEST_LEVEL = 120  # characters in a folder's name; file systems allow 255 bytes


def strategy_label(values: Mapping[str, Any]) -> str:
    """Return the name of a configuration's strategy, followed by its unit unless that is images."""
    strategy, query = str(values["strategy"]["name"]), str(values["query"]["name"])
    return strategy if query == WHOLE_IMAGES else f"{strategy}-{query}"


def run_path(values: Mapping[str, Any], *, swept: str = "") -> Path:
    """Return the run folder of a resolved configuration: <out>/<name>/<strategy>/seed<seed>.

    Args:
        values: The configuration.
        swept: Further keys that a sweep varies, as key=value. They form a level of the path above
            the strategy, in which special characters are replaced and a long text is shortened.
            A hash of the text then keeps apart what would look the same.
    """
    folder = Path(values["out"], values["name"])
    level = re.sub(r"[^\w.,=+-]", "_", swept)
    is_long = len(level) > _LONGEST_LEVEL
    # Versions up to 0.1 replaced characters without adding a hash; their sweeps go on.
    if is_long or (level != swept and not (folder / level).exists()):
        level = f"{level[:_LONGEST_LEVEL]}-{hashlib.sha256(swept.encode()).hexdigest()[:8]}"
    return folder.joinpath(level, strategy_label(values), f"seed{values['seed']}")


def returned_folder(folder: Path, setting: str | None) -> Path:
    """Return the folder in which annotations of a run come back; `oracle.returned` may set it."""
    return Path(setting or folder / "returned")
