"""Geometry of a single-shot detector: the default boxes ("priors") of each feature map.

Source: SSD, Liu et al., arXiv 1512.02325, section 2.2. `VOC` and `COCO` hold the numbers that
amdegroot/ssd.pytorch @ 5b0b77f uses for its 300-pixel networks. `LightSSD` is described by another
`SSDConfig`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Any


@dataclass(frozen=True)
class SSDConfig:
    """Default boxes of a detector for square images.

    Each tuple except `variance` has one entry for each source map, largest map first.

    Attributes:
        image_size: side of the input, pixels.
        feature_maps: side of each source map, cells.
        steps: distance between the centers of neighboring cells, pixels.
        min_sizes: side of the small square box of a cell, pixels. Boxes with an aspect ratio have
            the same area.
        max_sizes: the second square box has the side sqrt(min_size * max_size), pixels.
        aspect_ratios: ratios above 1; each gives a wide box and its transpose.
        variance: divisors (center, size) of the box coding, see `encode`.
        clip: clip the priors to 0..1.

    Raises:
        ValueError: the lengths differ, or a number is not positive.
    """

    image_size: int
    feature_maps: tuple[int, ...]
    steps: tuple[float, ...]
    min_sizes: tuple[float, ...]
    max_sizes: tuple[float, ...]
    aspect_ratios: tuple[tuple[float, ...], ...]
    variance: tuple[float, float] = (0.1, 0.2)
    clip: bool = True

    def __post_init__(self) -> None:
        per_map = {
            "feature_maps": self.feature_maps,
            "steps": self.steps,
            "min_sizes": self.min_sizes,
            "max_sizes": self.max_sizes,
            "aspect_ratios": self.aspect_ratios,
        }
        lengths = {name: len(values) for name, values in per_map.items()}
        if len(set(lengths.values())) != 1 or not self.feature_maps:
            raise ValueError(f"one entry for each source map is needed, got lengths {lengths}")
        if len(self.variance) != 2:
            raise ValueError(f"variance is (center, size), got {self.variance}")
        numbers: dict[str, tuple[float, ...]] = {
            "image_size": (self.image_size,),
            "feature_maps": self.feature_maps,
            "steps": self.steps,
            "min_sizes": self.min_sizes,
            "max_sizes": self.max_sizes,
            "aspect_ratios": tuple(ratio for ratios in self.aspect_ratios for ratio in ratios),
            "variance": self.variance,
        }
        for name, values in numbers.items():
            if not all(value > 0 for value in values):
                raise ValueError(f"{name} must be positive, got {getattr(self, name)}")

    @property
    def boxes_per_cell(self) -> tuple[int, ...]:
        """Priors on each cell of each source map: two squares, and two for each aspect ratio."""
        return tuple(2 + 2 * len(ratios) for ratios in self.aspect_ratios)

    @property
    def num_priors(self) -> int:
        """Priors of the whole network (8732 for the published 300-pixel networks)."""
        pairs = zip(self.feature_maps, self.boxes_per_cell, strict=True)
        return sum(side * side * boxes for side, boxes in pairs)

    @classmethod
    def from_scales(
        cls,
        image_size: int,
        feature_maps: Sequence[int],
        scales: Sequence[float],
        aspect_ratios: tuple[tuple[float, ...], ...],
    ) -> SSDConfig:
        """Create a configuration in which each map has two neighboring scales.

        Args:
            image_size: side of the input, pixels.
            feature_maps: side of each source map, cells.
            scales: sides of the square priors as fractions of the image, one more than maps.
            aspect_ratios: see the class.

        Raises:
            ValueError: the scales are not so many increasing fractions; or see the class.
        """
        num_scales = len(feature_maps) + 1
        increasing = all(low < high for low, high in pairwise((0.0, *scales)))
        if len(scales) != num_scales or not increasing or scales[-1] > 1:
            raise ValueError(
                f"scales must be {num_scales} increasing fractions, got {list(scales)}"
            )
        pixels = [scale * image_size for scale in scales]
        return cls(
            image_size=image_size,
            feature_maps=tuple(feature_maps),
            steps=tuple(image_size / side for side in feature_maps),
            min_sizes=tuple(pixels[:-1]),
            max_sizes=tuple(pixels[1:]),
            aspect_ratios=aspect_ratios,
        )

    @classmethod
    def from_upstream(cls, config: Mapping[str, Any]) -> SSDConfig:
        """Create a configuration from a dictionary with upstream's keys.

        There `min_dim` is the image size. Keys that describe training (`lr_steps`, `max_iter`) or
        the data (`num_classes`, `name`) are ignored.

        Raises:
            KeyError: a key of the geometry is missing.
            ValueError: see the class.
        """
        center, size = config["variance"]
        return cls(
            image_size=config["min_dim"],
            feature_maps=tuple(config["feature_maps"]),
            steps=tuple(config["steps"]),
            min_sizes=tuple(config["min_sizes"]),
            max_sizes=tuple(config["max_sizes"]),
            aspect_ratios=tuple(tuple(ratios) for ratios in config["aspect_ratios"]),
            variance=(center, size),
            clip=config["clip"],
        )


VOC = SSDConfig(
    image_size=300,
    feature_maps=(38, 19, 10, 5, 3, 1),
    steps=(8, 16, 32, 64, 100, 300),
    min_sizes=(30, 60, 111, 162, 213, 264),
    max_sizes=(60, 111, 162, 213, 264, 315),
    aspect_ratios=((2,), (2, 3), (2, 3), (2, 3), (2,), (2,)),
)
"""SSD300 for Pascal VOC: 20 classes and background."""

COCO = SSDConfig(
    image_size=300,
    feature_maps=(38, 19, 10, 5, 3, 1),
    steps=(8, 16, 32, 64, 100, 300),
    min_sizes=(21, 45, 99, 153, 207, 261),
    max_sizes=(45, 99, 153, 207, 261, 315),
    aspect_ratios=((2,), (2, 3), (2, 3), (2, 3), (2,), (2,)),
)
"""SSD300 for COCO: smaller boxes, for any number of classes (upstream's has 201)."""
