"""What ``medwave trace --dry-run`` says: the bytes that are read, and nothing is written."""

import numpy as np
import pytest

from medwave.core.errors import InputError
from medwave.volumes import create_ome_zarr
from medwave.volumes.stack import LazyVolume
from medwave.workflows.options import TraceFileOptions
from medwave.workflows.trace import stack_of, trace_options
from medwave.workflows.trace_blocks import trace_source
from medwave.workflows.trace_plan import plan_trace
from medwave.workflows.trace_source import VolumeSource, stacks

SHAPE = (16, 48, 64)


def stored(path, dtype, top):
    volume = np.zeros(SHAPE, np.float64)
    volume[8, 20:24, 4:60] = volume[8, 4:44, 30:33] = top
    create_ome_zarr(path, SHAPE, dtype, chunks=(16, 16, 16)).write([slice(None)] * 3, volume.astype(dtype))
    return path


@pytest.mark.parametrize(
    ("dtype", "kind", "top", "looks"),
    [
        (np.uint8, "image", 200, 1), (np.uint16, "image", 900, 1), (np.float32, "image", 900, 3),
        (np.float64, "image", 900, 5), (np.uint8, "mask", 1, 1), (np.float32, "probability", 0.9, 2),
    ],
)  # fmt: skip
def test_the_bytes_are_those_that_a_trace_reads(tmp_path, monkeypatch, dtype, kind, top, looks):
    path, options = stored(tmp_path / "v.ome.zarr", dtype, top), TraceFileOptions(kind=kind, bridge_distance=0.0)
    before, read, original = sorted(tmp_path.rglob("*")), [], LazyVolume.read
    plan = plan_trace(path, options=options)
    assert sorted(tmp_path.rglob("*")) == before
    monkeypatch.setattr(LazyVolume, "read", lambda self, box=None: read.append(original(self, box)) or read[-1])
    with stacks():
        stack = stack_of(path, options)
        opened = stack.open()
        how = trace_options(options, (1.0, 1.0, 1.0), kind=kind, threshold=None)
        trace_source(VolumeSource(stack, (0, 0, 0), opened.shape, kind), how, tmp_path / "parts", inputs={})
    assert (plan.shape, plan.blocks, plan.stored_blocks, plan.looks) == (SHAPE, 1, 1, looks)
    assert plan.bytes_in == sum(values.nbytes for values in read)


def test_blocks_that_a_store_lacks_are_not_read(tmp_path, monkeypatch):
    monkeypatch.setattr("medwave.workflows.trace_source._WHOLE_VOXELS", 1000)
    monkeypatch.setattr("medwave.workflows.trace_source._SIDE", 16)
    plan = plan_trace(stored(tmp_path / "v.ome.zarr", np.uint16, 500))  # chunks of zeros are not written
    assert (plan.blocks, plan.stored_blocks) == (12, 8)
    assert plan.bytes_in == 8 * 16**3 * 2 * 2
    assert plan.task_bytes == 300_000_000 + max(12 * 16**3, 300 * 4915)


def test_options_that_cannot_be_are_refused_before_hours(tmp_path):
    path = stored(tmp_path / "v.ome.zarr", np.uint8, 200)
    with pytest.raises(InputError, match="threshold"):
        plan_trace(path, options=TraceFileOptions(kind="mask", threshold=3.0))
