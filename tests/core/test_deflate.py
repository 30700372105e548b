"""Deflated bytes against Python's own gzip and zlib, and what is said about damaged ones."""

import gzip
import zlib

import numpy as np
import pytest

from medwave.core import deflate

VALUES = (np.random.default_rng(3).standard_normal(70_001).cumsum() / 64).round(2).astype(np.float32)


@pytest.fixture(params=["isal", "zlib"])
def either(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Both libraries: ISA-L, and zlib where there is no wheel of it."""
    if request.param == "zlib":
        monkeypatch.setattr(deflate, "_deflate", zlib)
    else:
        pytest.importorskip("isal")


def packed(*parts: bytes) -> bytes:
    packer = deflate.gzip_packer()
    return b"".join(packer.compress(part) for part in parts) + packer.flush()


@pytest.mark.usefixtures("either")
def test_gzip_reads_what_is_packed_in_parts_and_the_other_way_round() -> None:
    content = VALUES.tobytes()
    assert gzip.decompress(packed(content[:1001], content[1001:])) == content
    assert deflate.gunzip(gzip.compress(content)) == content
    assert deflate.gunzip(packed(content)) == content


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("sample", [VALUES[::9], VALUES[:0], np.zeros(5, np.float32)])
def test_gzip_reads_what_is_packed_by_a_sample(sample: np.ndarray) -> None:
    packer = deflate.NoisePacker(sample)
    whole = b"".join([packer.compress(bytes(352)), packer.compress(VALUES.data), packer.flush()])
    assert gzip.decompress(whole) == deflate.gunzip(whole) == bytes(352) + VALUES.tobytes()
    with pytest.raises(zlib.error):
        deflate.gunzip(whole[:-8] + bytes(8))  # the check sum


@pytest.mark.usefixtures("either")
def test_members_are_joined_and_zeros_after_them_ignored() -> None:
    assert deflate.gunzip(packed(b"one") + packed(b" two") + bytes(512)) == b"one two"


@pytest.mark.usefixtures("either")
def test_damaged_and_truncated_streams_are_errors_of_two_kinds() -> None:
    whole = packed(VALUES.tobytes())
    with pytest.raises(EOFError, match="before its end"):
        deflate.gunzip(whole[: len(whole) // 2])
    with pytest.raises(zlib.error):
        deflate.gunzip(whole[:10] + b"\xff" * 4000)
    with pytest.raises(zlib.error):
        deflate.gunzip(whole[:-8] + bytes(8))  # the check sum


@pytest.mark.usefixtures("either")
@pytest.mark.parametrize("count", [0, 1, 4096, len(VALUES)])
def test_a_shuffled_block_has_the_byte_planes_apart(count: int) -> None:
    packer = deflate.ShuffledPacker(VALUES[::7])
    planes = np.frombuffer(zlib.decompress(packer.block(VALUES[:count])), np.uint8).reshape(4, -1)
    np.testing.assert_array_equal(planes.T.copy().view(np.float32)[:, 0], VALUES[:count])
