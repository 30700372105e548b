"""Floor 2: a volume as overlapping cubes: where they lie (plan), and how their predictions become one (assemble).

All shapes, starts and boxes are ``(z, y, x)`` in voxels. Cubes form one global grid over the volume; a prediction is
the weighted mean of all cubes that cover a voxel. It is written in blocks: each block is computed from every cube that
touches it, so its values do not depend on the other blocks, on their order, or on an interruption.
"""

from medwave.core.lazy import exports

__getattr__, __dir__ = exports(
    __name__,
    {
        "Box": "medwave.cubes.plan",
        "CubePlan": "medwave.cubes.plan",
        "REFERENCE_SIZE": "medwave.cubes.plan",
        "REFERENCE_STRIDE": "medwave.cubes.plan",
        "SampledCube": "medwave.cubes.sampling",
        "assemble": "medwave.cubes.assembly",
        "gaussian_weight": "medwave.cubes.assembly",
        "sample_cubes": "medwave.cubes.sampling",
    },
)
