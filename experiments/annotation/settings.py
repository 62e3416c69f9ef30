"""Settings of people as the oracle, by folders or by Label Studio, with every check of them.

They are the keys of `conf/oracle/people.yaml` and `conf/oracle/label_studio.yaml`.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit

from al_core.errors import InvalidSetting
from experiments.handoff.export import FILES, IMAGES
from experiments.settings.checks import check_flag, check_number, check_whole_number
from experiments.settings.run_path import returned_folder

LOCAL_FILES = "/data/local-files/?d={name}"
"""Address of an image in a local storage of Label Studio."""
UPLOAD = "upload"
"""The value of `oracle.image_url` with which a live run uploads its images."""


def address_in_files(image_url: str) -> str:
    """Return the address of images in files for Label Studio, which cannot upload any."""
    return LOCAL_FILES if image_url == UPLOAD else image_url


@dataclass(frozen=True)
class GroundTruthSettings:
    """The labels of the data set answer at once.

    Attributes:
        check_labels: List labels that look wrong after each training.
    """

    check_labels: bool = False

    def __post_init__(self) -> None:
        check_flag("oracle.check_labels", self.check_labels)


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
        check_labels: List labels that look wrong after each training.
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
    image_url: str = LOCAL_FILES
    check_labels: bool = True

    def __post_init__(self) -> None:
        check_flag("oracle.check_labels", self.check_labels)
        check_flag("oracle.partial", self.partial)
        check_flag("oracle.empty_is_answer", self.empty_is_answer)
        check_whole_number("oracle.test_size", self.test_size, low=0)
        if not isinstance(self.refusal, str) or not self.refusal.strip():
            raise InvalidSetting(f"oracle.refusal must be a word, got {self.refusal!r}")
        self._check_initial()
        self._check_exchange()
        object.__setattr__(self, "formats", tuple(self.formats))

    def suffices(self, back: int, asked: int) -> bool:
        """Tell whether to go on with so many of the newest batch's images, if not all are back."""
        return self.partial

    def _check_initial(self) -> None:
        if self.initial not in ("random", "typiclust"):
            raise InvalidSetting(f"oracle.initial must be random or typiclust: {self.initial!r}")
        for name in ("embedding_network", "embedding_weights"):
            if not isinstance(getattr(self, name), str | None):
                raise InvalidSetting(f"oracle.{name} must be text, got {getattr(self, name)!r}")

    def returned_in(self, run_folder: Path) -> Path:
        """Return the folder in which annotations of a run come back."""
        return returned_folder(run_folder, self.returned)

    def _check_exchange(self) -> None:
        if self.images not in IMAGES:
            raise InvalidSetting(
                f"oracle.images must be one of {', '.join(IMAGES)}, got {self.images!r}"
            )
        self._check_image_url()
        if self.voc_origin not in (0, 1) or isinstance(self.voc_origin, bool):
            raise InvalidSetting(f"oracle.voc_origin must be 0 or 1, got {self.voc_origin!r}")
        if self.returned is not None and not isinstance(self.returned, str):
            raise InvalidSetting(f"oracle.returned must be a folder, got {self.returned!r}")
        listed = isinstance(self.formats, (list, tuple))
        if not listed or not set(self.formats) <= set(FILES):
            raise InvalidSetting(
                f"oracle.formats must be a list of some of {', '.join(FILES)}, got {self.formats!r}"
            )

    def _check_image_url(self) -> None:
        if not isinstance(self.image_url, str) or "{name}" not in self.image_url:
            raise InvalidSetting(f"oracle.image_url must have {{name}} in it: {self.image_url!r}")


KEY_VARIABLE = "LABEL_STUDIO_API_KEY"
"""Environment variable with the access token."""


@dataclass(frozen=True)
class LabelStudioSettings(PeopleSettings):
    """How a run works with a server of Label Studio.

    The access token is no setting: it is in the environment, so that no configuration has it.

    Attributes:
        url: Address of the server.
        api_key: Always null; the command line moves a value into the environment.
        project: Number or title of a project; null for one of the run's own.
        poll_seconds: Seconds between two questions for new annotations.
        partial_share: With `partial`, the share of a batch that must be back.
        image_url: "upload", or the address of an image with {name} in it.
    """

    url: str | None = None
    api_key: None = None
    project: int | str | None = None
    poll_seconds: float = 10.0
    partial_share: float = 0.5
    images: str = "none"
    image_url: str = UPLOAD

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.api_key is not None:
            raise InvalidSetting(
                "oracle.api_key must not be in a configuration, which is copied into the run "
                f"folder: set the environment variable {KEY_VARIABLE}"
            )
        check_number("oracle.poll_seconds", self.poll_seconds, low=0.1, high=86_400)
        check_number("oracle.partial_share", self.partial_share, low=0, high=1)
        self._check_url()
        named = isinstance(self.project, str) and len(self.project) >= 3
        numbered = isinstance(self.project, int) and not isinstance(self.project, bool)
        if self.project is not None and not named and not numbered:
            raise InvalidSetting(
                "oracle.project must be the number of a project or a title of at least 3 "
                f"characters, got {self.project!r}"
            )

    def suffices(self, back: int, asked: int) -> bool:
        """Tell whether the share is back: a run that is started again waits on until it is."""
        return self.partial and back > 0 and back >= self.partial_share * asked

    def _check_url(self) -> None:
        try:
            parts = urlsplit(self.url if isinstance(self.url, str) else "")
            is_address = parts.scheme in ("http", "https") and bool(parts.hostname)
            is_plain = parts.username is None and not parts.query and not parts.fragment
            _ = parts.port
        except ValueError:
            is_address = is_plain = False
        if not is_address or not is_plain:
            raise InvalidSetting(  # a token that stands in it must not be shown
                "oracle.url must be the address of Label Studio, such as http://localhost:8080, "
                "without a user, a query or a token in it"
            )

    def _check_image_url(self) -> None:
        if self.image_url != UPLOAD:
            super()._check_image_url()

    @staticmethod
    def key() -> str:
        """Return the access token.

        Raises:
            InvalidSetting: There is none in the environment, or it has spaces in it.
        """
        key = os.environ.get(KEY_VARIABLE, "").strip()
        if not key or not key.isascii() or not key.isprintable() or " " in key:
            raise InvalidSetting(
                f"oracle=label_studio needs the access token of Label Studio (Account & Settings) "
                f"in the environment variable {KEY_VARIABLE}, or as oracle.api_key=..."
            )
        return key
