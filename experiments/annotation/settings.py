"""Settings of people as the oracle (`conf/oracle/people.yaml`), with every check of them."""

from __future__ import annotations

from dataclasses import dataclass

from al_core.errors import InvalidSetting
from experiments.handoff.export import FILES, IMAGES
from experiments.settings.checks import check_flag, check_whole_number


@dataclass(frozen=True)
class GroundTruthSettings:
    """The labels of the data set answer at once; nothing can be set."""


@dataclass(frozen=True)
class PeopleSettings:
    """How requests are made, and which annotations count as answers.

    Attributes:
        returned: Folder in which annotations come back; null for `returned` in the run folder.
        partial: Whether to go on with the annotations that are back, without the rest of the batch.
        test_size: Number of images of batch 0 that are held out for measuring; none are drawn if
            `data.test` gives a test set.
        initial: Choice of the initial set: "random", or "typiclust" for typical images of clusters
            of embeddings.
        embedding_network: Network for "typiclust": "efficientnet_lite0", or one of torchvision;
            null for the first, or for resnet18 where weights are given.
        embedding_weights: File of its weights; null for those that are installed.
        refusal: The word that stands for a class where an image cannot be labeled.
        empty_is_answer: Whether an image without objects in a file of VOC, COCO or CVAT counts as
            an answer.
        voc_origin: Coordinate of the first pixel in Pascal VOC's XML: 1, or 0 as CVAT has it.
        formats: Formats that a request is written in, some of `export.FILES`.
        images: "link", "copy" or "none": how the folder of a request holds its images.
        image_url: Address of an image for Label Studio; {name} stands for its name.
    """

    returned: str | None = None
    partial: bool = False
    test_size: int = 100
    initial: str = "random"
    embedding_network: str | None = None
    embedding_weights: str | None = None
    refusal: str = "cannot_label"
    empty_is_answer: bool = False
    voc_origin: int = 1
    formats: tuple[str, ...] = ()
    images: str = "link"
    image_url: str = "/data/local-files/?d={name}"

    def __post_init__(self) -> None:
        check_flag("oracle.partial", self.partial)
        check_flag("oracle.empty_is_answer", self.empty_is_answer)
        check_whole_number("oracle.test_size", self.test_size, low=0)
        if not isinstance(self.refusal, str) or not self.refusal.strip():
            raise InvalidSetting(f"oracle.refusal must be a word, got {self.refusal!r}")
        self._check_initial()
        self._check_exchange()
        object.__setattr__(self, "formats", tuple(self.formats))

    def _check_initial(self) -> None:
        if self.initial not in ("random", "typiclust"):
            raise InvalidSetting(f"oracle.initial must be random or typiclust: {self.initial!r}")
        for name in ("embedding_network", "embedding_weights"):
            if not isinstance(getattr(self, name), str | None):
                raise InvalidSetting(f"oracle.{name} must be text, got {getattr(self, name)!r}")

    def _check_exchange(self) -> None:
        if self.images not in IMAGES:
            raise InvalidSetting(
                f"oracle.images must be one of {', '.join(IMAGES)}, got {self.images!r}"
            )
        if not isinstance(self.image_url, str) or "{name}" not in self.image_url:
            raise InvalidSetting(f"oracle.image_url must have {{name}} in it: {self.image_url!r}")
        if self.voc_origin not in (0, 1) or isinstance(self.voc_origin, bool):
            raise InvalidSetting(f"oracle.voc_origin must be 0 or 1, got {self.voc_origin!r}")
        if self.returned is not None and not isinstance(self.returned, str):
            raise InvalidSetting(f"oracle.returned must be a folder, got {self.returned!r}")
        listed = isinstance(self.formats, (list, tuple))
        if not listed or not set(self.formats) <= set(FILES):
            raise InvalidSetting(
                f"oracle.formats must be a list of some of {', '.join(FILES)}, got {self.formats!r}"
            )
