"""The napari plugin by its manifest, as napari calls it: layers of trees and stores, and trees written back."""

import itertools
import subprocess
import sys
import tomllib
from pathlib import Path

import numpy as np
import pytest

npe2 = pytest.importorskip("npe2", reason="the manifest is read by npe2")
zarr = pytest.importorskip("zarr", reason="stores need the extra large")

from medwave.core.errors import GeometryError, InputError  # noqa: E402
from medwave.core.tree import Tree  # noqa: E402
from medwave.napari.stores import VolumeView  # noqa: E402
from medwave.volumes import LazyVolume, build_pyramid, create_ome_zarr, read_swc, read_swc_units, write_swc  # noqa: E402

ROOT = Path(__file__).resolve().parents[2]
MANIFEST = ROOT / "medwave" / "napari" / "napari.yaml"
SPACING = (2.0, 0.5, 0.5)


@pytest.fixture(scope="module", autouse=True)
def plugins():
    """npe2's manager with this plugin in it."""
    manager = npe2.PluginManager.instance()
    manager.register(npe2.PluginManifest.from_file(MANIFEST))
    yield manager
    manager.unregister("medwave")


def read(path):
    return npe2.read([str(path)], stack=False, plugin_name="medwave")


def write(path, *layers):
    return npe2.write(str(path), list(layers), plugin_name="medwave")


@pytest.fixture
def tree():
    """A soma, a stem and a fork, with a further column; x, y and z are told apart by their size."""
    positions = [[1, 20, 300], [2, 21, 310], [3, 22, 320], [3, 30, 330], [4, 22, 340]]
    return Tree(
        positions, [4, 1, 0.5, 0, 0.25], [-1, 0, 1, 2, 2], [1, 3, 3, 3, 2], [[7], [8], [9], [10], [11]], ("age",)
    )


def test_the_manifest_is_valid_and_the_package_says_where_it_is():
    done = subprocess.run([sys.executable, "-m", "npe2", "validate", str(MANIFEST)], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    entry = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["napari.manifest"]
    module, _, file = entry["medwave"].partition(":")
    assert ROOT.joinpath(*module.split("."), file) == MANIFEST
    npe2.PluginManifest.from_file(MANIFEST).validate_imports()


def test_a_tree_becomes_edges_and_nodes(tree, tmp_path):
    write_swc(tmp_path / "a.swc", tree, units="um", header=["from a test"])
    (vectors, edges, kind), (points, nodes, other) = read(tmp_path / "a.swc")
    assert (kind, other) == ("vectors", "points")
    np.testing.assert_array_equal(points, tree.positions[:, ::-1])
    np.testing.assert_array_equal(vectors[:, 0] + vectors[:, 1], tree.positions[1:, ::-1])
    np.testing.assert_array_equal(vectors[:, 0], tree.positions[tree.parent[1:], ::-1])
    assert edges["features"]["type"].tolist() == [3, 3, 3, 2]
    assert edges["features"]["radius"].tolist() == [1, 0.5, 0, 0.25]
    assert nodes["features"]["parent"].tolist() == [-1, 1, 2, 3, 3]
    assert nodes["size"].tolist() == [8, 2, 1, 1, 0.5]
    assert edges["scale"] == nodes["scale"] == (1, 1, 1)
    assert len(np.unique(edges["edge_color"], axis=0)) == 2


def test_a_tree_in_voxels_is_scaled_as_the_segmentation_beside_it(tree, tmp_path):
    create_ome_zarr(tmp_path / "probability.ome.zarr", shape=(8, 64, 512), dtype=np.uint8, spacing_um=SPACING)
    for units, scale in (("voxels", SPACING), ("um", (1, 1, 1))):
        write_swc(tmp_path / f"{units}.swc", tree, units=units)
        assert [layer[1]["scale"] for layer in read(tmp_path / f"{units}.swc")] == [scale, scale]


def test_a_tree_lies_on_the_segmentation_of_a_coarser_level(tree, tmp_path):
    """Voxels are placed as the segmentation is; micrometres count from voxel 0 of the finest level already."""
    for name in ("probability", "mask", "image"):
        create_ome_zarr(
            tmp_path / f"{name}.ome.zarr", (8, 64, 512), np.uint8, spacing_um=SPACING, offset_voxels=(0, 0.25, 0.375)
        )
        ((_, said, _),) = read(tmp_path / f"{name}.ome.zarr")
        assert said.get("translate") == (None if name == "image" else (0, 0.25 * SPACING[1], 0.375 * SPACING[2]))
    write_swc(tmp_path / "voxels.swc", tree, units="voxels")
    write_swc(tmp_path / "um.swc", tree, units="um")
    expected = {"voxels": (0, 0.25 * SPACING[1], 0.375 * SPACING[2]), "um": None}
    for units, shift in expected.items():
        assert [layer[1].get("translate") for layer in read(tmp_path / f"{units}.swc")] == [shift, shift]


def test_what_is_read_is_written_again(tree, tmp_path):
    write_swc(tmp_path / "a.swc", tree, units="um", header=["from a test"])
    (written,) = write(tmp_path / "b.swc", read(tmp_path / "a.swc")[1])
    assert (tmp_path / "a.swc").read_bytes() == Path(written).read_bytes()
    assert read_swc_units(written) == "um"


def test_nodes_that_were_moved_deleted_and_added_make_a_tree(tree, tmp_path):
    write_swc(tmp_path / "a.swc", tree)
    data, nodes, kind = read(tmp_path / "a.swc")[1]
    kept = [0, 2, 3, 4]  # without the second: its child becomes a root
    added = {"id": 99, "parent": 5, "type": 2, "radius": 0.75, "age": 1}
    features = {name: np.append(column[kept], added[name]) for name, column in nodes["features"].items()}
    changed = {**nodes, "features": features, "size": np.ones(5)}
    moved = np.vstack([data[kept] + (0, 0, 5), [[5, 22, 350]]])
    write(tmp_path / "b.swc", (moved, changed, kind))
    found = read_swc(tmp_path / "b.swc")
    assert found.parent.tolist() == [-1, -1, 1, 1, 3]
    assert found.positions[:, 0].tolist() == [6, 8, 8, 9, 350]
    features["id"][-1] = 5
    with pytest.raises(InputError, match="5 is there twice"):
        write(tmp_path / "c.swc", (moved, changed, kind))
    with pytest.raises(InputError, match="id and parent"):
        write(tmp_path / "c.swc", (moved, {}, kind))
    assert not (tmp_path / "c.swc").exists()


@pytest.mark.parametrize(("name", "kind"), [("probability", "image"), ("mask", "labels")])
def test_a_store_becomes_a_layer_of_all_its_resolutions(name, kind, tmp_path):
    values = np.random.default_rng(0).integers(0, 2, (12, 40, 48), np.uint8)
    path = tmp_path / f"{name}.ome.zarr"
    store = create_ome_zarr(path, shape=values.shape, dtype=np.uint8, chunks=(8, 16, 16), spacing_um=SPACING, levels=2)
    store.write([slice(0, n) for n in values.shape], values)
    build_pyramid(path, method="max")
    ((data, said, found),) = read(path)
    assert (found, said["name"], said["scale"], said["multiscale"]) == (kind, name, SPACING, True)
    assert [level.shape for level in data] == [(12, 40, 48), (12, 20, 24)]
    np.testing.assert_array_equal(data[0], values)
    np.testing.assert_array_equal(
        data[1][3], np.maximum.reduce([values[3, i::2, j::2] for i in (0, 1) for j in (0, 1)])
    )


def test_levels_of_a_single_slice_are_left_out(tmp_path):
    path = tmp_path / "a.zarr"
    create_ome_zarr(path, (2, 40, 40), np.uint8, chunks=(1, 16, 16), levels=2)
    zarr.create_array(str(path / "1"), shape=(1, 20, 20), dtype="uint8", zarr_format=2, overwrite=True)
    ((data, said, _),) = read(path)
    assert (data.shape, said["multiscale"]) == ((2, 40, 40), False)
    zarr.create_array(str(path / "0"), shape=(1, 20, 20), dtype="uint8", zarr_format=2, overwrite=True)
    with pytest.raises(GeometryError, match="single slice"):
        read(path)


def test_a_view_is_indexed_as_an_array_and_reads_no_more_than_it_must():
    values = np.arange(4 * 5 * 6).reshape(4, 5, 6)
    read = []

    def fetch(box):
        read.append(values[box].size)
        return values[box]

    view = VolumeView(LazyVolume("a", values.shape, values.dtype, fetch))
    parts = (2, -1, slice(None), slice(1, 3), slice(4, None, -2), slice(3, 3), np.int64(1))
    for index in itertools.product(parts, repeat=3):
        np.testing.assert_array_equal(view[index], values[index])
    np.testing.assert_array_equal(view[1], values[1])
    np.testing.assert_array_equal(view[..., 2], values[..., 2])
    np.testing.assert_array_equal(view[1, ..., 2], values[1, ..., 2])
    read.clear()
    assert view[2, 1:4, 0].tolist() == values[2, 1:4, 0].tolist()
    assert read == [3]
    np.testing.assert_array_equal(view[:, [0, 2]], values[:, [0, 2]])
    np.testing.assert_array_equal(view[values > 50], values[values > 50])
    with pytest.raises(IndexError):
        view[4]


def test_other_files_are_left_to_others(plugins, tmp_path):
    from medwave.napari.stores import get_store_reader
    from medwave.napari.trees import get_tree_reader

    assert get_tree_reader("a.tif") is None
    assert get_store_reader(["a.zarr", "a.swc"]) is None
    assert not list(plugins.iter_compatible_readers([str(tmp_path / "a.tif")]))


def test_nothing_here_needs_napari_or_torch():
    program = "import sys, medwave.napari.stores, medwave.napari.trees\n"
    program += "print([m for m in ('napari', 'torch', 'monai', 'dask', 'npe2') if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"
