"""What holds for all tests."""

from __future__ import annotations

import os

from hypothesis import settings

import experiments  # noqa: F401  # it sets a bound that OpenCV reads when it is loaded

# Machines are shared, so no example fails for being slow; a change is checked by the same examples
# every time, and by new ones on a developer's machine.
settings.register_profile("house", deadline=None, derandomize="CI" in os.environ)
settings.load_profile("house")
