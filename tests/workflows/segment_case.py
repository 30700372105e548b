"""What the tests of segmentation on a cluster share: a long volume of several cubes, and what a run left."""

import numpy as np
import pytest

from medwave.volumes import create_ome_zarr
from medwave.workflows.segment_store import MASK, PROBABILITY


@pytest.fixture(autouse=True, scope="module")
def several_cubes():
    """Small cubes; the plan goes to the workers as it is."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("medwave.engine.fibres.CUBE_VOXELS", 16 * 32 * 160)
        yield


def noise_with_lines(shape):
    """Bright lines along x in noise, ``(z, y, x)`` float."""
    volume = np.random.default_rng(0).normal(100, 10, shape)
    volume[3:6, 4::9, :] += 150
    return volume


def as_store(path, volume, **options):
    """An OME-Zarr of the volume in 16 bits."""
    values = volume.clip(0).astype(np.uint16)
    create_ome_zarr(path, values.shape, np.uint16, **options).write([slice(None)] * 3, values)
    return path


def stores(folder):
    """All files of the two images, but for the names of the images themselves."""
    return {
        str(p.relative_to(folder)): p.read_bytes()
        for name in (PROBABILITY, MASK) for p in sorted((folder / name).rglob("*")) if p.is_file()
    }  # fmt: skip
