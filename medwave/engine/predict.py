"""Run a pair network on numpy arrays: device, precision and memory layout are chosen here, not in the model.

Conventions
    Arrays ``(D, H, W)`` on the fixed image's grid, intensities of about [0, 1]. The displacement is
    ``(3, D, H, W)`` float32 in voxels, channel i along array axis i, pull-back.

Precision
    ``"float32"``: everything in float32. ``"bfloat16"``: convolutions under autocast in bfloat16; the displacement
    differs from float32 by about one percent of its size. ``"auto"``:
    bfloat16 where the device multiplies it natively (CPU with AVX512-BF16 or AMX: twice to six times as fast; CUDA
    from compute capability 8), float32 elsewhere, since emulated bfloat16 is slower than float32.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch
from torch import nn

from medwave.core.errors import DeviceError, GeometryError, InputError
from medwave.core.memory import freed_memory_kept

PRECISIONS = ("auto", "float32", "bfloat16")


def native_bfloat16(device: torch.device) -> bool:
    """Whether convolutions in bfloat16 are faster than in float32 on this device."""
    if device.type == "cuda":
        return torch.cuda.get_device_capability(device) >= (8, 0)
    if device.type == "cpu":
        checks = ("_is_amx_tile_supported", "_is_avx512_bf16_supported")  # absent from some torch builds
        return any(getattr(torch.cpu, name, lambda: False)() for name in checks)
    return False


def predict_displacement(
    model: nn.Module,
    moving: npt.NDArray[np.floating],
    fixed: npt.NDArray[np.floating],
    *,
    device: str | torch.device = "cpu",
    precision: str = "auto",
) -> npt.NDArray[np.float32]:
    """Displacement that a network predicts for one pair.

    The model is moved to ``device`` and back-propagation is off; its training mode and its memory layout come back
    as they were.

    Args:
        model: called as ``model(moving, fixed)`` with ``(1, 1, D, H, W)`` tensors, such as
            :class:`medwave.models.WiNet`.
        moving: ``(D, H, W)``, already on the fixed grid.
        fixed: ``(D, H, W)``.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...
        precision: ``"auto"``, ``"float32"`` or ``"bfloat16"``; see above.

    Returns:
        ``(3, D, H, W)`` float32 in voxels of the fixed grid.

    Raises:
        GeometryError: when the arrays are not 3-D and of one shape.
        InputError: when the precision is unknown, or images or result hold values that are not finite.
        DeviceError: when the device is not there.
    """
    if precision not in PRECISIONS:
        raise InputError(f"precision is one of {', '.join(PRECISIONS)}, got {precision!r}")
    if fixed.ndim != 3 or moving.shape != fixed.shape:
        raise GeometryError(f"moving and fixed must be 3-D of one shape, got {moving.shape} and {fixed.shape}")
    target = usable_device(device)
    half = precision == "bfloat16" or (precision == "auto" and native_bfloat16(target))
    pair = [_tensor(name, image, target) for name, image in (("moving", moving), ("fixed", fixed))]
    was_training = model.training
    model.to(target).eval()
    layout = torch.channels_last_3d if half or target.type == "cpu" else torch.contiguous_format
    try:
        model.to(memory_format=layout)
        with freed_memory_kept(), torch.inference_mode(), torch.autocast(target.type, torch.bfloat16, enabled=half):
            displacement = model(*pair)
    finally:
        model.to(memory_format=torch.contiguous_format).train(was_training)
    result = displacement[0].float().cpu().contiguous().numpy()
    if not np.isfinite(result).all():
        raise InputError("the network predicted values that are not finite: check its weights")
    return result


def usable_device(name: str | torch.device) -> torch.device:
    """The device of a name.

    Raises:
        DeviceError: when torch does not know it or does not see it.
    """
    try:
        device = torch.device(name)
        torch.zeros(1, device=device).item()  # a device may be known and still hold no values
    except (RuntimeError, AssertionError) as error:
        reason = str(error).splitlines()[0]
        raise DeviceError(f"device {str(name)!r} is not usable here ({reason}); use --device cpu") from error
    return device


def _tensor(name: str, image: npt.NDArray[np.floating], device: torch.device) -> torch.Tensor:
    array = np.ascontiguousarray(image, dtype=np.float32)
    if not np.isfinite(array).all():
        raise InputError(f"the {name} image holds NaN or infinite values; replace them first")
    return torch.from_numpy(array)[None, None].to(device)
