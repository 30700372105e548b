"""The Triton kernels of the refinement in Triton's own interpreter, beside the compiled loops: run by
``test_gpu_loops.py`` in a process of its own.

The interpreter is chosen when kernels are imported (``TRITON_INTERPRET=1``) and holds for the whole process.
"""

import os

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage

from medwave.engine import gpu_loops, gpu_sampling
from medwave.engine.gpu_loops import TritonLoops
from medwave.engine.loops import CONVERGENCE, CpuLoops, Level, converged
from medwave.engine.refine import refine
from medwave.fields.kernels import determinants

if os.environ.get("TRITON_INTERPRET") != "1":
    pytest.skip("needs TRITON_INTERPRET=1 before kernels are imported", allow_module_level=True)

SHAPE = (6, 7, 9)
shapes = st.tuples(*[st.integers(2, 10)] * 3)


@pytest.fixture(autouse=True, scope="module")
def few_programs():
    """Long marches and large blocks: the interpreter pays per program."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(gpu_loops, "PROGRAMS", 1)
        patch.setattr(gpu_loops, "TILE", (8, 16))
        patch.setattr(gpu_loops, "BLOCK", 1024)
        yield


def noise(*shape, seed=0, size=1.0):
    return (size * np.random.default_rng(seed).normal(size=shape)).astype(np.float32)


def image(shape=SHAPE, seed=0):
    values = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 1.2)
    return ((values - values.min()) / np.ptp(values)).astype(np.float32)


def on_both(job):
    """A job's result on compiled loops and on interpreted kernels."""
    return [loops.download(job(loops)) for loops in (CpuLoops(), TritonLoops(torch.device("cpu")))]


@pytest.mark.parametrize(
    ("sigma", "shape"), [(0.0, SHAPE), (0.37, (2, 9, 18)), (0.7, SHAPE), (1.0, (9, 3, 5)), (1.5, SHAPE)]
)
def test_smoothing(sigma, shape):
    def job(loops):
        out = loops.empty(3, *shape)
        loops.smooth(loops.upload(noise(3, *shape)), sigma, out)
        return out

    np.testing.assert_allclose(*on_both(job), atol=1e-6)


@settings(deadline=None, max_examples=6)
@given(shapes, st.floats(0, 8))
def test_warping(shape, size):
    def job(loops):
        out = loops.empty(*shape)
        field = noise(3, *shape, seed=1, size=size)
        field[0, 0, 0, 0] = np.nan
        loops.warp(loops.upload(noise(*shape)), loops.upload(field), out)
        return out

    np.testing.assert_allclose(*on_both(job), atol=1e-4)


@settings(deadline=None, max_examples=6)
@given(shapes, st.floats(-1, 1))
def test_composition(shape, scale):
    def job(loops):
        out = loops.empty(3, *shape)
        outer, inner = (loops.upload(noise(3, *shape, seed=s, size=3.0)) for s in (0, 1))
        inner[:, 1:] = 0
        loops.compose(outer, inner, scale, out)
        return out

    np.testing.assert_allclose(*on_both(job), atol=2e-4)


@pytest.mark.parametrize("shape", [SHAPE, (2, 9, 18)])
def test_folds(shape):
    field = noise(3, *shape, size=0.5)
    expected = determinants(field) < 0.01
    found = TritonLoops(torch.device("cpu")).folded(torch.from_numpy(field), 0.01).numpy()
    assert (found != expected).mean() < 0.002  # a determinant of 0.01 may round to either side
    assert expected.any()


@pytest.mark.parametrize(
    ("metric", "radius", "fused", "limit"),
    [("lncc", 1, 4, 1.5), ("lncc", 2, 0, 0.1), ("lncc", 2, 4, np.inf), ("lncc", 4, 0, np.inf)]
    + [("curve", r, f, np.inf) for r, f in ((1, 4), (2, 0), (2, 4), (4, 0))],
)
def test_similarity_and_force(metric, radius, fused, limit, monkeypatch):
    monkeypatch.setattr(gpu_loops, "FUSED_RADIUS", fused)
    fixed, warped, weight = image(seed=0), 0.5 * image(seed=0) + 0.5 * image(seed=1), image(seed=2)
    values = []

    def job(loops):
        out = loops.empty(3, *SHAPE)
        similarity = loops.similarity(metric, loops.upload(fixed), loops.upload(weight), radius, limit)
        values.append(similarity.force(loops.upload(warped), out))
        return out

    expected, found = on_both(job)
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())
    assert values[1] == pytest.approx(values[0], rel=1e-4)


@pytest.mark.parametrize("shape", [(2, 3, 4), (3, 10, 17)])
def test_force_on_any_shape(shape):
    def job(loops):
        out = loops.empty(3, *shape)
        weight = loops.upload(np.ones(shape, dtype=np.float32))
        similarity = loops.similarity("lncc", loops.upload(image(shape, 0)), weight, 2)
        similarity.force(loops.upload(image(shape, 1)), out)
        return out

    expected, found = on_both(job)
    np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())


def test_many_programs_march_as_one(monkeypatch):
    field = torch.from_numpy(noise(3, 5, 9, 10))
    loops, found = TritonLoops(torch.device("cpu")), []
    for programs, tile in ((1, (16, 16)), (8, (8, 8))):
        monkeypatch.setattr(gpu_loops, "PROGRAMS", programs)
        monkeypatch.setattr(gpu_loops, "TILE", tile)
        found.append(torch.empty_like(field))
        loops.smooth(field, 0.37, found[-1])
    assert gpu_loops.Tiling((5, 9, 10)).count == 8
    torch.testing.assert_close(*found, rtol=0, atol=1e-6)


@pytest.mark.parametrize("metric", ["lncc", "curve"])
def test_a_whole_refinement(metric):
    shape = (8, 9, 10)
    fixed, moving = image(shape, 0), image(shape, 1)
    excluded = np.zeros(shape, dtype=bool)
    excluded[:2, :2, :2] = True
    levels = (Level(2, 2, 1.0, 0.37), Level(1, 1, 0.7, 0.37))
    seen = []
    same = {"metric": metric, "excluded": excluded, "radius_voxels": 1}
    plain = refine(fixed, moving, levels, **same)
    ours = {"loops": TritonLoops(torch.device("cpu")), "report": seen.append}
    found = refine(fixed, moving, levels, **same, **ours)
    assert [len(h) for h in found.similarity] == [len(h) for h in plain.similarity]
    assert [p.similarity for p in seen] == [value for h in found.similarity for value in h]
    for ours, theirs in zip(found.similarity, plain.similarity, strict=True):
        assert ours == pytest.approx(theirs, rel=1e-3)
    apart = np.linalg.norm(found.displacement_voxels - plain.displacement_voxels, axis=0)
    assert apart.max() < 0.02
    assert np.linalg.norm(plain.displacement_voxels, axis=0).max() > 0.3


@settings(deadline=None, max_examples=15)
@given(st.lists(st.sampled_from([0.5, 0.50001, 0.5001, 0.501]), min_size=26, max_size=26), st.integers(0, 40))
def test_it_stops_where_the_compiled_loops_do(values, still):
    """By the test of convergence, or where nothing moves; then nothing changes any more."""
    history, state, scale = torch.zeros(32, dtype=torch.float64), torch.zeros(8, dtype=torch.int32), torch.zeros(1)
    expected: list[float] = []
    for iteration, value in enumerate(values):
        longest = torch.tensor([0.0, 0.0 if iteration == still else 4.0])
        gpu_sampling.advance[(1,)](
            torch.tensor([0.25, value - 0.25]).double(), 2, longest, 2, history, state, scale, 0.5,
            WINDOW=CONVERGENCE[0], TOLERANCE=CONVERGENCE[1], LENGTH=32, BLOCK=16, num_warps=1,
        )  # fmt: skip
        stopped = bool(expected) and (converged(expected) or len(expected) > still)
        expected += [] if stopped else [value]
        assert state[0] == len(expected)
        assert history[: len(expected)].tolist() == pytest.approx(expected, rel=1e-6)
        assert iteration == still or scale.item() == 0.25
    assert state[4] == (converged(expected) or len(expected) > still)


def test_a_closed_gate_keeps_the_field():
    loops, field = TritonLoops(torch.device("cpu")), torch.from_numpy(noise(3, *SHAPE))
    out, longest = torch.ones_like(field), torch.zeros(gpu_loops.Tiling(SHAPE).count)
    loops.smooth_gated(field, 0.37, out, torch.ones(1, dtype=torch.int32), longest, None)
    assert (out == 1).all()
    loops.smooth(field, 0.37, out)
    assert longest.max().sqrt().item() == pytest.approx(loops.largest_length(out), rel=1e-6)


def test_what_cannot_move_ends_at_once():
    shape = (4, 5, 6)
    flat = np.zeros(shape, dtype=np.float32)
    found = refine(
        flat, image(shape), (Level(1, 3, 0.4, 0.3),), radius_voxels=1, loops=TritonLoops(torch.device("cpu"))
    )
    assert found.similarity == [[0.0]]
    assert np.abs(found.displacement_voxels).max() == 0
