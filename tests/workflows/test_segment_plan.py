"""What ``--dry-run`` says: counts are those of a listing, and nothing is written."""

import numpy as np
import pytest

from medwave.core.errors import GeometryError
from medwave.cubes import Box
from medwave.engine.fibres import fibre_plan
from medwave.volumes import create_ome_zarr
from medwave.workflows.options_neurons import SegmentOptions
from medwave.workflows.segment_plan import count_touching, plan_segmentation
from medwave.workflows.segment_tasks import task_bytes

SHAPE = (64, 64, 512)
OPTIONS = SegmentOptions(overlap=16, shard=128, threads=1, precision="float32")


@pytest.fixture
def volume(tmp_path):
    image = np.random.default_rng(0).normal(100, 10, SHAPE)
    image[30:34, 30:34, 256:] += 150
    path = tmp_path / "image.ome.zarr"
    create_ome_zarr(path, SHAPE, np.uint16).write([slice(None)] * 3, image.clip(0).astype(np.uint16))
    return path


def test_tasks_of_a_cluster_predict_the_cubes_between_them_twice(volume, bright_is_fibre, workers, monkeypatch):
    monkeypatch.setattr("medwave.engine.fibres.CUBE_VOXELS", 64**3)
    plan = plan_segmentation(volume, weights=bright_is_fibre, options=OPTIONS, workers=workers)
    cubes = fibre_plan(SHAPE, overlap=16)
    shards = [Box((0, 0, x), (64, 64, x + 128)) for x in range(0, 512, 128)]
    assert plan.cubes == sum(len(cubes.touching(shard)) for shard in shards) > plan.cubes_once == len(cubes)
    assert plan.slots == 2


def test_a_plan(volume, bright_is_fibre, tmp_path, monkeypatch):
    monkeypatch.setattr("medwave.engine.fibres.CUBE_VOXELS", 64**3)
    before = sorted(tmp_path.rglob("*"))
    plan = plan_segmentation(volume, weights=bright_is_fibre, options=OPTIONS)
    assert sorted(tmp_path.rglob("*")) == before
    assert (plan.shape, plan.region, plan.blocks, plan.tasks, plan.slots) == (SHAPE, Box((0, 0, 0), SHAPE), 4, 4, 1)
    assert plan.cubes == plan.cubes_once == len(fibre_plan(SHAPE, overlap=16))
    assert plan.bytes_in == plan.cubes * 64**3 * 2
    assert plan.bytes_out == int(2 * np.prod(SHAPE) * 8 / 7)
    assert plan.task_bytes == task_bytes([]) + 14 * 64 * 64 * 128
    assert 0.3 < plan.empty_share < 0.7
    assert plan.read_s > 0
    assert plan.hours == pytest.approx(
        plan.cubes * (plan.read_s + (1 - plan.empty_share) * plan.predict_s) / 3600, rel=1e-6
    )
    part = plan_segmentation(volume, weights=bright_is_fibre, options=SegmentOptions(region=":,:,:128", overlap=16))
    assert (part.blocks, part.empty_share, part.predict_s) == (1, 1.0, None)


def test_counts_are_those_of_a_listing():
    plan = fibre_plan((300, 500, 700))
    for box in (
        Box((0, 0, 0), (300, 500, 700)),
        Box((10, 20, 30), (11, 200, 31)),
        Box((256, 256, 512), (300, 500, 700)),
    ):
        assert count_touching(plan, box) == len(plan.touching(box))


def test_what_is_wrong_is_said_by_the_plan_too(volume):
    with pytest.raises(GeometryError, match="lie within"):
        plan_segmentation(volume, options=SegmentOptions(region="0:99,:,:"))
