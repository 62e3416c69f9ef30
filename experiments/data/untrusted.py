"""Reading files that people and other programs wrote: a file is used or refused, never trusted.

`read_untrusted` opens nothing but regular files of a limited size, `parse_json` and `parse_xml`
parse, and `checked` holds what was parsed against a type. Whatever is wrong ends in one
`UnusableFile` with the place. Types are checked by pydantic, which names the place of an error,
takes no number or text for another kind, and comes with wandb anyway.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path
from typing import Annotated, TypeVar
from xml.etree import ElementTree

import defusedxml
from defusedxml.ElementTree import fromstring
from pydantic import AllowInfNan, Field, Strict, TypeAdapter, ValidationError

from experiments.data.labels import UnusableFile

MAX_BYTES = 512 * 2**20
"""Of a file. COCO's own annotations of 118,287 images take 448 MiB."""

Number = Annotated[float, Strict(), AllowInfNan(False)]
"""A finite number; neither text nor true."""
Whole = Annotated[int, Strict()]
"""A whole number."""
Byte = Annotated[int, Strict(), Field(ge=0, le=255)]

T = TypeVar("T")
_WORDS = {"missing": "is missing", "dataclass_type": "must be an object"}
_ANYTHING: TypeAdapter[object] = TypeAdapter(object)


def read_untrusted(path: Path, *, inside: Path | None = None, max_bytes: int = MAX_BYTES) -> bytes:
    """Read a regular file.

    Args:
        path: The file.
        inside: A folder that the file must lie in once links are followed; None for anywhere.
        max_bytes: A larger file is refused before it is read.

    Raises:
        UnusableFile: It is a pipe, a device, a folder, outside of the folder, or too large.
        OSError: It is missing or cannot be read.
    """
    real = os.path.realpath(path)
    if inside is not None and not Path(real).is_relative_to(os.path.realpath(inside)):
        raise UnusableFile("it is a link that leads out of the folder: put the file here instead")
    # Opening a pipe would otherwise wait for its other end.
    descriptor = os.open(real, os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
    with open(descriptor, "rb") as file:
        status = os.fstat(descriptor)
        if not stat.S_ISREG(status.st_mode):
            raise UnusableFile("it is no regular file")
        if status.st_size <= max_bytes:
            data = file.read(max_bytes + 1)  # it may have grown meanwhile
            if len(data) <= max_bytes:
                return data
    raise UnusableFile(f"it is larger than {max_bytes // 2**20} MiB: split it")


def parse_text(data: bytes) -> str:
    """Decode UTF-8 text with or without a byte order mark.

    Raises:
        UnusableFile: It is none.
    """
    try:
        return data.decode("utf-8-sig")
    except UnicodeDecodeError:
        raise UnusableFile("it is not UTF-8 text") from None


def parse_json(data: bytes) -> object:
    """Parse JSON in UTF-8, at most 200 levels deep.

    Raises:
        UnusableFile: It is none.
    """
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
        UnusableFile: It is not well-formed, or it declares a document type.
    """
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
