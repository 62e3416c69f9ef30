"""VGG16 without its classifier, as SSD300 begins, and its ImageNet weights.

Source: SSD, Liu et al., arXiv 1512.02325, section 3 ("Base network"): fc6 and fc7 become
convolutions that keep one in four of the original channels (and of fc6's 7x7 positions one in
three each way, hence the dilation), pool5 no longer halves. Module numbers are those of
amdegroot/ssd.pytorch @ 5b0b77f, so `vgg16_reducedfc.pth` loads.
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

# What torchvision's weights expect of RGB in 0..1, and SSD subtracts from RGB in 0..255.
TORCHVISION_MEAN = (0.485, 0.456, 0.406)
TORCHVISION_STD = (0.229, 0.224, 0.225)
SSD_MEAN = (123.0, 117.0, 104.0)


def vgg_trunk() -> nn.ModuleList:
    """The 35 modules from the image to the ReLU after fc7 (1024 channels, stride 16)."""
    layers: list[nn.Module] = []
    channels = 3
    for block, widths in enumerate(BLOCKS):
        if block > 0:
            # The third pool rounds up: 75 -> 38 cells, which the priors are laid out for.
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
    """Scales the channel vector of each position to a learned length per channel.

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
        """(b, n_channels, h, w) to the same shape and dtype.

        Differs: the gradient at a position where all channels are 0 is finite; upstream's is NaN.
        """
        # In float32: the squares of 512 half-precision activations overflow or lose digits.
        wide = x if x.dtype == torch.float64 else x.float()
        norm: Tensor = torch.linalg.vector_norm(wide, dim=1, keepdim=True) + self.eps
        return (self.weight[:, None, None] * (wide / norm)).to(x.dtype)


def trunk_from_torchvision(
    state_dict: Mapping[str, Tensor], *, pixel_input: bool = True
) -> dict[str, Tensor]:
    """Weights for `vgg_trunk` from torchvision's `vgg16`, where `vgg16_reducedfc.pth` is missing.

    Args:
        state_dict: torchvision's, with its classifier.
        pixel_input: whether the network will see RGB in 0..255 less (123, 117, 104), as SSD does;
            the first convolution is rescaled so that its output is what torchvision's network has
            for its own normalization of the same image (up to rounding, but for the zero padding
            at the border). If False the first convolution is copied and the images must be
            normalized torchvision's way.

    Returns:
        State_dict for `SSD.vgg`: new tensors, nothing shared with the argument.

    Raises:
        ValueError: an entry is missing or of a shape that is not VGG16's.
    """
    with torch.device("meta"):  # for its shapes only
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
    """The first convolution for pixels less SSD's mean instead of normalized fractions."""
    mean = 255 * torch.tensor(TORCHVISION_MEAN, dtype=torch.float64)
    std = 255 * torch.tensor(TORCHVISION_STD, dtype=torch.float64)
    scaled = weight.double() / std[:, None, None]
    shift = torch.tensor(SSD_MEAN, dtype=torch.float64) - mean
    moved = bias.double() + (scaled * shift[:, None, None]).sum(dim=(1, 2, 3))
    return scaled.to(weight.dtype), moved.to(bias.dtype)
