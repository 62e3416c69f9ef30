"""Preparations of the server of small_runs before the first process is forked from it.

Imported what a run needs, composed a configuration, which reads Hydra's plugins and grammars, and
taken it all from the garbage collector, which would copy every page of it in every process.
"""

from __future__ import annotations

import gc

import hypothesis  # noqa: F401
import pytest  # noqa: F401
import torch._dynamo  # noqa: F401

import vendored.pytorch_cifar  # noqa: F401
from tests.small_runs import compose, draw_little, overrides

compose(*overrides())
draw_little()
gc.collect()
gc.freeze()
