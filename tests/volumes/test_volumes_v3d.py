"""Vaa3D's formats: the layout byte by byte, round trips, the packed vectors, and every damaged file."""

import os
import pickle
import struct
import tracemalloc

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pbd_encoder import encode
from stack_cases import boxes, full_disk, reads_as, refused, shapes, volume

from medwave.core.errors import (
    GeometryError,
    InputError,
    MedwaveError,
    MissingFileError,
    OutputError,
    VolumeFormatError,
)
from medwave.volumes.open import open_stack
from medwave.volumes.stack import LazyVolume
from medwave.volumes.v3dpbd import CUT_SHORT, DONE, OVERRUN, decode
from medwave.volumes.v3draw import write_v3draw

RAW, PACKED = b"raw_image_stack_by_hpeng", b"v3d_volume_pkbitdf_encod"
VECTOR_8, VALUES_8 = bytes.fromhex("020A141E24E48307"), [10, 20, 30, 30, 31, 33, 32, 7, 7, 7, 7]
VECTOR_16, VALUES_16 = bytes.fromhex("00E8032134"), [1000, 1001, 1000]
ANY_PATH = settings(deadline=None, max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])


def header(magic, order, width, xyzc, sizes="4i"):
    return magic + (b"L" if order == "<" else b"B") + struct.pack(order + "h" + sizes, width, *xyzc)


def unpack(stream, dtype, voxels, **channel):
    values, outcome = decode(np.frombuffer(stream, np.uint8), np.dtype(dtype), voxels, **channel)
    return values.tolist(), outcome


@ANY_PATH
@given(st.data())
def test_a_written_volume_comes_back(tmp_path, data):
    shape = data.draw(shapes())
    values = volume(shape, data.draw(st.sampled_from(["uint8", "uint16", "float32"])))
    order = data.draw(st.sampled_from(["little", "big"]))
    write_v3draw(tmp_path / "a.v3draw", values, byte_order=order)
    reads_as(tmp_path / "a.v3draw", values, data.draw(boxes(shape)))
    assert (tmp_path / "a.v3draw").read_bytes()[24:25] == (b"L" if order == "little" else b"B")


@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("sizes", ["4i", "4h"])
@pytest.mark.parametrize("ending", ["v3draw", "raw", "vaa3draw"])
def test_the_layout_on_disk(tmp_path, order, sizes, ending):
    path = tmp_path / f"a.{ending}"
    x, y, z, c = 5, 4, 3, 2
    voxels = [100 * n + 7 for n in range(x * y * z * c)]
    path.write_bytes(header(RAW, order, 2, (x, y, z, c), sizes) + struct.pack(f"{order}{len(voxels)}H", *voxels))
    for channel in range(c):
        expected = np.array(voxels, np.uint16).reshape(c, z, y, x)[channel]
        stack = reads_as(path, expected, channel=channel)
        assert stack.channels == c
        assert stack.spacing_um is None


def test_what_is_written_is_the_documented_layout(tmp_path):
    write_v3draw(tmp_path / "a.v3draw", np.arange(24, dtype=np.uint16).reshape(2, 3, 4), byte_order="big")
    expected = header(RAW, ">", 2, (4, 3, 2, 1)) + struct.pack(">24H", *range(24))
    assert (tmp_path / "a.v3draw").read_bytes() == expected


def test_channels_and_open_volumes_are_written(tmp_path, monkeypatch):
    values = volume((2, 5, 6, 7), "uint8")
    monkeypatch.setattr("medwave.volumes.v3draw.SLAB_BYTES", 100)
    write_v3draw(tmp_path / "two.v3draw", values)
    reads_as(tmp_path / "two.v3draw", values[1], channel=1)
    with open_stack(tmp_path / "two.v3draw", channel=1) as one:
        write_v3draw(tmp_path / "one.v3draw", one)
    reads_as(tmp_path / "one.v3draw", values[1])


def test_the_given_vectors():
    assert unpack(VECTOR_8, "u1", 11) == (VALUES_8, DONE)
    assert unpack(VECTOR_16, "<u2", 3) == (VALUES_16, DONE)
    assert unpack(bytes.fromhex("0003E82134"), ">u2", 3) == (VALUES_16, DONE)


def test_differences_carry_over_runs_and_wrap():
    assert unpack(bytes([0x21, 3]), "u1", 1) == ([255], DONE)  # one difference of -1 from the first prior, 0
    assert unpack(bytes([0x80, 9, 0x21, 1]), "u1", 2) == ([9, 10], DONE)
    assert unpack(bytes([0xDF, 9, 0, 0x20, 0b10100000]), "<u2", 2) == ([9, 8], DONE)  # 3 bits, 101: 4 - 5


@settings(deadline=None, max_examples=60)
@given(st.data())
def test_packed_streams_of_every_kind_of_run(data):
    itemsize = data.draw(st.sampled_from([1, 2]))
    order = data.draw(st.sampled_from(["little", "big"]))
    top = 256**itemsize - 1
    steps = data.draw(st.lists(st.one_of(st.integers(-17, 18), st.just(0), st.integers(-top, top)), min_size=4))
    values = [int(v) for v in np.clip(np.cumsum(steps), 0, top)]
    values += data.draw(st.lists(st.just(values[-1]), max_size=140))
    values = values[: len(values) // 2 * 2]
    stream = encode(values, itemsize, order, data.draw(st.integers(0, 99)))
    dtype = np.dtype(f"u{itemsize}").newbyteorder(order)
    assert unpack(stream, dtype, len(values)) == (values, DONE)
    half = len(values) // 2
    assert unpack(stream, dtype, half, channel=1, channels=2) == (values[half:], DONE)
    assert unpack(stream[:-1], dtype, len(values))[1] == CUT_SHORT
    assert unpack(stream, dtype, len(values) + 1)[1] == CUT_SHORT
    assert unpack(stream, dtype, len(values) - 1)[1] == OVERRUN
    assert unpack(stream + b"\0", dtype, len(values))[1] == OVERRUN


@pytest.mark.parametrize(("dtype", "order"), [("uint8", "<"), ("uint8", ">"), ("uint16", "<"), ("uint16", ">")])
def test_packed_files(tmp_path, dtype, order):
    walk = np.random.default_rng(1).integers(-5, 6, (2, 4, 5, 6)).cumsum(axis=3) + 100
    values = walk.astype(dtype)
    path = tmp_path / "a.v3dpbd"
    width = values.dtype.itemsize
    stream = encode(values.ravel().tolist(), width, "little" if order == "<" else "big", 0)
    path.write_bytes(header(PACKED, order, width, (6, 5, 4, 2)) + stream)
    for channel in (0, 1):
        assert reads_as(path, values[channel], channel=channel).channels == 2
    refused(path, InputError, "channel 2 is asked for, the file has channels 0 to 1", channel=2)
    path.write_bytes(path.read_bytes()[:-1])
    refused(path, VolumeFormatError, "truncated")
    path.write_bytes(header(PACKED, order, width, (6, 5, 4, 2)) + stream + b"\0\0")
    refused(path, VolumeFormatError, "overruns")


def test_unusable_files(tmp_path):
    payload = bytes(24)
    good = header(RAW, "<", 1, (4, 3, 2, 1)) + payload
    cases = {
        "empty": (b"", VolumeFormatError, "not a v3draw"),
        "magic": (b"x" + good[1:], VolumeFormatError, "not a v3draw"),
        "text": (b"hello " * 20, VolumeFormatError, "not a v3draw"),
        "head": (good[:30], VolumeFormatError, "ends within the header"),
        "order": (good[:24] + b"X" + good[25:], VolumeFormatError, "neither L nor B"),
        "width": (header(RAW, "<", 3, (4, 3, 2, 1)) + payload, VolumeFormatError, "1, 2 or 4 bytes.*says 3"),
        "short": (good[:-1], VolumeFormatError, "truncated: 67 bytes.*66 there"),
        "long": (good + b"\0", VolumeFormatError, "longer than its header"),
        "none": (header(RAW, "<", 1, (4, 3, 0, 1)), GeometryError, "empty"),
        "minus": (header(RAW, "<", 1, (-4, -3, 2, 1)) + payload, GeometryError, "empty"),
        "flat": (header(RAW, "<", 1, (4, 6, 1, 1)) + payload, GeometryError, "single slice.*stack its slices"),
        "old": (b"v3d_stack_pkbit_by_gene1" + good[24:], VolumeFormatError, "older packed variant.*save it in Vaa3D"),
        "float": (header(PACKED, "<", 4, (4, 3, 2, 1)) + payload, VolumeFormatError, "8 or 16 bits.*says 32"),
        "huge": (header(PACKED, "<", 1, (1 << 20, 1 << 20, 1 << 10, 1)) + payload, VolumeFormatError, "truncated"),
        "void": (header(PACKED, "<", 1, (4, 3, 0, 1)) + payload, GeometryError, "empty"),
        "plane": (header(PACKED, "<", 1, (4, 3, 1, 1)) + bytes([139, 1]), GeometryError, "single slice"),
    }
    for name, (content, kind, pattern) in cases.items():
        (tmp_path / f"{name}.v3draw").write_bytes(content)
        refused(tmp_path / f"{name}.v3draw", kind, pattern)
    refused(tmp_path / "gone.v3draw", MissingFileError, "no such file")
    refused(tmp_path / "flat.v3draw", InputError, "only channel 0", channel=1)
    refused(tmp_path / "flat.v3draw", InputError, "only an OME-Zarr has resolution levels", level=1)
    refused(tmp_path / "flat.v3draw", InputError, "axes are given for TIFF", axes="ZYX")


@settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_no_damage_escapes_the_error_family(tmp_path, data):
    magic = data.draw(st.sampled_from([RAW, PACKED]))
    content = bytearray(header(magic, "<", 1, (4, 3, 2, 1)) + bytes([151, 1] if magic == PACKED else 24))
    for _ in range(data.draw(st.integers(1, 3))):
        content[data.draw(st.integers(0, len(content) - 1))] = data.draw(st.integers(0, 255))
    (tmp_path / "fuzzed.v3draw").write_bytes(content)
    try:
        outcome = "fuzzed.v3draw" if open_stack(tmp_path / "fuzzed.v3draw").read().size == 24 else "wrong size"
    except MedwaveError as error:
        outcome = str(error)
    assert "fuzzed.v3draw" in outcome


def test_what_cannot_be_written(tmp_path):
    target = tmp_path / "a.v3draw"
    target.write_bytes(b"older")
    for values, kind, pattern in (
        (volume((3, 4, 5), "int16"), InputError, "uint8, uint16 or float32, got int16"),
        (volume((3, 4), "uint8"), GeometryError, "stack its slices"),
        (volume((1, 4, 5), "uint8"), GeometryError, "single slice"),
    ):
        with pytest.raises(kind, match=pattern):
            write_v3draw(target, values)
    with pytest.raises(OutputError, match="end the name so"):
        write_v3draw(tmp_path / "a.tif", volume((3, 4, 5), "uint8"))
    with pytest.raises(InputError, match="little"):
        write_v3draw(target, volume((3, 4, 5), "uint8"), byte_order="native")
    with full_disk(2000), pytest.raises(OutputError, match=r"a\.v3draw: cannot be written.*free space"):
        write_v3draw(target, volume((20, 30, 40), "uint8"))
    assert target.read_bytes() == b"older"
    assert list(tmp_path.iterdir()) == [target]


def test_a_cube_of_a_file_of_100_gb_touches_only_itself(tmp_path):
    path = tmp_path / "sparse.v3draw"
    z, y, x = 2000, 7000, 7200
    with path.open("wb") as file:
        file.write(header(RAW, "<", 1, (x, y, z, 1)))
        file.seek(43 + (1500 * y + 6000) * x + 7000)
        file.write(b"\x2a")
    os.truncate(path, 43 + z * y * x)
    tracemalloc.start()
    with open_stack(path) as stack:
        assert stack.nbytes > 100e9
        cube = stack.read((slice(1490, 1510), slice(5990, 6010), slice(6990, 7010)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert np.argwhere(cube).tolist() == [[10, 10, 10]]
    assert cube.max() == 42
    assert peak < 1e6


def test_boxes_lie_inside_the_volume(tmp_path):
    stack = LazyVolume.from_array(volume((4, 5, 6), "uint8"), name="a.v3draw")
    every = slice(None)
    for box in (
        (slice(0, 5), every, every),
        (slice(-1, 3), every, every),
        (slice(2, 2), every, every),
        (slice(0, 4, 2), every, every),
        (every, every),
    ):
        with pytest.raises(GeometryError, match=r"a\.v3draw: a box"):
            stack.read(box)


def test_closing_and_going_to_another_process(tmp_path):
    values = volume((4, 5, 6), "float32")
    write_v3draw(tmp_path / "a.v3draw", values)
    stack = open_stack(tmp_path / "a.v3draw", spacing_um=(2, 0.5, 0.25))
    packed = pickle.dumps(stack)
    assert len(packed) < 1000
    again = pickle.loads(packed)
    np.testing.assert_array_equal(again.read(), values)
    assert again.spacing_um == stack.spacing_um == (2, 0.5, 0.25)
    stack.close()
    stack.close()
    with pytest.raises(InputError, match="closed; open it again"):
        stack.read()
    with pytest.raises(TypeError, match="opened from a file"):
        pickle.dumps(LazyVolume.from_array(values))


@pytest.mark.parametrize("spacing_um", [(1, 1), (0, 1, 1), (-1, 1, 1), (float("nan"), 1, 1), (float("inf"), 1, 1)])
def test_voxel_sizes_are_positive(tmp_path, spacing_um):
    write_v3draw(tmp_path / "a.v3draw", volume((4, 5, 6), "uint8"))
    refused(tmp_path / "a.v3draw", GeometryError, "three positive numbers of micrometres", spacing_um=spacing_um)
