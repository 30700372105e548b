"""OME-Zarr: round trips in both versions, the metadata as specified, laziness, pyramids, interruption, refusals."""

import json
import subprocess
import sys
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
import zarr
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from stack_cases import DTYPES, boxes, full_disk, reads_as, refused, shapes, volume

from medwave.core.errors import (
    GeometryError,
    InputError,
    MedwaveError,
    MissingFileError,
    MissingPackageError,
    OutputError,
    VolumeFormatError,
)
from medwave.volumes import OmeZarrImage, build_pyramid, create_ome_zarr, open_stack

WHOLE = (slice(None),) * 3


@pytest.fixture(params=["0.4", "0.5"])
def version(request):
    return request.param


def attributes(path):
    """What the metadata say about the image, whatever the version."""
    if (path / "zarr.json").exists():
        return json.loads((path / "zarr.json").read_text())["attributes"]["ome"]["multiscales"][0]
    return json.loads((path / ".zattrs").read_text())["multiscales"][0]


def change(path, edit):
    """Edit the metadata in place."""
    file = path / "zarr.json" if (path / "zarr.json").exists() else path / ".zattrs"
    content = json.loads(file.read_text())
    edit((content["attributes"]["ome"] if file.name == "zarr.json" else content)["multiscales"][0])
    file.write_text(json.dumps(content))


@settings(deadline=None, max_examples=20, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_blocks_that_are_written_come_back(tmp_path_factory, data):
    path = tmp_path_factory.mktemp("store") / "a.ome.zarr"
    shape = data.draw(shapes(14))
    values = volume(shape, data.draw(st.sampled_from(DTYPES)))
    version, chunks = data.draw(st.sampled_from(["0.4", "0.5"])), data.draw(st.tuples(*[st.integers(1, 9)] * 3))
    image = create_ome_zarr(path, shape, values.dtype, chunks=chunks, version=version)
    box = data.draw(boxes(shape))
    image.write(box, values[box])
    expected = np.zeros_like(values)
    expected[box] = values[box]
    np.testing.assert_array_equal(image.read(), expected)
    image.write(WHOLE, values)
    stack = reads_as(path, values, data.draw(boxes(shape)))
    assert stack.chunks == tuple(min(c, n) for c, n in zip(chunks, shape, strict=True))
    assert stack.spacing_um is None


def test_the_metadata_are_those_of_ngff(tmp_path, version):
    path = tmp_path / "cell.ome.zarr"
    create_ome_zarr(path, (20, 64, 48), "uint8", chunks=(16, 16, 16), spacing_um=(1.0, 0.25, 0.5), version=version)
    image = attributes(path)
    assert image["name"] == "cell"
    assert image["axes"] == [{"name": a, "type": "space", "unit": "micrometer"} for a in "zyx"]
    steps = [dataset["coordinateTransformations"] for dataset in image["datasets"]]
    assert [dataset["path"] for dataset in image["datasets"]] == ["0", "1", "2", "3"]
    scales = [1.0, 0.25, 0.5], [1.0, 0.5, 0.5], [1.0, 1.0, 1.0], [2.0, 1.0, 2.0]
    centres = [0.0, 0.0, 0.0], [0.0, 0.125, 0.0], [0.0, 0.375, 0.25], [0.5, 0.375, 0.75]
    for step, scale, centre in zip(steps, scales, centres, strict=True):
        assert step == [{"type": "scale", "scale": scale}, {"type": "translation", "translation": centre}]
    group = zarr.open_group(str(path), mode="r")
    assert group.metadata.zarr_format == (2 if version == "0.4" else 3)
    assert [group[str(n)].shape for n in range(4)] == [(20, 64, 48), (20, 32, 48), (20, 16, 24), (10, 16, 12)]
    if version == "0.4":
        assert image["version"] == "0.4"
        assert json.loads((path / "0" / ".zarray").read_text())["dimension_separator"] == "/"
    else:
        assert json.loads((path / "zarr.json").read_text())["attributes"]["ome"]["version"] == "0.5"
        assert group["1"].metadata.dimension_names == ("z", "y", "x")
    assert [list(open_stack(path, level=level).spacing_um) for level in range(4)] == list(scales)
    refused(path, InputError, "level 4 is asked for, the levels are 0 to 3", level=4)


def test_levels_lie_where_their_translations_say(tmp_path, version):
    path = tmp_path / "cell.ome.zarr"
    create_ome_zarr(path, (20, 64, 48), "uint8", chunks=(16, 16, 16), spacing_um=(1.0, 0.25, 0.5), version=version)
    offsets = [(0, 0, 0), (0, 0.25, 0), (0, 0.375, 0.25), (0.25, 0.375, 0.375)]
    assert [open_stack(path, level=level).offset_voxels for level in range(4)] == offsets
    assert open_stack(path, level=2, spacing_um=(3, 2, 1)).offset_voxels == offsets[2]

    def on_a_stage(image):
        steps = [{"type": "scale", "scale": [2.0] * 3}, {"type": "translation", "translation": [7.0, 8.0, 9.0]}]
        image["coordinateTransformations"] = steps
        image["datasets"][3]["coordinateTransformations"].pop()

    change(path, on_a_stage)
    assert open_stack(path, level=2).spacing_um == (2.0, 2.0, 2.0)
    assert [open_stack(path, level=level).offset_voxels for level in range(4)] == [*offsets[:3], (0, 0, 0)]
    change(path, lambda image: image["coordinateTransformations"][1].update(translation=[1.0]))
    refused(path, VolumeFormatError, "a translation has one number per axis")


def test_a_store_made_of_a_coarser_level_lies_on_the_others(tmp_path, version):
    offset = (0.25, 0.375, 0.0)
    options = {"chunks": (16, 16, 16), "spacing_um": (2.0, 4.0, 1.0), "offset_voxels": offset, "version": version}
    image = create_ome_zarr(tmp_path / "a.zarr", (20, 20, 40), "uint8", **options)
    levels = [level["coordinateTransformations"][1] for level in attributes(tmp_path / "a.zarr")["datasets"]]
    places = [level["translation"] for level in levels]
    assert places == [[0.5, 1.5, 0.0], [0.5, 1.5, 0.5], [1.5, 1.5, 1.5], [1.5, 3.5, 1.5]]
    assert image.offset_voxels == offset
    assert open_stack(tmp_path / "a.zarr").offset_voxels == (0, 0, 0)  # its own voxel 0 is the origin


@pytest.mark.parametrize("dtype", ["uint8", "int16", "float32"])
def test_a_pyramid_is_the_mean_or_the_maximum_of_what_each_voxel_covers(tmp_path, version, dtype):
    values = volume((9, 10, 7), dtype)
    wide = np.pad(values.astype(float), ((0, 1), (0, 0), (0, 1)), mode="edge").reshape(5, 2, 5, 2, 4, 2)
    path = tmp_path / "a.ome.zarr"
    create_ome_zarr(path, values.shape, dtype, chunks=(4, 4, 4), version=version, levels=2).write(WHOLE, values)
    build_pyramid(path)
    mean = wide.mean(axis=(1, 3, 5))
    np.testing.assert_allclose(open_stack(path, level=1).read(), np.rint(mean) if dtype != "float32" else mean, 1e-6)
    build_pyramid(path, method="max")
    np.testing.assert_array_equal(open_stack(path, level=1).read(), wide.max(axis=(1, 3, 5)))
    with pytest.raises(InputError, match='"mean" or "max"'):
        build_pyramid(path, method="median")


def test_every_level_holds_the_same_mass(tmp_path):
    values = volume((32, 64, 64), "float32") + 5
    create_ome_zarr(tmp_path / "a.zarr", values.shape, "float32", chunks=(8, 8, 8)).write(WHOLE, values)
    build_pyramid(tmp_path / "a.zarr")
    means = [open_stack(tmp_path / "a.zarr", level=n).read().mean() for n in range(4)]
    np.testing.assert_allclose(means, values.mean(), rtol=1e-5)


def test_memory_stays_at_a_few_chunks(tmp_path):
    image = create_ome_zarr(tmp_path / "a.zarr", (256, 256, 256), "uint8", chunks=(32, 32, 32))
    corner = volume((64, 64, 64), "uint8")
    for at in (0, 128, 192):
        image.write((slice(at, at + 64),) * 3, corner)
    build_pyramid(tmp_path / "a.zarr")
    tracemalloc.start()
    build_pyramid(tmp_path / "a.zarr")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 4e6  # the volume has 16.8 MB, eight chunks have 0.26
    coarse = open_stack(tmp_path / "a.zarr", level=2)
    assert coarse.shape == (64, 64, 64)
    assert coarse.read((slice(16, 32),) * 3).max() == 0
    assert coarse.read((slice(32, 48),) * 3).min() > 0


def test_a_cube_of_a_store_of_100_gb_touches_only_its_chunks(tmp_path, version):
    path = tmp_path / "a.zarr"
    image = create_ome_zarr(path, (4000, 5100, 5200), "uint8", chunks=(64, 64, 64), version=version, levels=1)
    cube = volume((128, 128, 128), "uint8")
    box = (slice(1920, 2048),) * 3
    image.write(box, cube)
    written = [p for p in (path / "0").rglob("*") if p.is_file() and not p.name.startswith((".z", "zarr"))]
    assert len(written) == 8
    for chunk in written:
        if chunk.name == "31":  # spoil one of the two layers of chunks along x
            chunk.write_bytes(b"garbage")
    tracemalloc.start()
    with open_stack(path) as stack:
        assert stack.nbytes > 100e9
        near = (slice(1930, 2040), slice(1930, 2040), slice(1921, 1984))
        np.testing.assert_array_equal(stack.read(near), cube[10:120, 10:120, 1:64])
        assert stack.read((slice(0, 64), slice(64, 128), slice(0, 64))).max() == 0
        with pytest.raises(VolumeFormatError, match=r"a\.zarr: the data of voxels .* cannot be decoded"):
            stack.read(box)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 8e6


def test_foreign_axes_channels_and_units(tmp_path, version):
    """Axes in any order, with time of length one, scales on both levels, in another unit."""
    values = volume((2, 5, 6, 7), "uint16")
    path = tmp_path / "a.zarr"
    create_ome_zarr(path, (5, 6, 7), "uint16", version=version)

    def rewrite(names, array, units, scale, both):
        old = version == "0.4"
        target = zarr.create_array(str(path / "0"), data=array, zarr_format=2 if old else 3, overwrite=True)
        assert target.shape == array.shape

        def edit(image):
            image["axes"] = [{"name": n, **({"unit": units[n]} if n in units else {})} for n in names]
            image["datasets"] = [{"path": "0", "coordinateTransformations": [{"type": "scale", "scale": scale}]}]
            image.pop("coordinateTransformations", None)
            if both:
                image["coordinateTransformations"] = [{"type": "scale", "scale": [2.0] * len(names)}]

        change(path, edit)

    units = {"z": "micrometer", "y": "nanometer", "x": "millimeter", "t": "second"}
    rewrite("tczyx", values[None], units, [9.0, 1.0, 2.0, 250.0, 0.0003], both=False)
    stack = reads_as(path, values[1], channel=1)
    assert stack.channels == 2
    assert stack.spacing_um == pytest.approx((2, 0.25, 0.3))
    refused(path, InputError, "channel 2 is asked for", channel=2)
    rewrite("xyzc", values.T, units, [0.0003, 250.0, 2.0, 1.0], both=True)
    assert reads_as(path, values[0]).spacing_um == pytest.approx((4, 0.5, 0.6))
    assert open_stack(path, spacing_um=(3, 2, 1)).spacing_um == (3, 2, 1)
    rewrite("xyzc", values.T, {"z": "micrometer"}, [0.3, 0.25, 2.0, 1.0], both=False)
    assert open_stack(path).spacing_um is None
    rewrite("tzyx", values, units, [1.0] * 4, both=False)
    refused(path, GeometryError, r"one volume is needed.*\(2, 5, 6, 7\), axes t,z,y,x; extract")
    rewrite("cyx", values[0], units, [1.0] * 3, both=False)
    refused(path, GeometryError, "axes z, y and x is needed.*stack its slices")
    rewrite("zyx", values[0], units, [0.0, 1.0, 1.0], both=False)
    refused(path, GeometryError, "three positive numbers of micrometres")
    assert open_stack(path, spacing_um=(3, 2, 1)).spacing_um == (3, 2, 1)
    rewrite("zyx", values[0], units, [1.0, 1.0], both=False)
    refused(path, VolumeFormatError, "one number per axis")
    rewrite("czyx", values[0], units, [1.0] * 4, both=False)
    refused(path, VolumeFormatError, "name 4 axes, the array has shape")


@pytest.mark.parametrize("names", ["xyz", "ZYX", "yzx", "abc"])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_the_axes_of_a_plain_array_are_those_that_it_names(tmp_path, zarr_format, names):
    values, path = volume((4, 5, 6), "uint16"), tmp_path / "a.zarr"
    order = ["zyx".index(name) for name in names.lower()] if names != "abc" else [0, 1, 2]
    named = {"dimension_names": tuple(names)} if zarr_format == 3 else {"attributes": {"_ARRAY_DIMENSIONS": [*names]}}
    zarr.create_array(str(path), data=values.transpose(order), zarr_format=zarr_format, **named)
    reads_as(path, values)


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_a_plain_array_is_a_volume_when_it_is_3d(tmp_path, zarr_format):
    values = volume((4, 5, 6), "float32")
    zarr.create_array(str(tmp_path / "a.zarr"), data=values, zarr_format=zarr_format)
    assert reads_as(tmp_path / "a.zarr", values).spacing_um is None
    refused(tmp_path / "a.zarr", InputError, "only channel 0", channel=1)
    refused(tmp_path / "a.zarr", InputError, "one resolution", level=1)
    for name, array, kind, pattern in (
        ("b.zarr", values[0], GeometryError, "stack its slices"),
        ("c.zarr", values > 0, VolumeFormatError, "these are bool"),
        ("d.zarr", values[:0], GeometryError, "empty"),
    ):
        zarr.create_array(str(tmp_path / name), data=array, zarr_format=zarr_format, chunks=(2,) * array.ndim)
        refused(tmp_path / name, kind, pattern)


def test_stores_that_are_no_image(tmp_path, version):
    refused(tmp_path / "gone.zarr", MissingFileError, "no such file or folder")
    (tmp_path / "empty.zarr").mkdir()
    refused(tmp_path / "empty.zarr", VolumeFormatError, r"metadata cannot be read \(no zarr\.json")
    zarr.create_group(str(tmp_path / "group.zarr"), zarr_format=2 if version == "0.4" else 3)
    refused(tmp_path / "group.zarr", VolumeFormatError, r"no multiscales; name the image inside it")
    path = tmp_path / "a.zarr"
    metadata = path / ("zarr.json" if version == "0.5" else ".zattrs")
    create_ome_zarr(path, (5, 6, 7), "uint8", version=version)
    change(path, lambda image: image.update(axes=[]))
    refused(path, VolumeFormatError, "name no axes")
    for text in ("{", "[]", '{"attributes": []}' if version == "0.5" else "3"):
        metadata.write_text(text)
        refused(path, VolumeFormatError, "metadata cannot be read")
    create_ome_zarr(path, (5, 6, 7), "uint8", version=version, overwrite=True)
    array = path / "0" / ("zarr.json" if version == "0.5" else ".zarray")
    array.write_text("{}")
    refused(path, VolumeFormatError, "not a usable zarr array")
    array.unlink()
    refused(path, VolumeFormatError, "array is missing from the store|No array found")


def scaled(scale):
    return {"coordinateTransformations": [{"type": "scale", "scale": scale}]}


@pytest.mark.parametrize(
    ("image", "level", "pattern"),
    [
        ({}, scaled(["a", 1, 1]), "a scale has one number per axis"),
        ({}, scaled({"z": 1}), "a scale has one number per axis"),
        ({}, scaled([float("nan"), 1, 1]), "a scale has one number per axis"),
        ({}, {"coordinateTransformations": ["scale"]}, "coordinateTransformations is a list of objects"),
        ({}, {"coordinateTransformations": {"type": "scale"}}, "coordinateTransformations is a list of objects"),
        (scaled(["a", 1, 1]), {}, "a scale has one number per axis"),
        ({"datasets": ["0"]}, {}, "datasets is a list of objects"),
        ({"datasets": {"path": "0"}}, {}, "datasets is a list of objects"),
        ({"datasets": [{}]}, {}, "each dataset has the path"),
        ({"axes": 3}, {}, "name no axes"),
        ({"axes": {"a": 1}}, {}, "name no axes"),
        ({"axes": [{"name": a, "unit": 3} for a in "zyx"]}, {}, "units are names, got 3"),
    ],
)
def test_metadata_of_another_form_are_named(tmp_path, version, image, level, pattern):
    create_ome_zarr(tmp_path / "a.zarr", (5, 6, 7), "uint8", version=version)
    change(tmp_path / "a.zarr", lambda there: (there["datasets"][0].update(level), there.update(image)))
    refused(tmp_path / "a.zarr", VolumeFormatError, pattern + ".*correct the metadata|name no axes")


@settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_damage_escapes_the_error_family(tmp_path, version, data):
    path = tmp_path / "fuzzed.zarr"
    image = create_ome_zarr(path, (3, 5, 6), "uint8", version=version, overwrite=True)
    image.write(WHOLE, volume((3, 5, 6), "uint8"))
    files = sorted(p for p in path.rglob("*") if p.is_file())
    target = data.draw(st.sampled_from(files))
    content = bytearray(target.read_bytes())
    for _ in range(data.draw(st.integers(1, 4))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    target.write_bytes(content)
    try:
        with open_stack(path) as stack:
            small = stack.nbytes < 1e6
            outcome = "fuzzed.zarr" if not small or stack.read().shape == stack.shape else "wrong shape"
    except MedwaveError as error:
        outcome = str(error)
    assert "fuzzed.zarr" in outcome


def test_what_cannot_be_written(tmp_path, version):
    path = tmp_path / "a.zarr"
    image = create_ome_zarr(path, (40, 50, 60), "uint16", chunks=(32, 32, 32), version=version)
    small = (slice(0, 2), slice(0, 3), slice(0, 4))
    for box, block, kind, pattern in (
        (small, np.zeros((2, 3, 5), "uint16"), InputError, r"a block of \(2, 3, 4\) uint16 is needed, got \(2, 3, 5\)"),
        (small, np.zeros((2, 3, 4), "float32"), InputError, "got .* float32"),
        ((slice(39, 41), *small[1:]), np.zeros((2, 3, 4), "uint16"), GeometryError, "inside the volume"),
    ):
        with pytest.raises(kind, match=pattern):
            image.write(box, block)
    with full_disk(5000), pytest.raises(OutputError, match=r"a\.zarr: cannot be written.*free space"):
        image.write(WHOLE, volume((40, 50, 60), "uint16"))
    with pytest.raises(OutputError, match="exists already; choose another name or ask to overwrite"):
        create_ome_zarr(path, (5, 6, 7), "uint8")
    (tmp_path / "notes").mkdir()
    with pytest.raises(OutputError, match=r"exists already; choose another name$"):
        create_ome_zarr(tmp_path / "notes", (5, 6, 7), "uint8", overwrite=True)
    with pytest.raises(OutputError, match=r"folder .*none does not exist"):
        create_ome_zarr(tmp_path / "none" / "a.zarr", (5, 6, 7), "uint8")
    with full_disk(100), pytest.raises(OutputError, match=r"b\.zarr: cannot be written"):
        create_ome_zarr(tmp_path / "b.zarr", (5, 6, 7), "uint8", version=version)
    for options, kind, pattern in (
        ({"shape": (5, 6)}, GeometryError, "stack its slices"),
        ({"shape": (5, 0, 6)}, GeometryError, "empty"),
        ({"dtype": "bool"}, VolumeFormatError, "integers or floats"),
        ({"chunks": (0, 4, 4)}, GeometryError, "chunks are three sizes"),
        ({"chunks": (4, 4)}, GeometryError, "chunks are three sizes"),
        ({"version": "0.1"}, InputError, '"0.4" or "0.5"'),
        ({"levels": 0}, InputError, "at least one level"),
        ({"spacing_um": (1, 0, 1)}, GeometryError, "three positive numbers"),
    ):
        with pytest.raises(kind, match=pattern):
            create_ome_zarr(**{"path": tmp_path / "c.zarr", "shape": (5, 6, 7), "dtype": "uint8", **options})
    assert not (tmp_path / "c.zarr").exists()
    zarr.create_array(str(tmp_path / "plain.zarr"), data=np.zeros((4, 5, 6)))
    with pytest.raises(InputError, match="this is a plain array"):
        OmeZarrImage(tmp_path / "plain.zarr")


WRITER = """
import sys
import numpy as np
from medwave.volumes import OmeZarrImage
image = OmeZarrImage(sys.argv[1])
print("ready", flush=True)
for turn in range(10**6):
    for z in range(0, 64, 16):
        image.write((slice(z, z + 16), slice(0, 64), slice(0, 64)), np.full((16, 64, 64), turn % 250 + 1, "uint8"))
"""


def test_a_killed_writer_leaves_whole_chunks_and_the_run_goes_on(tmp_path, version):
    path = tmp_path / "a.zarr"
    create_ome_zarr(path, (64, 64, 64), "uint8", chunks=(16, 64, 64), spacing_um=(2, 1, 1), version=version)
    writer = subprocess.Popen([sys.executable, "-c", WRITER, str(path)], stdout=subprocess.PIPE, text=True)
    assert writer.stdout.readline() == "ready\n"
    first = path / "0" / ("0/0/0" if version == "0.4" else "c/0/0/0")
    while not first.exists():
        assert writer.poll() is None
    writer.kill()
    writer.wait()
    writer.stdout.close()
    values = open_stack(path).read()
    for z in range(0, 64, 16):
        assert len(np.unique(values[z : z + 16])) == 1
    again = OmeZarrImage(path)
    assert (again.shape, again.chunks, again.spacing_um) == ((64, 64, 64), (16, 64, 64), (2, 1, 1))
    again.write(WHOLE, np.full((64, 64, 64), 7, "uint8"))
    build_pyramid(path)
    assert np.unique(open_stack(path).read()).tolist() == [7]


def test_without_zarr_only_zarr_is_missing(tmp_path, monkeypatch):
    create_ome_zarr(tmp_path / "a.zarr", (5, 6, 7), "uint8")
    monkeypatch.setitem(sys.modules, "zarr", None)
    for use in (
        lambda: open_stack(tmp_path / "a.zarr"),
        lambda: create_ome_zarr(tmp_path / "b.zarr", (5, 6, 7), "uint8"),
        lambda: OmeZarrImage(tmp_path / "a.zarr"),
        lambda: build_pyramid(tmp_path / "a.zarr"),
    ):
        with pytest.raises(MissingPackageError, match=r'the package "zarr": pip install "medwave\[large'):
            use()
    assert not (tmp_path / "b.zarr").exists()


def test_other_formats_never_import_zarr(tmp_path):
    code = (
        "import sys; sys.modules['zarr'] = None\n"
        "import numpy as np\n"
        "from medwave.volumes import open_stack, write_v3draw\n"
        f"write_v3draw({str(tmp_path / 'a.v3draw')!r}, np.ones((2, 3, 4), np.uint8))\n"
        f"print(open_stack({str(tmp_path / 'a.v3draw')!r}).read().sum(), 'torch' in sys.modules)\n"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True).stdout == "24 False\n"


def test_reading_equals_ome_zarr_py(tmp_path, version):
    """The reference implementation finds our image, its axes and its scales."""
    reference = pytest.importorskip("ome_zarr.reader", reason="the reference reader (ome-zarr-py) is not installed")
    from ome_zarr.io import parse_url

    values = volume((9, 20, 30), "uint16")
    path = tmp_path / "a.ome.zarr"
    create_ome_zarr(path, values.shape, "uint16", chunks=(8, 8, 8), spacing_um=(2, 0.5, 0.25), version=version).write(
        WHOLE, values
    )
    build_pyramid(path)
    node = next(iter(reference.Reader(parse_url(str(path)))()))
    np.testing.assert_array_equal(np.asarray(node.data[0]), values)
    for level, data in enumerate(node.data):
        stack = open_stack(path, level=level)
        np.testing.assert_array_equal(np.asarray(data), stack.read())
        assert node.metadata["coordinateTransformations"][level][0]["scale"] == list(stack.spacing_um)
    assert [axis["name"] for axis in node.metadata["axes"]] == ["z", "y", "x"]
    assert Path(path).is_dir()
