"""A trace by blocks is the trace of the whole volume, bit for bit: whatever the blocks, here and on a cluster."""

import os
import signal
from dataclasses import replace

import numpy as np
import pytest
import SimpleITK as sitk
import tifffile
from hypothesis import given, settings
from hypothesis import strategies as st

from medwave.core.errors import InputError
from medwave.core.tree import SOMA, Tree
from medwave.tracing import TraceOptions, trace
from medwave.transforms.rasterise import draw_tubes
from medwave.volumes import create_ome_zarr, write_swc
from medwave.workflows import trace_blocks
from medwave.workflows.trace_blocks import trace_source
from medwave.workflows.trace_source import FibreSource, Stack, VolumeSource, is_stored, stacks
from medwave.workflows.trace_tasks import COLLECT, TRACE, Tasks

SHAPE = (30, 60, 90)
BLOCKS = [(30, 60, 90), (13, 17, 90), (16, 21, 25)]


def tube(*points, radius):
    positions = np.array(points, dtype=float)[:, ::-1]
    return Tree(positions, np.full(len(points), float(radius)), np.arange(len(points)) - 1, np.zeros(len(points), int))


def cells(shape=SHAPE):
    """Two somata with fibres that cross all blocks, gaps to bridge, one dark plane, corners that touch, and specks."""
    trees = [
        tube((12, 20, 20), radius=6), tube((16, 40, 70), radius=5),
        tube((2, 4, 4), (12, 20, 20), (20, 30, 45), (27, 55, 85), radius=1.6),
        tube((16, 40, 70), (6, 20, 84), radius=1.2), tube((25, 8, 30), (25, 8, 50), radius=1.0),
        tube((25, 8, 56), (25, 14, 80), radius=1.0),
    ]  # fmt: skip
    bright = np.zeros(shape, bool)
    for each in trees:
        bright |= draw_tubes(each, shape, slack=0.0)
    bright[:, :, 47] = False
    bright[8:12, 45:49, 10:14] = bright[12:16, 49:53, 14:24] = True  # touch in a corner: two pieces
    random = np.random.default_rng(0)
    image = np.where(bright, 150 + random.integers(0, 60, shape), random.integers(0, 12, shape))
    for z, y, x in random.integers(0, np.array(shape) - 2, (12, 3)):
        image[z : z + 2, y : y + 2, x : x + 2] = 200
    return image.astype(np.uint8)


@pytest.fixture(scope="module")
def image():
    return cells()


@pytest.fixture(scope="module")
def stack(image, tmp_path_factory):
    path = tmp_path_factory.mktemp("input") / "cells.ome.zarr"
    create_ome_zarr(path, SHAPE, np.uint8, chunks=(16, 32, 32)).write([slice(None)] * 3, image)
    with stacks():
        yield Stack(str(path))


@pytest.fixture(scope="module")
def somata(image):
    return trace(image, options=HOW["somata"])


def by_blocks(stack, options, parts, size, shape=SHAPE, most=300, **more):
    source = VolumeSource(stack, (0, 0, 0), shape, options.kind)
    return trace_source(source, options, parts, inputs={}, block=size, group_voxels=most, **more)


HOW = {
    "plain": TraceOptions(threshold=50.0),
    "automatic": TraceOptions(),
    "dark rims": TraceOptions(threshold=50.0, cross_gaps=True, connectivity=3),
    "faces": TraceOptions(threshold=50.0, connectivity=1, cost="brightness", bridge_distance=0.0),
    "somata": TraceOptions(threshold=50.0, soma_radius=3.5, bridge_distance=25.0),
    "roots": TraceOptions(threshold=50.0, roots=((16.0, 40.0, 70.0), (8.0, 46.0, 12.0)), trees="one"),
    "thick slices": TraceOptions(threshold=50.0, spacing=(2.0, 1.0, 1.0), soma_radius=3.0),
    "radii": TraceOptions(threshold=50.0, radius_threshold=120.0, radius_in_plane=False, resample_step=0.0),
    "mask": TraceOptions(kind="mask", largest_foreground_share=1.0, shortest_segment=40.0),
}


@pytest.mark.parametrize("name", list(HOW))
def test_the_trace_of_the_whole_and_that_by_blocks_are_one(image, stack, tmp_path, name):
    options = HOW[name]
    seen = image
    if name == "mask":
        seen = np.where(image > 100, image, 0).astype(np.uint8)
        path = tmp_path / "mask.ome.zarr"
        create_ome_zarr(path, SHAPE, np.uint8, chunks=(16, 32, 32)).write([slice(None)] * 3, seen)
        stack, options = Stack(str(path)), replace(options, shortest_segment=5.0)
    whole = trace(seen, options=options)
    write_swc(tmp_path / "whole.swc", whole)
    assert len(whole) > 20
    for size in BLOCKS:
        tree = by_blocks(stack, options, tmp_path / "parts", size)
        assert tree == whole
        write_swc(tmp_path / "blocks.swc", tree)
        assert (tmp_path / "blocks.swc").read_bytes() == (tmp_path / "whole.swc").read_bytes()
        assert not (tmp_path / "parts").exists()


def test_the_volume_has_what_is_to_be_proved(image):
    """Somata, several trees, bridged gaps and a crossed dark plane."""
    apart, joined = (trace(image, options=TraceOptions(threshold=50.0, bridge_distance=d)) for d in (0.0, 15.0))
    assert len(apart.roots) > len(joined.roots) > 1
    assert (joined.kind == SOMA).any()
    crossed = trace(image, options=TraceOptions(threshold=50.0, bridge_distance=0.0, cross_gaps=True))
    assert len(crossed.roots) < len(apart.roots)


@given(size=st.tuples(st.integers(4, 30), st.integers(12, 60), st.integers(20, 90)), most=st.integers(1, 4000))
@settings(deadline=None, max_examples=5)
def test_any_blocks_and_groups(stack, somata, tmp_path_factory, size, most):
    tree = by_blocks(stack, HOW["somata"], tmp_path_factory.mktemp("any") / "parts", size, most=most)
    assert tree == somata


@pytest.mark.parametrize("dtype", [np.uint16, np.int16, np.float32, ">f8"])
def test_grey_scales_of_blocks_are_those_of_the_whole(image, tmp_path, dtype):
    volume = (image.astype(np.float64) * 7 - 300 * (np.dtype(dtype).kind == "i")).astype(dtype)
    volume[3, 3, 3] = 30000
    path = tmp_path / "v.ome.zarr"
    native = np.dtype(dtype).newbyteorder("=")
    create_ome_zarr(path, SHAPE, native, chunks=(16, 32, 32)).write([slice(None)] * 3, volume.astype(native))
    for options in (TraceOptions(), TraceOptions(threshold=703.5)):
        with stacks():
            tree = by_blocks(Stack(str(path)), options, tmp_path / "parts", (9, 20, 40))
        assert tree == trace(volume, options=options)


@pytest.mark.parametrize(("fill", "gaps"), [(0, False), (0, True), (40, False), (200, False)])
def test_blocks_that_a_store_lacks_have_its_fill_value(tmp_path, monkeypatch, fill, gaps):
    import zarr

    volume = np.full((24, 48, 48), fill, np.uint16)
    volume[4:8, 4:8, 2:40] = 90 if fill else 250
    path = str(tmp_path / "sparse.zarr")
    array = zarr.create_array(path, shape=volume.shape, chunks=(8, 16, 16), dtype="uint16", fill_value=fill)
    array[:8, :16] = volume[:8, :16]
    options = TraceOptions(threshold=150.0 if fill == 200 else 60.0, cross_gaps=gaps, largest_foreground_share=1.0)
    source = VolumeSource(Stack(path), (0, 0, 0), volume.shape, "image")
    with stacks():
        assert is_stored(source.stack, (0, 0, 0), volume.shape, (8, 16, 16)).sum() == 3
        assert is_stored(source.stack, (4, 8, 8), (8, 30, 40), (8, 16, 16)).tolist() == [True] * 3 + [False] * 3
        read, original = [], VolumeSource.values
        monkeypatch.setattr(VolumeSource, "values", lambda self, box: read.append(box) or original(self, box))
        tree = trace_source(source, options, tmp_path / "parts", inputs={}, block=(8, 16, 16))
    assert tree == trace(volume, options=options)
    assert (len(read) < 24) == (fill < 200 and not gaps)


def test_voxels_that_touch_across_a_block_that_is_not_stored_are_one_piece(tmp_path):
    volume = np.zeros((8, 48, 48), np.uint8)
    volume[3, 16:46, 15] = volume[3, 15, 16:46] = 200
    path = tmp_path / "corner.ome.zarr"
    image = create_ome_zarr(path, volume.shape, np.uint8, chunks=(8, 16, 16))
    for box in ((slice(0, 8), slice(16, 48), slice(0, 16)), (slice(0, 8), slice(0, 16), slice(16, 48))):
        image.write(box, volume[box])
    options = TraceOptions(bridge_distance=0.0)
    with stacks():
        tree = by_blocks(Stack(str(path)), options, tmp_path / "parts", (8, 16, 16), volume.shape)
    assert tree == trace(volume, options=options)
    assert len(tree.roots) == 1


def test_probabilities_of_any_type(image, tmp_path):
    volume = np.clip(image / 210, 0, 1).astype(np.float32)
    create_ome_zarr(tmp_path / "p.ome.zarr", SHAPE, np.float32).write([slice(None)] * 3, volume)
    options = TraceOptions(kind="probability", cost="log_probability")
    with stacks():
        stack = Stack(str(tmp_path / "p.ome.zarr"))
        assert by_blocks(stack, options, tmp_path / "parts", (9, 20, 40)) == trace(volume, options=options)
        create_ome_zarr(tmp_path / "q.ome.zarr", SHAPE, np.float32).write([slice(None)] * 3, volume * 2)
        with pytest.raises(InputError, match="from 0 to 1"):
            by_blocks(Stack(str(tmp_path / "q.ome.zarr")), options, tmp_path / "parts", (9, 20, 40))
    assert not (tmp_path / "parts").exists()


@pytest.mark.parametrize("both", [True, False])
def test_fibre_of_a_network_is_the_same_in_any_blocks(image, stack, tmp_path, both):
    probability = np.where(image > 100, 255 - image // 4, image * 3).astype(np.uint8)
    path = tmp_path / "p.ome.zarr"
    create_ome_zarr(path, SHAPE, np.uint8, chunks=(16, 32, 32)).write([slice(None)] * 3, probability)
    source = FibreSource(stack, (2, 3, 4), (26, 50, 80), str(path), 0.5, 6.0, both)
    options = TraceOptions(kind="probability", threshold=0.0)
    whole = trace(source.whole(), options=options)
    for size in ((26, 50, 80), (7, 11, 80)):
        assert trace_source(source, options, tmp_path / "parts", inputs={}, block=size) == whole
    part = (slice(2, 28), slice(3, 53), slice(4, 84))
    contrast = np.maximum(image[part].astype(float) - 6, 0)
    seen = np.where(probability[part] > 127, contrast, 0)
    top = np.sort((contrast if both else seen).reshape(-1))[::-1][int(contrast.size * (1e-3 if both else 1e-5))]
    share = np.minimum(seen / top, 1)
    grey = np.sqrt(share) * (probability[part] / 255) if both else share
    assert np.abs(grey * 255 - source.whole()).max() <= 0.5 + 1e-6


def test_sparse_fibre_on_nothing_keeps_its_branches_whatever_its_values(tmp_path):
    """Fewer voxels than set the scale are above the background: 2 in ten thousand."""
    image, path = np.zeros((60, 90, 100), np.float32), tmp_path / "p.ome.zarr"
    image[30, 40, 10:90] = 1
    image[30, 41:80, 50] = 0.2
    create_ome_zarr(path, image.shape, np.uint8).write([slice(None)] * 3, np.uint8(200) * (image > 0))
    trees = []
    for factor in (1, 1e-4):
        tifffile.imwrite(tmp_path / f"{factor}.tif", image * np.float32(factor))
        source = FibreSource(Stack(str(tmp_path / f"{factor}.tif")), (0, 0, 0), image.shape, str(path), 0.5, 0.0, True)
        options = TraceOptions(kind="probability", threshold=0.0)
        trees.append(trace_source(source, options, tmp_path / "parts", inputs={}))
    assert trees[0] == trees[1]
    assert trees[1].length == pytest.approx(79 + 39, abs=3)


@pytest.mark.data
def test_a_real_neuron_by_blocks(data_folder, tmp_path):
    path = data_folder / "neurons" / "real_traced" / "neuron_b.tif"
    image = tifffile.imread(path)
    with stacks():
        tree = by_blocks(Stack(str(path)), TraceOptions(), tmp_path / "parts", (50, 200, 150), image.shape, 5000)
    assert tree == trace(image)


@pytest.mark.parametrize("name", ["a.nii", "a.mhd", "a.tif"])
def test_a_volume_that_is_replaced_is_opened_anew(tmp_path, name):
    """Workers of a cluster outlive a run, and hold what is read whole in memory."""
    path, found = tmp_path / name, []
    with stacks():
        for value in (1, 2):
            image = np.full((4, 5, 6), value, np.uint8)
            if name.endswith("tif"):
                tifffile.imwrite(path, image, compression="zlib" if value == 2 else None, photometric="minisblack")
            else:
                sitk.WriteImage(sitk.GetImageFromArray(image), str(path))
            if name.endswith("mhd"):  # only the values change
                os.utime(path, ns=(0, 0))
            found += [Stack(str(path)).open(), Stack(str(path)).open()]
            assert (found[-1].read() == value).all()
    assert found[0] is found[1] is not found[2] is found[3]


# --- interruptions and clusters --------------------------------------------------------------------------------------


def test_a_trace_that_was_stopped_goes_on_with_what_is_missing(stack, image, tmp_path, monkeypatch):
    options, parts = HOW["plain"], tmp_path / "parts"
    calls = []

    def counted(name, limit):
        original = getattr(trace_blocks, name)

        def call(item):
            if len([each for each in calls if each == name]) >= limit:
                raise KeyboardInterrupt
            calls.append(name)
            original(item)

        return call

    for name, limit in (("_collect", 5), ("_trace_group", 2)):
        with monkeypatch.context() as patch:
            patch.setattr(trace_blocks, name, counted(name, limit))
            with pytest.raises(KeyboardInterrupt):
                by_blocks(stack, options, parts, (16, 16, 16))
    before = {path.name: path.stat().st_mtime_ns for path in parts.iterdir()}
    assert calls == ["_collect"] * 5 + ["_trace_group"] * 2
    seen = {}
    with monkeypatch.context() as patch:
        patch.setattr(
            trace_blocks, "remove_store",
            lambda path: seen.update({each.name: each.stat().st_mtime_ns for each in path.iterdir()}),
        )  # fmt: skip
        tree = by_blocks(stack, options, parts, (16, 16, 16))
    assert tree == trace(image, options=options)
    assert before.items() <= seen.items()
    other = replace(options, shortest_segment=20.0)
    assert by_blocks(stack, other, parts, (16, 16, 16)) == trace(image, options=other)
    assert not parts.exists()


def test_how_far_a_trace_is_counts_what_an_earlier_run_left(stack, tmp_path, monkeypatch):
    told = []
    with monkeypatch.context() as patch:
        patch.setattr(trace_blocks, "_trace_group", lambda item: 1 // 0)
        with pytest.raises(ZeroDivisionError):
            by_blocks(stack, HOW["plain"], tmp_path / "parts", (16, 30, 90), on_progress=told.append)
    assert {(at.step, at.done, at.total) for at in told if at.things == "blocks"} == {
        (step, done, 4) for step in ("look at grey values", "collect foreground") for done in range(5)
    }
    told.clear()
    by_blocks(stack, HOW["plain"], tmp_path / "parts", (16, 30, 90), on_progress=told.append)
    blocks, groups = ([at for at in told if at.things == things] for things in ("blocks", "groups of pieces"))
    assert [(at.step, at.done, at.seconds_left) for at in blocks] == [("collect foreground", 4, None)]
    assert [at.done for at in groups] == list(range(groups[0].total + 1))
    assert groups[-1].seconds_left == 0


def test_what_cannot_be_traced_leaves_nothing(stack, tmp_path):
    for wrong, words in (
        ({"threshold": 255.0}, "brightest"), ({"roots": ((0.0, 0.0, 89.0),), "threshold": 50.0}, "not within 10"),
        ({"shortest_segment": 9000.0}, "shortest segment"), ({"smallest_component_voxels": 10**6}, "smallest comp"),
    ):  # fmt: skip
        with pytest.raises(InputError, match=words):
            by_blocks(stack, TraceOptions(**wrong), tmp_path / "parts", (16, 16, 16))
        assert not (tmp_path / "parts").exists()


def test_a_cluster_gives_the_same_tree(stack, image, workers, tmp_path):
    options = HOW["somata"]
    tree = by_blocks(stack, options, tmp_path / "parts", (16, 16, 32), workers=workers)
    assert tree == trace(image, options=options)


def test_a_worker_killed_while_it_traces_costs_nothing(stack, image, workers, tmp_path, monkeypatch):
    options, killed, original = HOW["plain"], [], Tasks.run

    def run(tasks, step, function, items, *, before=0):
        for done in original(tasks, step, function, items, before=before):
            if step in (COLLECT, TRACE) and step.name not in killed:
                killed.append(step.name)
                pids = workers.client.run(os.getpid)
                os.kill(pids[sorted(pids)[0]], signal.SIGKILL)
            yield done

    monkeypatch.setattr(Tasks, "run", run)
    tree = by_blocks(stack, options, tmp_path / "parts", (16, 30, 45), workers=workers)
    assert killed == ["block", "trees"]
    assert tree == trace(image, options=options)
