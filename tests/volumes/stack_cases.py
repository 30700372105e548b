"""Small volumes to write and read, and what every refusal has in common."""

import contextlib
import resource

import numpy as np
import pytest
from hypothesis import strategies as st

from medwave.volumes.open import open_stack

DTYPES = ("uint8", "int8", "uint16", "int16", "uint32", "int32", "float32", "float64")


def volume(shape, dtype, seed=0):
    """Noise over the whole range of a type."""
    generator = np.random.default_rng(seed)
    kind = np.dtype(dtype)
    if kind.kind == "f":
        return generator.normal(size=shape).astype(kind)
    limits = np.iinfo(kind)
    return generator.integers(limits.min, limits.max, shape, dtype=kind, endpoint=True)


def shapes(most=12):
    return st.tuples(*[st.integers(2, most)] * 3)


@st.composite
def boxes(draw, shape):
    """A box inside a shape."""
    starts = [draw(st.integers(0, n - 1)) for n in shape]
    return tuple(slice(a, draw(st.integers(a + 1, n))) for a, n in zip(starts, shape, strict=True))


def reads_as(path, expected, box=None, **options):
    """Whether the whole and a box of it come back as written, in native byte order; gives the closed volume."""
    inner = tuple(slice(n // 3, n // 3 + max(1, n // 2)) for n in expected.shape) if box is None else box
    with open_stack(path, **options) as stack:
        assert stack.shape == expected.shape
        assert stack.dtype == expected.dtype
        for got, wanted in ((stack.read(), expected), (stack.read(inner), expected[inner])):
            np.testing.assert_array_equal(got, wanted)
            assert got.dtype.isnative
            assert got.flags.c_contiguous
            assert got.flags.owndata
    return stack


def refused(path, kind, pattern, **options):
    """One error of the right kind, on one line, that names the file."""
    with pytest.raises(kind, match=pattern) as caught:
        open_stack(path, **options).read()
    message = str(caught.value)
    assert path.name in message
    assert "\n" not in message
    return message


@contextlib.contextmanager
def full_disk(bytes_left):
    """Every file that grows beyond some bytes fails, as on a full disk."""
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (bytes_left, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
