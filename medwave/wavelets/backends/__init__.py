"""Back-ends of the wavelet operators, and which one does a given tensor.

A back-end is a module with ``analysis(x, taps, rule, ndim, low_only)`` and ``synthesis(bands, taps, rule, size,
low_only)``. ``plain`` (torch) does every device, ``compiled`` (numba) CPU tensors, ``gpu`` (Triton) CUDA tensors.
Another one joins :data:`MODULES` and :data:`DEVICES`, and nothing else changes.

The choice: the ``backend`` argument if given, else the environment variable ``MEDWAVE_WAVELET_BACKEND``, else
``auto``: the fastest back-end of the device. Under ``auto`` a back-end that cannot be imported or breaks is left out
for the rest of the process, with one warning; a forced one raises.
"""

from __future__ import annotations

import importlib
import os
import warnings
from collections.abc import Callable
from typing import Any

import torch

from medwave.core.errors import DeviceError, InputError

ENVIRONMENT_VARIABLE = "MEDWAVE_WAVELET_BACKEND"

MODULES = {
    "torch": "medwave.wavelets.backends.plain",
    "numba": "medwave.wavelets.backends.compiled",
    "triton": "medwave.wavelets.backends.gpu",
}
"""Back-end name -> module, imported on first use."""

DEVICES = {"numba": "cpu", "triton": "cuda"}
"""Back-ends that serve one device type only, the fastest first."""

_broken: dict[str, str] = {}


def check_backend(backend: str | None) -> str:
    """The back-end name of an argument (``None`` is ``"auto"``).

    Raises:
        InputError: for an unknown name.
    """
    name = "auto" if backend is None else backend
    if name != "auto" and name not in MODULES:
        raise InputError(f"backend is one of auto, {', '.join(MODULES)}, got {backend!r}")
    return name


def call(function: str, backend: str, tensor: torch.Tensor, *arguments: Any) -> torch.Tensor:
    """Run ``analysis`` or ``synthesis`` on the back-end that fits.

    Raises:
        InputError: when the environment variable names an unknown back-end.
        DeviceError: when a forced back-end cannot do the tensor's device, or is broken.
    """
    wanted = backend if backend != "auto" else check_backend(os.environ.get(ENVIRONMENT_VARIABLE) or None)
    if wanted != "auto":
        return _forced(wanted, function, tensor)(tensor, *arguments)
    for name, device in DEVICES.items():
        if device == tensor.device.type and name not in _broken:
            try:
                return _load(name, function)(tensor, *arguments)
            except (MemoryError, torch.OutOfMemoryError):
                raise
            except Exception as error:  # whatever a compiler throws: the plain form gives the same numbers
                _broken[name] = f"{type(error).__name__}: {error}".splitlines()[0]
                warnings.warn(
                    f"the {name} back-end of medwave.wavelets does not work here ({_broken[name]}); "
                    f"the slower torch form is used instead. Set {ENVIRONMENT_VARIABLE}=torch to choose it silently.",
                    RuntimeWarning,
                    stacklevel=2,
                )
    return _load("torch", function)(tensor, *arguments)


def _forced(name: str, function: str, tensor: torch.Tensor) -> Callable[..., torch.Tensor]:
    device = DEVICES.get(name, tensor.device.type)
    if device != tensor.device.type:
        raise DeviceError(
            f"the {name} back-end does {device} tensors, got one on {tensor.device}: move it, or use backend='torch'"
        )
    try:
        return _load(name, function)
    except Exception as error:
        raise DeviceError(f"the {name} back-end cannot be used: {error}; use backend='torch'") from error


def _load(name: str, function: str) -> Callable[..., torch.Tensor]:
    return getattr(importlib.import_module(MODULES[name]), function)
