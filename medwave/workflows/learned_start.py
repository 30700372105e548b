"""A learned start for the refinement: WiNet's prediction on the working grid."""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import torch

from medwave.core.geometry import Float64Array, Grid, Volume
from medwave.engine.predict import predict_displacement
from medwave.models import WiNet


def predicted_start(
    model: WiNet, fixed: Volume, moving: Volume, matrix: Float64Array, grid: Grid, *, device: str
) -> npt.NDArray[np.float32]:
    """Displacement ``(3, D, H, W)`` in voxels of ``grid`` that a WiNet predicts for a pair after its affine.

    The network sees the pair at the voxel size it was trained at, whatever that of ``grid`` is.
    """
    from medwave.transforms.brains import displacement_on_grid, prepare_pair  # monai takes seconds to import

    pair = prepare_pair(fixed, moving, affine=matrix, spacing_mm=model.spacing_mm)
    images = [tensor.as_tensor()[0].numpy() for tensor in (pair.moving, pair.fixed)]
    displacement = predict_displacement(model, *images, device=str(torch.device(device)))
    return displacement_on_grid(displacement, pair.grid, grid)
