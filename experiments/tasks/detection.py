"""Object detection by networks that have a `Detector`: average precision, SSD's augmentation.

Source: SSD, Liu et al., arXiv 1512.02325, as trained by amdegroot/ssd.pytorch @ 5b0b77f; learning
loss on it: Yoo & Kweon, CVPR 2019, section 4.2, and superannotateai/active_learning @ aa2b9ae.

The targets of an image are rows of x_min, y_min, x_max, y_max as fractions, and the label without
background: (n, 5) for training, without the difficult objects, and (n, 6) for evaluation, where the
last column marks the difficult objects.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from al_core import IndexArray, Prediction
from al_core.errors import InvalidSetting, require_positive
from experiments.data.detection import ObjectDetection, Objects
from experiments.data.detection_augmentation import augment
from experiments.data.labels import Box, Label
from experiments.data.pictures import StretchedSamples, load_all, stretch
from experiments.data.samples import Batch
from experiments.data.targets import HiddenTargets, OpenTargets, Targets
from experiments.drawing.panel import Panel
from experiments.drawing.views import box_view
from experiments.engine.constant import Constant
from experiments.metrics.box_confusion import SHOWN_SCORE
from experiments.metrics.detection import DetectionMetrics
from experiments.models.detector import DetectionLosses, Detector, detector_of
from experiments.models.dropout import LayerDropout
from experiments.models.trial import backbone_name, built, try_network
from experiments.settings.checks import check_flag, check_number
from experiments.settings.input_format import format_of


@dataclass(frozen=True)
class BoxPrediction(Prediction):
    """A prediction with boxes: `log_probs` (b, k, positions), background first.

    Attributes:
        outputs: The network's, from which detections are computed where they are asked for.
    """

    outputs: Any = None


class Detection:
    """Boxes and classes of the objects in an image.

    Args:
        data: Images and objects.
        backbone: Called with `num_classes` (with background), returns a detection network. Its
            inputs are normalized as its weights expect. For SSD's that is RGB in 0..255 minus
            (123, 117, 104) for any data, as published; in a network that begins with a convolution
            and batch norm the scale has no effect.
        reduction: The loss of an image, which the loss-prediction module learns and strategies rank
            by: "mean" per box matched to an object, or "sum" as in the reference, where an image
            with many objects has a large loss however well the model detects them.
        augmentation: Augment training images as SSD does; otherwise they are only stretched.
        max_expansion: The augmentation places images on canvases of up to so many times their
            sides; 1 for no such zooming out.
        min_crop: The augmentation crops patches of at least this fraction of the sides; 1 for no
            crops.
        eval_batch_size: Images in a batch of inference.
        dropout: Drop inputs of the class heads in training for every strategy, so that strategies
            with and without posterior samples are compared on one network.
        dropout_rate: The share of those inputs that is dropped.
        mc_dropout_passes: Posterior samples of a prediction, by dropout of those inputs; 0 for
            none. Otherwise the network is trained with dropout.

    Raises:
        InvalidSetting: The reduction is unknown, or the weights of the backbone are missing.
    """

    has_embedding = True
    metric = "map50"

    def __init__(
        self,
        data: ObjectDetection,
        backbone: Callable[..., nn.Module],
        *,
        reduction: str = "mean",
        augmentation: bool = True,
        max_expansion: float = 4.0,
        min_crop: float = 0.3,
        eval_batch_size: int = 32,
        dropout: bool = False,
        dropout_rate: float = 0.2,
        mc_dropout_passes: int = 0,
    ) -> None:
        self._dropout = LayerDropout(dropout=dropout, rate=dropout_rate, passes=mc_dropout_passes)
        require_positive("task.build.eval_batch_size", eval_batch_size)
        if reduction not in ("mean", "sum"):
            raise InvalidSetting(f"loss.reduction must be mean or sum, got {reduction!r}")
        check_flag("task.build.augmentation", augmentation)
        check_number("task.build.max_expansion", max_expansion, low=1, high=16)
        check_number("task.build.min_crop", min_crop, low=0.1, high=1)
        self.class_names = data.class_names
        self.eval_batch_size = eval_batch_size
        self._backbone = backbone
        self._reduction = reduction
        self._augmentation = augmentation
        self._zoom = {"max_expansion": max_expansion, "min_crop": min_crop}
        self._flip = data.flip
        with torch.random.fork_rng(devices=[]):  # built once to know its form, then dropped
            self.detector = self._tried_network()
        size = self.detector.image_size
        self.train = StretchedSamples(data.train, size)
        self.test = StretchedSamples(data.test, size)
        self._test_objects = data.test_objects
        mean, std = self.detector.mean, self.detector.std
        self._mean, self._std = (
            Constant(torch.tensor(each).view(1, 3, 1, 1)) for each in (mean, std)
        )
        self.targets: Targets = HiddenTargets(
            len(data.train),
            lambda indices: [data.train_objects[index] for index in indices],
            data.train.names,
        )

    def build_model(self) -> nn.Module:
        """Return a fresh network for the classes and background.

        Raises:
            InvalidSetting: Its weights are missing.
        """
        network = self._built()
        self._dropout.install(self.detector.class_layers(network), within=network)
        return network

    def head(self, model: nn.Module) -> list[nn.Module]:
        """Return the layers for detection, as the detector knows them."""
        return self.detector.head(model)

    def example(self) -> Tensor:
        """Return two black images, normalized."""
        size = self.detector.image_size
        return self.normalize(torch.zeros(2, 3, size, size, dtype=torch.uint8))

    def training_batch(self, indices: IndexArray, targets: Targets, *, seed: int) -> Batch:
        """Load labeled images, augmented one by one: float32 images, (n, 5) targets.

        The augmentation of a sample depends only on `seed` and its index.
        """
        objects: list[Objects] = targets.read(indices)
        size = self.detector.image_size
        pixels = np.empty((indices.size, size, size, 3), np.float32)
        rows: list[Tensor] = [torch.empty(0, 5)] * indices.size

        def load(row: int) -> None:
            index = int(indices[row])
            image = self.train.pictures.picture(index)
            easy = ~objects[row].difficult
            boxes, labels = objects[row].boxes[easy], objects[row].labels[easy]
            if self._augmentation:
                pixels[row], boxes, labels = augment(
                    image,
                    boxes,
                    labels,
                    size=size,
                    flip=self._flip,
                    **self._zoom,
                    rng=np.random.default_rng((seed, index)),
                )
            else:
                pixels[row] = stretch(image, size)
                boxes = _fractions(boxes, image.shape[:2])
            rows[row] = _rows(boxes, labels)

        load_all(indices.size, load, in_memory=self.train.in_memory)
        return Batch(torch.from_numpy(pixels).permute(0, 3, 1, 2), rows)

    def pool_images(self, indices: IndexArray) -> Tensor:
        """Load images only."""
        return self.train.images(indices)

    def label_counts(self, indices: IndexArray, targets: Targets) -> Mapping[str, int]:
        """Count the boxes for training: those of objects that are not difficult."""
        objects: list[Objects] = targets.read(indices)
        return {"boxes": sum(int((~each.difficult).sum()) for each in objects)}

    def test_batch(self, indices: IndexArray) -> Batch:
        """Load test images and (n, 6) targets."""
        targets = []
        for index in indices.tolist():
            one = self._test_objects[index]
            boxes = _fractions(one.boxes, self.test.pictures.size(index))
            targets.append(_rows(boxes, one.labels, one.difficult))
        return Batch(self.test.images(indices), targets)

    def augment(
        self, images: Tensor, targets: Any, generator: torch.Generator
    ) -> tuple[Tensor, Any]:
        """Return the batch unchanged: `training_batch` augments each sample."""
        return images, targets

    def normalize(self, images: Tensor) -> Tensor:
        """Subtract the mean color and divide by the deviation, of the network's weights."""
        return (images.float() - self._mean.beside(images)) / self._std.beside(images)

    def losses(self, outputs: Any, targets: Sequence[Tensor]) -> Tensor:
        """Return the network's loss for each image, reduced as `reduction` says."""
        return self.objective(outputs, targets)[1]

    def objective(self, outputs: Any, targets: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """Return the scalar that the network's training minimizes, and the loss of each image.

        Of SSD the scalar is the sum over the batch, or this process's part of it, divided by its
        number of matched boxes. It does not depend on `reduction`.
        """
        # Targets for evaluation have a column for difficult objects, which do not count.
        rows = [one if one.shape[1] == 5 else one[one[:, 5] == 0, :5] for one in targets]
        found: DetectionLosses = self.detector.losses(outputs, rows)
        return found.objective, found.sums if self._reduction == "sum" else found.means

    def predict(self, outputs: Any, model: nn.Module) -> BoxPrediction:
        """Return log-probabilities (b, k, positions) and the embedding (b, d)."""
        return BoxPrediction(
            self.log_probs(outputs), embedding=self.detector.embedding(model), outputs=outputs
        )

    def log_probs(self, outputs: Any) -> Tensor:
        """Return log-probabilities (b, k, positions), background first."""
        return self.detector.log_probs(outputs)

    def posterior_samples(self, model: nn.Module, inputs: Tensor) -> Tensor | None:
        """Return `mc_dropout_passes` samples (b, m, k, positions), or None for none.

        Each sample applies the layers that put out class scores, with dropout, to their inputs in
        the latest forward; the layers before them have no dropout.
        """
        if not self._dropout.passes:
            return None
        layers = self.detector.class_layers(model)
        return self._dropout.samples(
            lambda: self.detector.scored(model, self._dropout.resampled(layers))
        )

    def metrics(self) -> DetectionMetrics:
        """Return fresh counts."""
        return DetectionMetrics(len(self.class_names), self.detector.detections)

    def data_facts(self) -> dict[str, Any]:
        """Return no facts: size and mean color belong to the network."""
        return {}

    def prepare(self, image: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Stretch an image to the network's square."""
        return stretch(image, self.detector.image_size)

    def inference_batch_size(self, height: int, width: int) -> int:
        """Return `eval_batch_size`."""
        return self.eval_batch_size

    def draw(self, indices: IndexArray, prediction: Prediction, targets: Targets) -> list[Panel]:
        """Return the images with the boxes of `drafts`, and the annotated ones where there are."""
        return self._panels(self.train, indices, prediction, targets)

    def draw_test(self, indices: IndexArray, prediction: Prediction) -> list[Panel]:
        """Return the images of the test set, likewise."""
        objects = OpenTargets(lambda chosen: [self._test_objects[k] for k in chosen.tolist()])
        return self._panels(self.test, indices, prediction, objects)

    def _panels(
        self,
        samples: StretchedSamples,
        indices: IndexArray,
        prediction: Prediction,
        targets: Targets,
    ) -> list[Panel]:
        sizes = [samples.pictures.size(index) for index in indices.tolist()]
        return [
            box_view(
                samples.pictures.picture(index),
                draft.boxes or (),
                self.class_names,
                truth=self._truth(index, targets),
            )
            for index, draft in zip(indices.tolist(), self.drafts(prediction, sizes), strict=True)
        ]

    def sizes(self, indices: IndexArray) -> list[tuple[int, int]]:
        """Return the sizes of the files."""
        return [self.train.pictures.size(index) for index in indices.tolist()]

    def drafts(self, prediction: Prediction, sizes: Sequence[tuple[int, int]]) -> list[Label]:
        """Return the detections that would be drawn, in pixels of the original images."""
        return [
            self._draft(rows, size)
            for rows, size in zip(self._detections(prediction), sizes, strict=True)
        ]

    def _built(self) -> nn.Module:
        network = self._backbone(num_classes=len(self.class_names) + 1)
        if type(network).__module__.startswith("torchvision."):
            from experiments.models.torchvision_detector import adapted  # 1.3 s to import

            return adapted(network)
        return network

    def _tried_network(self) -> Detector:
        """Build a network, check that it takes images of its size, and drop its weights."""
        num_classes = len(self.class_names) + 1
        name = backbone_name(self._backbone)
        network = built(self._built, name=name, num_classes=num_classes)
        detector = detector_of(network, format_of(self._backbone))
        try_network(
            network,
            self._built,
            (detector.image_size,) * 2,
            name=name,
            fits=detector.fits,
            wanted=detector.outputs_form,
        )
        return detector

    def _draft(self, detected: Tensor, size: tuple[int, int]) -> Label:
        height, width = size
        boxes = []
        for *corners, score, label in detected[detected[:, 4] >= SHOWN_SCORE].tolist():
            x_min, y_min, x_max, y_max = (min(max(corner, 0.0), 1.0) for corner in corners)
            box = (x_min * width, y_min * height, x_max * width, y_max * height)
            if box[2] - box[0] >= 1 and box[3] - box[1] >= 1:
                boxes.append(Box(self.class_names[int(label)], box, score=score))
        return Label(boxes=tuple(sorted(boxes, key=lambda box: -(box.score or 0.0))))

    def _detections(self, prediction: Prediction) -> list[Tensor]:
        assert isinstance(prediction, BoxPrediction)
        return [each.cpu() for each in self.detector.detections(prediction.outputs)]

    def _truth(self, index: int, targets: Targets) -> list[Box] | None:
        """Return the annotated objects of an image, in its pixels; None for no annotation."""
        if not targets.is_revealed(index):
            return None
        objects: Objects = targets.read(np.array([index]))[0]
        boxes = []
        for corners, label, difficult in zip(
            objects.boxes.tolist(), objects.labels.tolist(), objects.difficult.tolist(), strict=True
        ):
            x_min, y_min, x_max, y_max = corners
            boxes.append(Box(self.class_names[label], (x_min, y_min, x_max, y_max), difficult))
        return boxes


def _fractions(boxes: NDArray[np.float32], size: tuple[int, ...]) -> NDArray[np.float32]:
    height, width = size
    extent: NDArray[np.float32] = np.array([width, height, width, height], np.float32)
    return boxes / extent


def _rows(boxes: NDArray[np.float32], *columns: NDArray[Any]) -> Tensor:
    """Return boxes and further columns side by side, float32."""
    return torch.from_numpy(np.column_stack([boxes, *columns]).astype(np.float32))
