"""Networks on images by name: ``build("wave_resnet18")``, and its twin without wavelets, ``build("resnet18")``."""

from __future__ import annotations

import difflib
import importlib
from typing import Any

from medwave.core.errors import InputError
from medwave.models.images.network import ImageNetwork

_ROOM = "medwave.models.images."

_RESNEXT = {
    "resnext50_32x4d": {"depth": 50, "groups": 32, "group_width": 4},
    "resnext101_32x8d": {"depth": 101, "groups": 32, "group_width": 8},
    "resnext101_64x4d": {"depth": 101, "groups": 64, "group_width": 4},
    "wide_resnet50_2": {"depth": 50, "group_width": 128},
}

NETWORKS: dict[str, tuple[str, str, dict[str, Any]]] = {
    **{f"vgg{d}": ("vgg", "WaveVGG", {"depth": d, "batch_norm": False}) for d in (11, 13, 16, 19)},
    **{f"vgg{d}_bn": ("vgg", "WaveVGG", {"depth": d}) for d in (11, 13, 16, 19)},
    **{f"resnet{d}": ("resnet", "WaveResNet", {"depth": d}) for d in (18, 34, 50, 101, 152)},
    **{name: ("resnet", "WaveResNet", options) for name, options in _RESNEXT.items()},
    **{f"densenet{d}": ("densenet", "WaveDenseNet", {"depth": d}) for d in (121, 161, 169, 201)},
    "mobilenet_v2": ("mobilenet", "WaveMobileNetV2", {}),
    "alexnet": ("alexnet", "WaveAlexNet", {}),
    "segnet": ("encoder_decoder", "WSegNet", {}),
    "unet": ("encoder_decoder", "WUNet", {}),
    "deeplabv3plus": ("deeplab", "WDeepLabV3Plus", {}),
}
"""Name of the vanilla network -> module, class and options of both twins."""

SEGMENTERS = ("segnet", "unet", "deeplabv3plus")
"""Those of them that segment; the others classify."""


def list_models(kind: str = "all") -> tuple[str, ...]:
    """Names that :func:`build` knows: each vanilla network and, with ``wave_`` before its name, its wavelet version.

    Args:
        kind: ``all``, ``classify`` or ``segment``.

    Raises:
        InputError: for another kind.
    """
    if kind not in ("all", "classify", "segment"):
        raise InputError(f"kind of networks is one of all, classify, segment, got {kind!r}")
    chosen = [n for n in NETWORKS if kind == "all" or (n in SEGMENTERS) == (kind == "segment")]
    return tuple(name for vanilla in chosen for name in (vanilla, f"wave_{vanilla}"))


def build(name: str, **options: Any) -> ImageNetwork:
    """A network by its name, with fresh weights.

    Args:
        name: one of :func:`list_models`.
        options: of its class and of :class:`~medwave.models.images.network.Common`: ``classes``, ``in_channels``,
            ``wavelet`` (haar unless told; a vanilla network has none), ``width``, ``ndim``, ...

    Raises:
        InputError: for an unknown name, or an option that the network does not have.

    >>> sum(p.numel() for p in build("wave_resnet18", wavelet="ch3.3").parameters())
    11689512
    """
    vanilla = name.removeprefix("wave_")
    if vanilla not in NETWORKS:
        near = difflib.get_close_matches(name, list_models(), n=3)
        hint = f"did you mean {', '.join(near)}?" if near else f"known are {', '.join(list_models())}"
        raise InputError(f"no network is called {name!r}: {hint}")
    module, kind, given = NETWORKS[vanilla]
    if vanilla != name:
        options = {"wavelet": "haar", **options}
        if options["wavelet"] is None:
            raise InputError(f"{name}: needs a wavelet; the network without one is {vanilla}")
    elif options.get("wavelet") is not None:
        raise InputError(f"{name}: has no wavelet; the network with one is wave_{name}")
    network = getattr(importlib.import_module(_ROOM + module), kind)
    try:
        return network(**{**given, **options})
    except TypeError as error:
        raise InputError(f"{name}: {str(error).partition('() ')[2] or error}") from None


def image_network_classes() -> tuple[type[ImageNetwork], ...]:
    """All classes of networks on images; importing them lets weight files find theirs."""
    places = dict.fromkeys((module, kind) for module, kind, _ in NETWORKS.values())
    return tuple(getattr(importlib.import_module(_ROOM + module), kind) for module, kind in places)
