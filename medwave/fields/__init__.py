"""Floor 2: maths on displacement and velocity fields, in voxels. Needs torch, numpy and numba only.

Conventions of the whole room
    An image is ``(N, C, D, H, W)`` in the axis order of its file. A displacement ``u`` is ``(N, 3, D, H, W)``: channel
    ``i`` moves along array axis ``i``, in voxels, and pulls back: ``warped(p) = moving(p + u(p))``. A stationary
    velocity ``v`` has the same layout; its displacement is ``exp(v) - id`` (:func:`integrate`).
    Outside its grid a displacement continues with its border value, so that fields compose and invert everywhere.
    Arithmetic is float32, or float64 where an input is float64, also under autocast: half precision would cost up to
    a tenth of a voxel. Every function but :func:`invert` is differentiable.
"""

from medwave.core.lazy import exports

__getattr__, __dir__ = exports(
    __name__,
    {
        "sample": "medwave.fields.sampling",
        "warp": "medwave.fields.sampling",
        "positions": "medwave.fields.sampling",
        "resize": "medwave.fields.sampling",
        "compose": "medwave.fields.algebra",
        "integrate": "medwave.fields.algebra",
        "invert": "medwave.fields.inversion",
        "jacobian_determinant": "medwave.fields.jacobian",
        "affine_displacement": "medwave.fields.affine",
        "to_mm": "medwave.fields.affine",
        "to_voxels": "medwave.fields.affine",
    },
)
