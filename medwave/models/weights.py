"""Weight files: safetensors with a header that says what the weights are.

A weight file holds tensors only, never code: reading one cannot run anything. Its header (text pairs) carries
``format``, ``model`` (class name), ``options`` (JSON, the arguments that built the network), ``medwave_version``
and ``provenance`` (free text: training data, licence).

Wherever a weight file is taken, the name of weights that come with medwave is taken too (:func:`weight_file`).

Checkpoints of other programs (``.pt``, ``.pth``) are pickles, which can run code when opened carelessly.
:func:`load_weights` refuses them; :func:`read_foreign_checkpoint` reads their tensors with torch's restricted reader.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any, TypeVar

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save as serialise
from torch import Tensor, nn

import medwave
from medwave.core.errors import InputError, MissingFileError
from medwave.core.files import StrPath, atomic_path

FORMAT = "medwave-weights-1"

NEURON_WEIGHTS = ("neuron", "neuron_noise")
"""Those of the weights below that tell fibre from background."""

SHIPPED = {
    "neuron": "neuron_wavesnet.safetensors",
    "neuron_noise": "neuron_wavesnet_noise.safetensors",
    "brain": "brain_winet.safetensors",
}
"""Weights that come with medwave: what they are for, and their file. ``neuron_noise`` is for volumes whose noise can be
seen, ``neuron`` for those whose background was taken off, ``brain`` for pairs of brains of any contrast."""

Network = TypeVar("Network", bound=nn.Module)

_PICKLE_STARTS = (b"PK\x03\x04", b"\x80")


@dataclass(frozen=True)
class WeightsInfo:
    """What the header of a weight file says.

    Attributes:
        model: class name of the network, such as ``"WiNet"``.
        options: the keyword arguments that build it.
        medwave_version: version that wrote the file.
        provenance: free text about training data and licence.
    """

    model: str
    options: dict[str, Any]
    medwave_version: str
    provenance: str


def save_weights(model: nn.Module, path: str | Path, *, provenance: str = "") -> Path:
    """Write a network's weights (to a temporary name first, so a broken file is never left under ``path``).

    Args:
        model: a medwave network (it carries its ``options``).
        path: file to write, usually ``*.safetensors``.
        provenance: training data and licence, in words.

    Raises:
        OutputError: when the file cannot be written.
    """
    target = Path(path)
    header = {
        "format": FORMAT,
        "model": type(model).__name__,
        "options": json.dumps(_options(model), sort_keys=True),
        "medwave_version": medwave.__version__,
        "provenance": provenance,
    }
    tensors = {name: t.detach().cpu().contiguous() for name, t in model.state_dict().items()}
    content = serialise(tensors, metadata=header)  # safetensors' own writer makes files that others may not read
    with atomic_path(target) as partial:
        partial.write_bytes(content)
    return target


def read_weights_info(path: StrPath) -> WeightsInfo:
    """Header of a weight file, or of weights that come with medwave, by their name; the tensors are not read.

    Raises:
        MissingFileError: when there is no such file.
        InputError: when it is a pickle, damaged, or not a medwave weight file.
    """
    source = _checked(path)
    try:
        with safe_open(source, framework="pt") as file:
            header = file.metadata() or {}
    except (SafetensorError, OSError) as error:
        raise InputError(f"{source}: not a readable safetensors file ({error})") from error
    return _parse_header(source, header)


def load_weights(model: nn.Module, path: StrPath) -> WeightsInfo:
    """Load a weight file, or weights that come with medwave, into a network of the same class and options.

    Raises:
        MissingFileError: when there is no such file.
        InputError: when the file is a pickle, damaged, made for another network, or holds values that are not
            finite. The network is unchanged then.
    """
    source = _checked(path)
    info = read_weights_info(source)
    name, ours = type(model).__name__, _options(model)
    if info.model != name or ours | info.options != ours:  # a file may be older than an option
        raise InputError(f"{source}: weights of {info.model} {info.options} do not fit {name} {ours}")
    with safe_open(source, framework="pt") as file:
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118 (not a mapping)
    _check_tensors(source, tensors, model.state_dict())
    model.load_state_dict(tensors)
    return info


def open_network(path: StrPath, kind: type[Network]) -> Network:
    """The network that a weight file describes, with its weights, in evaluation mode.

    Args:
        path: a weight file, such as one that training wrote, or the name of weights that come with medwave.
        kind: the class it must be, or a base of it, such as :class:`medwave.models.FibreNet`.

    Raises:
        MissingFileError: when there is no such file.
        InputError: when the file is a pickle, damaged, of another kind of network, or of an unknown one.
    """
    info = read_weights_info(path)
    made = next((c for c in _subclasses(kind) if c.__name__ == info.model), None)
    if made is None:
        raise InputError(f"{path}: weights of a {kind.__name__} are needed, these are of {info.model}")
    try:
        network = made(**info.options)
    except (TypeError, InputError) as error:
        raise InputError(f"{path}: its options do not build a {info.model} ({error})") from None
    load_weights(network, path)
    return network.eval()


def mean_network(paths: Sequence[str | Path], kind: type[Network]) -> Network:
    """The network whose tensors are the mean of those of several weight files, such as of one network tuned twice.

    Networks tuned from one start lie in one valley, and their mean is often better than each (Wortsman et al. 2022,
    arXiv 2203.05482). Everything but the tensors is as in the last file.

    Args:
        paths: one or more weight files of networks with the same tensors.
        kind: as in :func:`open_network`.

    Raises:
        InputError: when there is no file, or tensors do not fit; and as :func:`open_network`.
    """
    networks = [open_network(path, kind) for path in paths]
    if not networks:
        raise InputError("a mean needs at least one weight file")
    states = [network.state_dict() for network in networks]
    for path, state in zip(paths, states, strict=True):
        if {name: t.shape for name, t in state.items()} != {name: t.shape for name, t in states[-1].items()}:
            raise InputError(f"{path}: its tensors do not fit those of {paths[-1]}; give files of one network")
    means = {
        name: torch.stack([state[name].double() for state in states]).mean(0).to(last.dtype)
        for name, last in states[-1].items()
    }
    networks[-1].load_state_dict(means)
    return networks[-1]


def weight_file(weights: StrPath) -> Path:
    """The weight file that is meant by a path, or by the name of weights that come with medwave.

    A file of that name in the current folder comes first: a path means the same whatever medwave brings along.

    Args:
        weights: path of a file, or a key of :data:`SHIPPED`.

    Raises:
        MissingFileError: when it is neither; it lists the names.
    """
    path = Path(weights)
    if path.is_file():
        return path
    if (name := str(path)) in SHIPPED:
        return shipped_weights(name)
    raise MissingFileError(
        f"{path}: there is no such weight file; weights that come with medwave are called {', '.join(SHIPPED)}"
    )


def shipped_weights(name: str) -> Path:
    """File of weights that come with medwave; the card beside it says what they were trained on and what they reach.

    Args:
        name: a key of :data:`SHIPPED`.

    Raises:
        InputError: for an unknown name.
    """
    if name not in SHIPPED:
        raise InputError(f"weights that come with medwave are {', '.join(SHIPPED)}, got {name!r}")
    return Path(__file__).with_name("shipped") / SHIPPED[name]


def read_foreign_checkpoint(path: str | Path) -> dict[str, Tensor]:
    """Tensors of another program's PyTorch checkpoint, read with ``weights_only=True`` (no code can run).

    Checkpoints that wrap the weights in ``{"state_dict": ...}`` are unwrapped.

    Raises:
        MissingFileError: when there is no such file.
        InputError: when it cannot be read without running code, or holds no tensors by name.
    """
    source = Path(path)
    if not source.is_file():
        raise MissingFileError(f"{source}: there is no such weight file")
    try:
        with source.open("rb") as file:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except (UnpicklingError, RuntimeError, EOFError, ValueError, OSError) as error:
        raise InputError(
            f"{source}: holds more than tensors or is damaged, and is not opened, since opening it could run code; "
            "ask its author for a safetensors file"
        ) from error
    if isinstance(content, dict) and isinstance(content.get("state_dict"), dict):
        content = content["state_dict"]
    if not isinstance(content, dict) or not content or not all(isinstance(t, Tensor) for t in content.values()):
        raise InputError(f"{source}: a checkpoint must map names to tensors")
    return content


def _subclasses(kind: type[Network]) -> list[type[Network]]:
    return [kind, *(below for each in kind.__subclasses__() for below in _subclasses(each))]


def _options(model: nn.Module) -> dict[str, Any]:
    options = getattr(model, "options", None)
    if not isinstance(options, dict):
        raise InputError(f"{type(model).__name__} is not a medwave network: it does not say its options")
    return options


def _checked(path: StrPath) -> Path:
    source = weight_file(path)
    with source.open("rb") as file:
        start = file.read(9)
    if start.startswith(_PICKLE_STARTS) and not _begins_safetensors(start):
        raise InputError(
            f"{source}: is a PyTorch pickle, which can run code when opened; weights must be safetensors files "
            "(see medwave.models.read_foreign_checkpoint for the tensors of another program)"
        )
    return source


def _begins_safetensors(start: bytes) -> bool:
    """Eight bytes of a header's length, then the header; the lowest byte of a length may be that of a pickle."""
    return start[4:] == b"\0\0\0\0{"


def _parse_header(source: Path, header: dict[str, str]) -> WeightsInfo:
    if header.get("format") != FORMAT:
        raise InputError(f"{source}: not a medwave weight file (its header lacks format {FORMAT!r})")
    try:
        options = json.loads(header["options"])
        info = WeightsInfo(header["model"], options, header["medwave_version"], header["provenance"])
    except (KeyError, ValueError, RecursionError) as error:
        raise InputError(f"{source}: the header of the weight file is damaged ({error!r})") from error
    if not isinstance(options, dict):
        raise InputError(f"{source}: the header of the weight file is damaged (options must be a JSON object)")
    return info


def _check_tensors(source: Path, tensors: dict[str, Tensor], expected: dict[str, Tensor]) -> None:
    if tensors.keys() != expected.keys():
        odd = sorted(tensors.keys() ^ expected.keys())
        raise InputError(f"{source}: tensors missing or unknown: {', '.join(odd[:5])}")
    for name, tensor in tensors.items():
        if tensor.shape != expected[name].shape:
            raise InputError(
                f"{source}: {name} must have shape {tuple(expected[name].shape)}, got {tuple(tensor.shape)}"
            )
        if not torch.isfinite(tensor).all():
            raise InputError(f"{source}: {name} holds values that are not finite")
