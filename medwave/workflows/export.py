"""Networks as ONNX files, which run without medwave: in onnxruntime, OpenVINO, TensorRT, a browser.

Inputs are what the network itself takes: images that are scaled already (the weights' page says how), channels first.
The batch is free, the size of images is fixed, since programs that run ONNX are fastest so. A file is written only when
onnxruntime gives the network's own numbers with it.
"""

from __future__ import annotations

import logging
import re
import warnings
from pathlib import Path

import numpy as np
import torch
from torch import nn

from medwave.core.errors import InputError, OutputError
from medwave.core.files import StrPath, atomic_path
from medwave.core.optional import require
from medwave.models import FaceNet, FibreNet, ImageNetwork, WiNet, open_network, read_weights_info
from medwave.models.images.registry import image_network_classes

TOLERANCE = 1e-4
"""Largest difference of an output of onnxruntime, relative to the largest output."""


def export_onnx(weights: StrPath, output: StrPath, *, size: str = "") -> dict[str, list[int]]:
    """Write the network of a weight file as ONNX.

    Args:
        weights: any weight file of medwave (safetensors).
        output: the file, ``.onnx``.
        size: of the images, such as ``"224x224"`` or ``"64x128x128"``; a network for faces knows its own.

    Returns:
        Name and shape of each input; 0 stands for the batch.

    Raises:
        MedwaveError: one of its leaves, for unusable weights or size, a missing package, or a file that cannot be
            written.
    """
    target = Path(output)
    if target.suffix != ".onnx":
        raise OutputError(f"{target}: the name of an ONNX file ends in .onnx")
    runtime = require("onnxruntime", extra="onnx", purpose="export to ONNX")
    require("onnxscript", extra="onnx", purpose="export to ONNX")
    network, inputs = _network(Path(weights), size)
    try:
        with torch.inference_mode():
            expected = network(*inputs.values()).numpy()
    except (RuntimeError, InputError) as error:
        raise InputError(f"size {size}: the network of {weights} does not take it ({error})") from None
    logging.getLogger("torch.onnx._internal.exporter").setLevel(logging.ERROR)  # it misses torchvision, we do not
    free = {name: {0: torch.export.Dim.DYNAMIC} for name in inputs}
    with atomic_path(target) as partial, warnings.catch_warnings():
        warnings.simplefilter("ignore", FutureWarning)  # of torch about itself
        torch.onnx.export(
            network, tuple(inputs.values()), partial, input_names=list(inputs), output_names=["output"],
            dynamic_shapes=tuple(free.values()), dynamo=True, external_data=False, verbose=False,
        )  # fmt: skip
        session = runtime.InferenceSession(str(partial), providers=["CPUExecutionProvider"])
        (found,) = session.run(None, {name: value.numpy() for name, value in inputs.items()})
        error = float(np.abs(found - expected).max() / max(float(np.abs(expected).max()), 1e-12))
        if not error <= TOLERANCE:
            raise InputError(f"{weights}: its ONNX form differs by {error:.1e} in onnxruntime; please report it")
    return {name: [0, *value.shape[1:]] for name, value in inputs.items()}


def _network(weights: Path, size: str) -> tuple[nn.Module, dict[str, torch.Tensor]]:
    """The network, and images to try it with, two in a batch."""
    model = read_weights_info(weights).model
    image_network_classes()  # a weight file finds its class among those that are imported
    families = (FaceNet, FibreNet, WiNet, ImageNetwork)
    kind = next((f for f in families if any(c.__name__ == model for c in (f, *f.__subclasses__()))), ImageNetwork)
    network = open_network(weights, kind)
    axes = network.common.ndim if kind is ImageNetwork else 2 if kind is FaceNet else 3
    default = "x".join(["224" if axes < 3 else "64"] * axes)
    if kind is FaceNet:
        default = "x".join(map(str, network.image_size))
        if size and size != default:
            raise InputError(f"size {size}: the network of {weights} takes pictures of {default}; leave --size out")
    shape = _shape(size or default, axes)
    channels = 1 if kind is WiNet else network.common.in_channels if kind is ImageNetwork else network.in_channels
    draw = torch.Generator().manual_seed(0)
    names = ("moving", "fixed") if kind is WiNet else ("image",)
    return network, {name: torch.rand((2, channels, *shape), generator=draw) for name in names}


def _shape(text: str, axes: int) -> tuple[int, ...]:
    if not re.fullmatch(r"\d+(x\d+)*", text) or text.count("x") != axes - 1 or "0" in text.split("x"):
        raise InputError(f"size: {axes} numbers such as {'x'.join(['64'] * axes)} are needed, got {text!r}")
    return tuple(map(int, text.split("x")))
