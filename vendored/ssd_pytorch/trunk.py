"""The trunk of SSD300, VGG16 without its classifier, and its ImageNet weights.

Source: SSD, Liu et al., arXiv 1512.02325, section 3 ("Base network"). fc6 and fc7 become
convolutions with one in four of the original channels. Of fc6's 7x7 positions one in three is kept
in each direction, hence the dilation. pool5 has stride 1. Module numbers are those of
amdegroot/ssd.pytorch @ 5b0b77f, so that `vgg16_reducedfc.pth` loads.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

SOURCE_CONV4_3 = 22
"""Index of the ReLU whose output is the first source map (stride 8)."""

FC6, FC7 = 31, 33
"""Indices of the two convolutions that were fully connected."""

BLOCKS = ((64, 64), (128, 128), (256, 256, 256), (512, 512, 512), (512, 512, 512))

# Normalization of torchvision's weights (RGB in 0..1), and SSD's mean (RGB in 0..255).
TORCHVISION_MEAN = (0.485, 0.456, 0.406)
TORCHVISION_STD = (0.229, 0.224, 0.225)
SSD_MEAN = (123.0, 117.0, 104.0)


def vgg_trunk() -> nn.ModuleList:
    """The 35 modules from the image to the ReLU after fc7 (1024 channels, stride 16)."""
    layers: list[nn.Module] = []
    channels = 3
    for block, widths in enumerate(BLOCKS):
        if block > 0:
            # The third pool rounds up from 75 to 38 cells, which the priors assume.
            layers.append(nn.MaxPool2d(2, 2, ceil_mode=block == 3))
        for width in widths:
            layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(inplace=True)]
            channels = width
    layers += [
        nn.MaxPool2d(3, 1, padding=1),
        nn.Conv2d(512, 1024, 3, padding=6, dilation=6),
        nn.ReLU(inplace=True),
        nn.Conv2d(1024, 1024, 1),
        nn.ReLU(inplace=True),
    ]
    return nn.ModuleList(layers)


class L2Norm(nn.Module):
    """Normalize the channel vector of each position and scale it with a weight per channel.

    Source: ParseNet, Liu et al., arXiv 1506.04579, section 3.3; `weight` (n_channels,) starts at
    `scale`.
    """

    eps = 1e-10

    def __init__(self, n_channels: int, scale: float) -> None:
        super().__init__()
        self.n_channels = n_channels
        self.scale = scale
        self.weight = nn.Parameter(torch.full((n_channels,), float(scale)))

    def forward(self, x: Tensor) -> Tensor:
        """Normalize and scale (b, n_channels, h, w), keeping shape and dtype.

        Differs: the gradient at a position with only zeros is finite; upstream's is NaN.
        """
        # In float32, because the squares of 512 half-precision activations overflow or lose digits.
        wide = x if x.dtype == torch.float64 else x.float()
        norm: Tensor = torch.linalg.vector_norm(wide, dim=1, keepdim=True) + self.eps
        return (self.weight[:, None, None] * (wide / norm)).to(x.dtype)


def trunk_from_torchvision(
    state_dict: Mapping[str, Tensor], *, pixel_input: bool = True
) -> dict[str, Tensor]:
    """Weights for `vgg_trunk` from torchvision's `vgg16`, if `vgg16_reducedfc.pth` is not at hand.

    Args:
        state_dict: torchvision's state_dict, with its classifier.
        pixel_input: True if the images are RGB in 0..255 less (123, 117, 104), as SSD expects. The
            first convolution is rescaled so that its output equals that of torchvision's network
            for the same image in torchvision's normalization, up to rounding and up to the zero
            padding at the border. With False the first convolution is copied, and the images must
            have torchvision's normalization.

    Returns:
        State_dict for `SSD.vgg` with new tensors.

    Raises:
        ValueError: an entry is missing or has another shape than in VGG16.
    """
    with torch.device("meta"):  # only the shapes are needed
        trunk = vgg_trunk()
    state = {
        f"{index}.{part}": _entry(state_dict, f"features.{index}.{part}", value.shape).clone()
        for index, layer in enumerate(trunk)
        if index < FC6
        for part, value in layer.named_parameters()
    }
    fc6 = _entry(state_dict, "classifier.0.weight", (4096, 512 * 7 * 7)).view(4096, 512, 7, 7)
    fc7 = _entry(state_dict, "classifier.3.weight", (4096, 4096))
    state[f"{FC6}.weight"] = fc6[::4, :, ::3, ::3].clone()
    state[f"{FC6}.bias"] = _entry(state_dict, "classifier.0.bias", (4096,))[::4].clone()
    state[f"{FC7}.weight"] = fc7[::4, ::4, None, None].clone()
    state[f"{FC7}.bias"] = _entry(state_dict, "classifier.3.bias", (4096,))[::4].clone()
    if pixel_input:
        state["0.weight"], state["0.bias"] = _for_pixels(state["0.weight"], state["0.bias"])
    return state


def _entry(state_dict: Mapping[str, Tensor], key: str, shape: tuple[int, ...]) -> Tensor:
    if key not in state_dict:
        raise ValueError(f"{key} is missing: a state_dict of torchvision.models.vgg16 is needed")
    value = state_dict[key]
    if value.shape != torch.Size(shape):
        raise ValueError(f"{key} must be {tuple(shape)} as in VGG16, got {tuple(value.shape)}")
    return value.detach()


def _for_pixels(weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor]:
    """Rescale the first convolution from normalized fractions to pixels less SSD's mean."""
    mean = 255 * torch.tensor(TORCHVISION_MEAN, dtype=torch.float64)
    std = 255 * torch.tensor(TORCHVISION_STD, dtype=torch.float64)
    scaled = weight.double() / std[:, None, None]
    shift = torch.tensor(SSD_MEAN, dtype=torch.float64) - mean
    moved = bias.double() + (scaled * shift[:, None, None]).sum(dim=(1, 2, 3))
    return scaled.to(weight.dtype), moved.to(bias.dtype)
