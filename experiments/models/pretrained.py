"""Pretrained classification networks: of torchvision, of timm, and EfficientNet-Lite0.

EfficientNet-Lite0 is also the trunk of a light detector and of a light segmenter.
"""

from __future__ import annotations

import logging
import ssl
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from difflib import get_close_matches
from pathlib import Path
from typing import Any
from urllib.error import HTTPError, URLError
from urllib.request import Request, urlopen

import torch
from torch import Tensor, nn

from al_core.errors import InvalidSetting
from experiments.models.starting_weights import SCRATCH, weights_argument
from experiments.models.weights import load_weights, one_line, read_weights
from experiments.settings.input_format import InputFormat, expects
from vendored.efficientnet_lite import (
    IMAGE_SIZE,
    MEAN,
    STD,
    EfficientNetLite0,
    EfficientNetLite0Trunk,
    imagenet_weights,
)

logger = logging.getLogger(__name__)

DEFAULT = "DEFAULT"
"""The weights that a library recommends for a network."""
NONE = (None, "none", SCRATCH)
"""Values of `weights` that stand for fresh ones."""
KEY = "backbone.weights"
SECONDS_TO_ANSWER = 10.0
"""The Hub is taken to be out of reach after so long."""


# ---- EfficientNet-Lite0


def lite0_format(*, weights: str | None = DEFAULT) -> InputFormat:
    """Return the images that EfficientNet-Lite0 expects with these weights."""
    if weights in NONE:
        return InputFormat(IMAGE_SIZE, interpolation="bicubic")
    return InputFormat(IMAGE_SIZE, MEAN, STD, "bicubic")


@weights_argument("weights")
@expects(lite0_format)
def efficientnet_lite0(num_classes: int, *, weights: str | None = DEFAULT) -> EfficientNetLite0:
    """Return EfficientNet-Lite0, 4.7 million parameters.

    Args:
        num_classes: Classes of an image.
        weights: "DEFAULT" for ImageNet's, which the extra `pretrained` installs; "none"; or the
            path of a state_dict.

    Raises:
        InvalidSetting: The weights are not there, or are those of another network.
    """
    network = EfficientNetLite0(num_classes)
    if weights not in NONE:
        load_weights(
            network, _lite0_weights(weights), EfficientNetLite0,
            num_classes=num_classes, source=str(weights), key=KEY,
        )  # fmt: skip
    return network


def lite0_trunk(*, weights: str | None = DEFAULT) -> EfficientNetLite0Trunk:
    """Return the feature maps of EfficientNet-Lite0 at strides 2, 4, 8, 16 and 32.

    Args:
        weights: As for `efficientnet_lite0`; a file may be one of the trunk alone or of the
            classifier.

    Raises:
        InvalidSetting: As `efficientnet_lite0`.
    """
    trunk = EfficientNetLite0Trunk()
    if weights not in NONE:
        try:
            trunk.fill_from_classifier(_lite0_weights(weights))
        except ValueError as error:
            raise InvalidSetting(
                f"{KEY}={weights} has no weights of EfficientNet-Lite0: {one_line(error)}"
            ) from None
    return trunk


def _lite0_weights(weights: str | None) -> dict[str, Tensor]:
    if weights != DEFAULT:
        return read_weights(weights, key=KEY)
    try:
        return imagenet_weights()
    except ValueError as error:
        raise InvalidSetting(f"{KEY}={DEFAULT}: {error}") from None


# ---- torchvision


def _torchvision_format(*, model: str, weights: str | None = DEFAULT) -> InputFormat:
    _check_torchvision(model)
    transform = described_by(model, weights).transforms()
    known = weights not in NONE
    return InputFormat(
        transform.crop_size[0],
        tuple(transform.mean) if known else None,
        tuple(transform.std) if known else None,
        transform.interpolation.value,
    )


@weights_argument("weights")
@expects(_torchvision_format)
def torchvision_classifier(
    num_classes: int, *, model: str, weights: str | None = DEFAULT
) -> nn.Module:
    """Return a classification network of torchvision.

    Args:
        num_classes: Classes of an image; where the weights are of another number, the classifier is
            a new one.
        model: Its name in torchvision, "resnet50" for example.
        weights: "DEFAULT", or the name of others that torchvision has for it, fetched if they are
            not in torch's cache; "none"; or the path of a state_dict.

    Raises:
        InvalidSetting: Unknown network, or weights that cannot be had or do not fit.
    """
    _check_torchvision(model)
    network = _torchvision_network(model, num_classes=num_classes)
    if weights in NONE:
        return network
    load_weights(
        network, torchvision_state(model, weights), _torchvision_network, model,
        num_classes=num_classes, source=str(weights), key=KEY,
    )  # fmt: skip
    return network


def torchvision_state(model: str, weights: str | None) -> dict[str, Tensor]:
    """Return weights for a network of torchvision of any task.

    Args:
        model: Its name.
        weights: Those that torchvision has, by "DEFAULT" or their name, from torch's cache or from
            the network; or the path of a state_dict.

    Raises:
        InvalidSetting: There is no such file, or they cannot be fetched; the text says what to
            fetch and where to put it.
    """
    chosen = _torchvision_entry(model, weights)
    if chosen is None:
        return read_weights(weights, key=KEY)
    try:
        state: dict[str, Tensor] = chosen.get_state_dict(progress=False, check_hash=True)
    except (OSError, RuntimeError) as error:
        raise InvalidSetting(
            f"{KEY}={chosen.name}: the weights of {model} could not be fetched "
            f"({one_line(error)}): put {chosen.url} into "
            f"{Path(torch.hub.get_dir(), 'checkpoints')}, or set {KEY}=PATH of a copy"
        ) from None
    return state


def _torchvision_network(model: str, *, num_classes: int) -> nn.Module:
    from torchvision import models  # 1.3 s to import

    network: nn.Module = models.get_model(model, weights=None, num_classes=num_classes)
    return network


def described_by(model: str, weights: str | None) -> Any:
    """Return the entry of torchvision that says what images a network expects with weights.

    It is the default one unless `weights` names another.
    """
    return _torchvision_entry(model, weights) or _torchvision_entry(model, DEFAULT)


def _torchvision_entry(model: str, weights: str | None) -> Any:
    """Return an entry of torchvision's weights for a network; None if it is no name of one."""
    from torchvision import models

    entries = models.get_model_weights(model)
    return entries.DEFAULT if weights == DEFAULT else entries.__members__.get(str(weights))


def _check_torchvision(model: str) -> None:
    from torchvision import models

    known = models.list_models(module=models)
    if model not in known:
        raise InvalidSetting(
            f"backbone.model must be a classification network of torchvision, got {model!r}"
            f"{_meant(model, known)}"
        )


# ---- timm


def _timm_format(
    *, model: str, weights: str | None = DEFAULT, image_size: int | None = None
) -> InputFormat:
    timm = _timm()
    config = _timm_config(model)
    data = timm.data.resolve_data_config(pretrained_cfg=config.to_dict())
    known = weights not in NONE
    return InputFormat(
        image_size or data["input_size"][1],
        tuple(data["mean"]) if known else None,
        tuple(data["std"]) if known else None,
        "bilinear" if data["interpolation"] == "bilinear" else "bicubic",
    )


@weights_argument("weights")
@expects(_timm_format)
def timm_classifier(
    num_classes: int,
    *,
    model: str,
    weights: str | None = DEFAULT,
    image_size: int | None = None,
) -> nn.Module:
    """Return a network of timm, an optional package with more than a thousand of them.

    Args:
        num_classes: As for `torchvision_classifier`.
        model: Its name in timm, "vit_small_patch14_dinov2.lvd142m" for example.
        weights: "DEFAULT" for those of this name, fetched if they are not in the cache of the
            Hugging Face Hub; "none"; or the path of a state_dict, a `.safetensors` file too.
        image_size: Side of the images in pixels, for networks that are built for one size; None for
            that of the weights.

    Raises:
        InvalidSetting: timm is not installed, or as `torchvision_classifier`.
    """
    config = _timm_config(model)
    if weights == DEFAULT:
        return _fetched_by_timm(config, model, image_size, num_classes)
    network = _timm_network(model, image_size, num_classes=num_classes)
    if weights in NONE:
        return network
    state = read_weights(weights, key=KEY)
    adapt = getattr(sys.modules[type(network).__module__], "checkpoint_filter_fn", None)
    if adapt is not None:  # to other sizes of images, and from other names of weights
        state = _adapted(adapt, state, network, str(weights))
    load_weights(
        network, state, _timm_network, model, image_size,
        num_classes=num_classes, source=str(weights), key=KEY,
    )  # fmt: skip
    return network


def _timm_network(
    model: str, image_size: int | None, *, num_classes: int, pretrained: bool = False, **more: Any
) -> nn.Module:
    size = {}
    if image_size is not None and _timm_config(model).fixed_input_size:
        size["img_size"] = image_size
    network: nn.Module = _timm().create_model(
        model, pretrained=pretrained, num_classes=num_classes, **size, **more
    )
    return network


def _fetched_by_timm(
    config: Any, model: str, image_size: int | None, num_classes: int
) -> nn.Module:
    """Return a network with the weights of its name, from the cache of the Hub or from the Hub."""
    from huggingface_hub import hf_hub_url, try_to_load_from_cache

    hub, more = config.hf_hub_id, {}
    try:
        if hub:
            cached = try_to_load_from_cache(hub, "model.safetensors")
            if isinstance(cached, str):  # the Hub would be asked whether there are newer ones
                more["pretrained_cfg_overlay"] = {"file": cached}
            else:
                logger.info("fetching the weights of %s from huggingface.co/%s", model, hub)
                _check_reachable(hf_hub_url(hub, "model.safetensors"))
        with _quiet("huggingface_hub", "timm"):
            return _timm_network(
                model, image_size, num_classes=num_classes, pretrained=True, **more
            )
    except (OSError, RuntimeError) as error:
        source = f"https://huggingface.co/{hub}/resolve/main/model.safetensors"
        raise InvalidSetting(
            f"{KEY}={DEFAULT}: the weights of {model} could not be fetched ({one_line(error)}): "
            f"put {source if hub else config.url} anywhere and set {KEY}=PATH"
        ) from None


def _check_reachable(address: str) -> None:
    """Raise an OSError if no server answers: the client of the Hub tries again for minutes."""
    try:
        urlopen(Request(address, method="HEAD"), timeout=SECONDS_TO_ANSWER).close()
    except HTTPError:
        return  # an answer; what it means is the client's to say
    except URLError as error:
        if not isinstance(error.reason, ssl.SSLError):  # the client has certificates of its own
            raise


def _timm() -> Any:
    try:
        import timm  # 3 s to import
        import timm.data
    except ModuleNotFoundError:
        raise InvalidSetting("backbone=timm needs timm: pip install -e '.[timm]'") from None
    return timm


def _timm_config(model: str) -> Any:
    timm = _timm()
    if not isinstance(model, str) or not timm.models.is_model(model):
        raise InvalidSetting(
            f"backbone.model must be a network of timm, got {model!r}"
            f"{_meant(str(model), timm.list_models())}"
        )
    try:
        config = timm.models.get_pretrained_cfg(model)
    except RuntimeError:  # the part of the name after the point is unknown
        config = None
    if config is None:
        named = timm.list_pretrained(model.partition(".")[0] + ".*")
        raise InvalidSetting(
            f"backbone.model={model}: timm has no weights of this name; it has "
            + (", ".join(named[:8]) or "none")
        )
    return config


def _adapted(
    adapt: Callable[..., Any], state: Mapping[str, Tensor], network: nn.Module, path: str
) -> dict[str, Tensor]:
    try:
        return dict(adapt(dict(state), network))
    except (KeyError, RuntimeError, ValueError, IndexError, AttributeError) as error:
        raise InvalidSetting(
            f"{KEY}={path} has no weights of {type(network).__name__}: {one_line(error)}"
        ) from None


@contextmanager
def _quiet(*names: str) -> Iterator[None]:
    """Keep loggers of libraries from reporting each of several attempts."""
    loggers = [logging.getLogger(name) for name in names]
    levels = [each.level for each in loggers]
    for each in loggers:
        each.setLevel(logging.CRITICAL)
    try:
        yield
    finally:
        for each, level in zip(loggers, levels, strict=True):
            each.setLevel(level)


def _meant(name: str, known: Sequence[str]) -> str:
    near = get_close_matches(name, known, n=3)
    return f": did you mean {' or '.join(near)}?" if near else f" (there are {len(known)})"
