"""Reading files that people and other programs wrote: a file is used or refused, never trusted.

`read_untrusted` opens nothing but regular files of a limited size. `parse_json`, `parse_xml`,
`parse_text` and `opened_image` decode them, and `checked` compares the result with a type. Whatever
is wrong ends in one `UnusableFile` with the place. The types are pydantic's, which names the place
of an error, takes no text for a number, and comes with wandb anyway.
"""

from __future__ import annotations

import os
import stat
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, Annotated, BinaryIO, TypeVar
from xml.etree import ElementTree

import defusedxml
from defusedxml.ElementTree import fromstring
from PIL import Image, UnidentifiedImageError
from pydantic import AllowInfNan, Field, Strict, TypeAdapter, ValidationError

from experiments.data.header import PILLOW_FORMATS
from experiments.data.labels import UnusableFile

MAX_BYTES = 512 * 2**20
"""Largest file that is read. COCO's own annotations of 118,287 images take 448 MiB."""
MAX_PARTS = 16_000_000
"""Limit for a JSON or XML file: a part of three bytes in the file takes a hundred in memory. COCO's
own annotations have about 4 million, four or more for each of 860,001 objects."""
MAX_PIXELS = 178_956_970
"""Largest image that is opened, as in `experiments.data.decoding`."""

Number = Annotated[float, Strict(), AllowInfNan(False)]
"""A finite number; neither text nor true."""
Whole = Annotated[int, Strict()]
"""A whole number."""
Byte = Annotated[int, Strict(), Field(ge=0, le=255)]

T = TypeVar("T")
_WORDS = {"missing": "is missing", "dataclass_type": "must be an object"}
_ANYTHING: TypeAdapter[object] = TypeAdapter(object)


def open_untrusted(path: Path, *, inside: Path | None = None) -> BinaryIO:
    """Open a regular file to be read.

    Args:
        path: The file.
        inside: A folder that the file must lie in once links are followed; None for anywhere.

    Raises:
        UnusableFile: It is a pipe, a device, a folder, or outside of the folder.
        OSError: It is missing or cannot be read.
    """
    real = os.path.realpath(path)
    if inside is not None and not Path(real).is_relative_to(os.path.realpath(inside)):
        raise UnusableFile("it is a link that leads out of the folder: put the file here instead")
    if not stat.S_ISREG(os.stat(real).st_mode):
        raise UnusableFile("it is no regular file")
    # A pipe that takes the place of the file now would keep a plain open() waiting.
    descriptor = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    file = open(descriptor, "rb")  # noqa: SIM115  # the caller closes it
    if not stat.S_ISREG(os.fstat(descriptor).st_mode):
        file.close()
        raise UnusableFile("it is no regular file")
    return file


def read_untrusted(path: Path, *, inside: Path | None = None, max_bytes: int = MAX_BYTES) -> bytes:
    """Read a regular file of at most `max_bytes`; arguments and errors as `open_untrusted`.

    Raises:
        UnusableFile: It is larger, too.
    """
    with open_untrusted(path, inside=inside) as file:
        size = os.fstat(file.fileno()).st_size
        if size <= max_bytes:
            return file.read(size)  # if it is growing, it is read again when it has changed
    raise UnusableFile(f"it is larger than {max_bytes // 2**20} MiB: split it")


@contextmanager
def opened_image(
    file: IO[bytes], *, formats: tuple[str, ...] | None = None
) -> Iterator[Image.Image]:
    """Open an image of at most `MAX_PIXELS`; it is decoded in the block that follows.

    Args:
        file: Its content.
        formats: Names of the formats that it may have; None for all image formats, of which
            PostScript is none.

    Raises:
        UnusableFile: It is no image of these formats, too large, or damaged.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # see MAX_PIXELS
            with Image.open(file, formats=formats or PILLOW_FORMATS) as image:
                if image.width * image.height > MAX_PIXELS:
                    raise UnusableFile(f"it has more than {MAX_PIXELS} pixels")
                yield image
    except (UnusableFile, MemoryError):
        raise
    except UnidentifiedImageError:
        known = "of a known format" if formats is None else f"in {' or '.join(formats)}"
        raise UnusableFile(f"it is no image {known}") from None
    except Exception as error:  # a decoder may raise anything on damaged bytes
        raise UnusableFile(f"it cannot be decoded: {str(error) or type(error).__name__}") from error


def parse_text(data: bytes) -> str:
    """Decode UTF-8 text with or without a byte order mark.

    Raises:
        UnusableFile: It is none.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UnusableFile("it is not UTF-8 text") from None


def parse_json(data: bytes, *, max_parts: int | None = None) -> object:
    """Parse JSON in UTF-8, at most 200 levels deep.

    Args:
        data: The file.
        max_parts: Limit for the number of lists and objects; None for `MAX_PARTS`.

    Raises:
        UnusableFile: It is no complete JSON, or has more parts.
    """
    limit = MAX_PARTS if max_parts is None else max_parts
    if data.count(b"[") + data.count(b"{") > limit:
        raise UnusableFile(f"it has more than {limit} lists and objects: split it")
    try:
        content: object = _ANYTHING.validate_json(data.removeprefix(b"\xef\xbb\xbf"))
    except ValidationError as error:
        reason = error.errors(include_url=False, include_context=False, include_input=False)[0]
        raise UnusableFile(
            f"it is not complete JSON: {reason['msg'].removeprefix('Invalid JSON: ')}"
        ) from None
    return content


def parse_xml(data: bytes) -> ElementTree.Element:
    """Parse XML without a document type, which annotations never need and attacks do.

    Raises:
        UnusableFile: It is not well-formed, declares a document type, or has more than `MAX_PARTS`
            elements and attributes.
    """
    if data.count(b"<") + data.count(b"=") > MAX_PARTS:
        raise UnusableFile(f"it has more than {MAX_PARTS} elements and attributes: split it")
    try:
        root: ElementTree.Element = fromstring(data, forbid_dtd=True)
    except defusedxml.DefusedXmlException:
        raise UnusableFile("it declares a document type, which is refused") from None
    except (ElementTree.ParseError, ValueError, LookupError) as error:
        raise UnusableFile(f"it is not well-formed XML: {error}") from None
    return root


def checked(adapter: TypeAdapter[T], value: object) -> T:
    """Return parsed content as the type of `adapter`.

    Raises:
        UnusableFile: It is of another shape; the text has the first place that is wrong.
    """
    try:
        return adapter.validate_python(value)
    except ValidationError as error:
        fault = error.errors(include_url=False, include_context=False, include_input=False)[0]
    place = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in fault["loc"])
    text = _WORDS.get(fault["type"], fault["msg"].replace("Input should be", "must be"))
    raise UnusableFile(f"{place.removeprefix('.') or 'it'} {text}")
