"""Weights of other programs for the networks on images: names of tensors as torchvision or WaveCNet writes them.

Names here are torchvision's, so that its state dicts fit as they are, but for: a wrapper ``module.`` of parallel
training; the points in the names of its older DenseNets (``norm.1``); the two-module containers of WaveCNet's strided
blocks (``conv2.1.weight``, ``downsample.0`` holding the low band); and buffers ``num_batches_tracked`` of old files.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor, nn

from medwave.core.errors import InputError

_HEADS = ("fc.", "classifier.")


def translate(state: Mapping[str, Tensor], ours: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """A state dict under the names of a network of medwave.

    Args:
        state: tensors of another program.
        ours: state dict of the network they are for; it decides between the forms of a name.
    """
    out = {}
    for name, tensor in state.items():
        key = name.removeprefix("module.")
        key = re.sub(r"(denselayer\d+)\.(norm|relu|conv)\.(\d)\.", r"\1.\2\3.", key)
        if key not in ours:
            key = re.sub(r"(conv\d)\.[01]\.(weight|bias)$", r"\1.\2", key)
        if key not in ours or tensor.shape != ours[key].shape:
            shifted = re.sub(r"downsample\.(\d)\.", lambda m: f"downsample.{int(m[1]) - 1}.", key)
            key = shifted if shifted in ours and _shifted(state, name) else key
        elif _shifted(state, name):
            key = re.sub(r"downsample\.(\d)\.", lambda m: f"downsample.{int(m[1]) - 1}.", key)
        out[key] = tensor
    for key, tensor in ours.items():
        if key.endswith("num_batches_tracked"):
            out.setdefault(key, torch.zeros_like(tensor))
    return out


def load_foreign(network: nn.Module, state: Mapping[str, Tensor], *, head: bool = True) -> tuple[str, ...]:
    """Load tensors of another program, such as :func:`medwave.models.read_foreign_checkpoint` reads.

    Args:
        network: a classifier of medwave with the same layers; it may have wavelets where the other had none.
        state: tensors by name.
        head: also load the last layers; without them the network keeps its own head, of any number of classes.

    Returns:
        Names that were not loaded.

    Raises:
        InputError: when tensors are missing, unknown or of another shape. The network is unchanged then.
    """
    ours = network.state_dict()
    given = translate(state, ours)
    skipped = () if head else tuple(sorted(name for name in given if name.startswith(_HEADS)))
    given = {name: tensor for name, tensor in given.items() if name not in skipped}
    wanted = {name for name in ours if head or not name.startswith(_HEADS)}
    if odd := sorted(given.keys() ^ wanted):
        raise InputError(f"the weights are of another network: tensors missing or unknown: {', '.join(odd[:5])}")
    for name, tensor in given.items():
        if tensor.shape != ours[name].shape:
            way = "; leave its head out (head=False)" if name.startswith(_HEADS) else ""
            raise InputError(
                f"the weights are of another network: {name} has shape {tuple(tensor.shape)}, "
                f"{tuple(ours[name].shape)} is needed{way}"
            )
    network.load_state_dict({**ours, **given})
    return skipped


def _shifted(state: Mapping[str, Tensor], name: str) -> bool:
    """Whether the shortcut of a block begins with a layer without weights, so that its numbers are one too high."""
    if "downsample." not in name:
        return False
    return f"{name.split('downsample.')[0]}downsample.0.weight" not in state
