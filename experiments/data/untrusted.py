"""Reading files that people and other programs wrote: a file is used or refused, never trusted."""

from __future__ import annotations

from xml.etree import ElementTree

import defusedxml
from defusedxml.ElementTree import fromstring

from experiments.data.labels import UnusableFile


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
