"""Masks as PNG files, in class numbers or in the colors of CVAT and Pascal VOC."""

from __future__ import annotations

import io

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from experiments.data.labels import NO_CLASS, Mask, Rules, Size, UnusableFile, shown
from experiments.data.untrusted import opened_image, parse_text

LABELMAP = "labelmap.txt"
COLORED = ("RGB", "RGBA", "P")


def png_size(data: bytes) -> Size:
    """Return (height, width) of a mask from the head of its file.

    Raises:
        UnusableFile: It is no PNG.
    """
    with opened_image(io.BytesIO(data), formats=("PNG",)) as image:
        return image.height, image.width


def read_png(data: bytes, rules: Rules) -> Mask:
    """Decode a mask: class numbers as gray values or positions in a palette, 255 for none.

    With `rules.colors` it may be in color instead.

    Raises:
        UnusableFile: It is no PNG, or has an unknown class or color.
    """
    with opened_image(io.BytesIO(data), formats=("PNG",)) as opened:
        if opened.mode in COLORED and rules.colors:
            return _from_colors(np.asarray(opened.convert("RGB")), rules)
        if opened.mode not in ("L", "P", "1"):
            raise UnusableFile(
                f"a mask needs one channel of class numbers, or {LABELMAP} beside it; this one is "
                f"{opened.mode}"
            )
        mask = np.array(opened).astype(np.uint8)
    beyond = (mask >= len(rules.class_names)) & (mask != NO_CLASS)
    if beyond.any():
        raise UnusableFile(
            f"it has class {mask[beyond].max()}; there are 0 .. {len(rules.class_names) - 1}, and "
            "255 for none"
        )
    return mask


def _from_colors(image: NDArray[np.uint8], rules: Rules) -> Mask:
    packed = image.astype(np.uint32) @ np.array([65536, 256, 1], np.uint32)
    mask = np.full(packed.shape, NO_CLASS, np.uint8)
    for color in np.unique(packed).tolist():
        rgb = (color >> 16, color >> 8 & 255, color & 255)
        name = rules.colors.get(rgb)
        if name is None:
            raise UnusableFile(f"the color {rgb} is not in {LABELMAP}")
        if name == "background":
            mask[packed == color] = rules.uncovered
        else:
            mask[packed == color] = rules.class_names.index(rules.check_class(name))
    return mask


def write_png(mask: Mask) -> bytes:
    """Encode a mask as gray values."""
    buffer = io.BytesIO()
    Image.fromarray(mask).save(buffer, "PNG", optimize=False)
    return buffer.getvalue()


def read_labelmap(data: bytes) -> dict[tuple[int, int, int], str]:
    """Read CVAT's `label:r,g,b:parts:actions` lines; a line without a color has Pascal VOC's.

    Raises:
        UnusableFile: It is no UTF-8 text, or a line is of another form.
    """
    colors: dict[tuple[int, int, int], str] = {}
    for line in parse_text(data).splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        try:
            name, color = line.split(":")[:2]
            red, green, blue = map(int, color.split(",")) if color else _voc_color(len(colors))
        except ValueError:
            raise UnusableFile(
                f"a line must be label:r,g,b:parts:actions, it is {shown(line)}"
            ) from None
        colors[red, green, blue] = name
    return colors


def _voc_color(label: int) -> tuple[int, int, int]:
    """Return Pascal VOC's color of a class: its bits, dealt to red, green, blue from the top."""
    channels = [0, 0, 0]
    for bit in range(8):
        for channel in range(3):
            channels[channel] |= (label >> (3 * bit + channel) & 1) << (7 - bit)
    return channels[0], channels[1], channels[2]
