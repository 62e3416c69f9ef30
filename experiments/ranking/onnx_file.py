"""A trained network as an ONNX file, compared with itself in ONNX Runtime.

The input `pixels` is float32 (b, 3, h, w), RGB in 0..255, of images resized as `model.json` says;
the channels are normalized inside. The outputs are `probabilities` (b, k) of classes,
`probabilities` (b, k, h, w) of pixels, or `boxes` (b, priors, 4), corners in fractions of the
image's sides, with `scores` (b, priors, k), the first of background; they are not thinned out by
non-maximum suppression.
"""

from __future__ import annotations

import contextlib
import io
import json
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from al_core.errors import ActiveLearningError
from experiments.engine.engine import Engine
from experiments.learning.frozen import FrozenClassification
from experiments.ranking.model import TrainedModel, trained_model
from experiments.ranking.scorer import Scorer
from experiments.tasks.base import Task
from experiments.tasks.detection import Detection

MODEL, ABOUT = "model.onnx", "model.json"
TOLERANCE = 1e-4
"""Largest permitted difference of a probability, or of a corner in fractions of the image.
Networks of this project differ by 1e-6 to 1e-5 in float32, from another order of additions."""
MIN_EXPORTED_SIDE = 128
"""Pixels; in smaller images the deepest maps may have one position, which the export would fix."""
OUTPUTS = {
    "classification": ("probabilities",),
    "detection": ("boxes", "scores"),
    "segmentation": ("probabilities",),
    "pose": ("heatmaps",),
}


def write_onnx(checkpoint: Path, folder: Path) -> str:
    """Write `model.onnx` and `model.json` into a folder.

    Returns:
        The largest difference that was found, for people.

    Raises:
        InvalidSetting: The checkpoint cannot be used.
        ActiveLearningError: The network cannot be exported, or ONNX Runtime disagrees with it.
        ModuleNotFoundError: The extra `onnx` is not installed.
    """
    import onnxruntime
    import onnxscript  # noqa: F401  # torch.onnx needs it

    trained = trained_model(checkpoint)
    engine = Engine(device="cpu")
    engine.join()
    scorer = Scorer(trained, engine)
    network = _Deployed(scorer, trained.kind).eval()
    any_size = trained.kind == "segmentation"
    examples = [_example(network.task, count, any_size=any_size) for count in (2, 3)]
    path = folder / MODEL
    with torch.no_grad():
        network(examples[0])  # a network that cannot be exported says why
    _export(network, examples[0], trained.kind, path)
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(str(path), options, providers=["CPUExecutionProvider"])
    difference = max(_difference(network.as_run, session, pixels) for pixels in examples)
    if not difference <= TOLERANCE:
        raise ActiveLearningError(
            f"ONNX Runtime's outputs differ from the network's by {difference:.1e}, and "
            f"{TOLERANCE:g} is permitted: nothing was written"
        )
    _describe(trained, network.task, difference, folder / ABOUT)
    return f"outputs in ONNX Runtime differ by {difference:.1e} at most (permitted {TOLERANCE:g})"


class _Deployed(nn.Module):
    """The network with normalization before it, and probabilities and corners after it.

    Attributes:
        task: The task whose images it takes.
    """

    def __init__(self, scorer: Scorer, kind: str) -> None:
        super().__init__()
        model = scorer.learner.model
        base = getattr(model, "base_model", model)  # without a loss-prediction module
        assert isinstance(base, nn.Module)
        self._run_task, self._run_network = scorer.task, base
        self._kind = kind
        self.task, self.network = scorer.task, base
        if isinstance(scorer.task, FrozenClassification):
            self.task, self.network = scorer.task.inner, scorer.task.completed(base)

    def forward(self, pixels: Tensor) -> Any:
        return self._finished(self.network(self.task.normalize(pixels)))

    def as_run(self, pixels: Tensor) -> Any:
        """Return the outputs as the run computes them: features first where they are kept."""
        return self._finished(self._run_network(self._run_task.normalize(pixels)))

    def _finished(self, outputs: Any) -> Any:
        if self._kind == "classification":
            return outputs.softmax(1)
        if self._kind == "segmentation":
            return outputs[0].exp()
        if self._kind == "pose":
            return outputs.final
        assert isinstance(self.task, Detection)
        return self.task.detector.candidates(outputs)


def _example(task: Task, count: int, *, any_size: bool) -> Tensor:
    """Return noise of the shape of prepared images, float32 (count, 3, h, w).

    Where any size is taken, it is another one for every `count`, and not too small.
    """
    height, width = task.example().shape[2:]
    if any_size:
        height, width = (max(side, MIN_EXPORTED_SIDE) + 8 * count for side in (height, width))
    drawn = np.random.default_rng(count).integers(0, 256, (count, 3, height, width))
    return torch.from_numpy(drawn.astype(np.float32))


def _export(network: nn.Module, pixels: Tensor, kind: str, path: Path) -> None:
    dynamic = torch.export.Dim.DYNAMIC
    # A segmenter takes images of any size.
    axes = {0: dynamic, 2: dynamic, 3: dynamic} if kind == "segmentation" else {0: dynamic}
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(io.StringIO()):
            warnings.simplefilter("ignore")  # about features that the network keeps for scoring
            with torch.inference_mode(False), torch.no_grad():
                torch.onnx.export(
                    network, (pixels,), str(path), dynamo=True, dynamic_shapes=(axes,),
                    input_names=["pixels"], output_names=list(OUTPUTS[kind]),
                    external_data=False, verbose=False,
                )  # fmt: skip
    except (torch.onnx.errors.OnnxExporterError, RuntimeError, ValueError) as error:
        reason = " ".join(str(error).split())[:200]
        raise ActiveLearningError(f"the network cannot be exported to ONNX: {reason}") from None


def _difference(as_run: Callable[[Tensor], Any], session: Any, pixels: Tensor) -> float:
    with torch.no_grad():
        wanted = as_run(pixels)
    wanted = wanted if isinstance(wanted, tuple) else (wanted,)
    found = session.run(None, {"pixels": pixels.numpy()})
    return max(
        float(np.abs(one.numpy() - other).max()) if one.shape == other.shape else float("inf")
        for one, other in zip(wanted, found, strict=True)
    )


def _describe(trained: TrainedModel, task: Task, difference: float, path: Path) -> None:
    height, width = task.example().shape[2:]
    any_size = trained.kind == "segmentation"
    about = {
        "kind": trained.kind,
        "class_names": list(trained.class_names),
        "input": {"name": "pixels", "dtype": "float32", "range": [0, 255], "channels": "RGB"},
        "image_size": None if any_size else [height, width],
        "resize": trained.data_facts.get("resize", None if any_size else "stretch"),
        "image_scale": trained.config["task"]["build"].get("image_scale"),
        "outputs": list(OUTPUTS[trained.kind]),
        "checkpoint_sha256": trained.sha256,
        "largest_difference": difference,
        "tolerance": TOLERANCE,
    }
    path.write_text(f"{json.dumps(about, ensure_ascii=False, indent=1)}\n", encoding="utf-8")
