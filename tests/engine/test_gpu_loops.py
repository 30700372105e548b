"""The refinement on a GPU: its kernels in Triton's interpreter, in its compiler, and on a GPU where there is one.

The interpreter runs in processes of its own (``gpu_cases.py``), so that nothing else here is interpreted.
"""

import importlib.util
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy import ndimage

from medwave.engine.loops import CpuLoops, Level
from medwave.engine.refine import refine

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="the package triton is absent (it is made for Linux x86-64)"
)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize(
    "part",
    ["smoothing or warping or composition or folds or march or stops or gate or move", "force", "whole"],
)  # fmt: skip
def test_kernels_in_the_interpreter(part: str) -> None:
    cases = Path(__file__).with_name("gpu_cases.py")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", str(cases), "-q", "-p", "no:xdist", "-p", "no:cacheprovider", "-k", part],
        env={**os.environ, "TRITON_INTERPRET": "1"},
        capture_output=True,
        text=True,
        check=False,
        timeout=1800,
    )
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]
    assert " passed" in done.stdout
    assert "skipped" not in done.stdout


TYPES = {
    torch.float32: "*fp32", torch.float64: "*fp64", torch.int32: "*i32", torch.uint8: "*u8", torch.int64: "*i64"
}  # fmt: skip


class Compiler:
    """Stands where a kernel stands: compiles for sm_90 with the arguments of each launch instead of launching."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel
        self.built: dict[str, Any] = {}

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        return self.launch

    def launch(self, *arguments: Any, num_warps: int, **constants: Any) -> None:
        import triton
        from triton.backends.compiler import GPUTarget

        names = self.kernel.arg_names
        signature = dict.fromkeys(constants, "constexpr")
        aligned = {}
        for name, value in zip(names, arguments, strict=False):
            if isinstance(value, torch.Tensor):
                signature[name] = TYPES[value.dtype]
                aligned[(names.index(name),)] = [["tt.divisibility", 16]]
            else:
                signature[name] = "fp32" if isinstance(value, float) else "i32"
        key = str((signature, constants, num_warps))
        if key in self.built:
            return
        source = triton.compiler.ASTSource(
            self.kernel,
            signature={name: signature[name] for name in names},
            constexprs={(names.index(name),): value for name, value in constants.items()},
            attrs=aligned,
        )
        target = GPUTarget("cuda", 90, 32)
        self.built[key] = triton.compile(source, target=target, options={"num_warps": num_warps})


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize("metric", ["lncc", "curve"])
def test_kernels_compile_without_a_gpu(metric: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    from medwave.engine import gpu_curve, gpu_filters, gpu_lncc, gpu_run, gpu_sampling
    from medwave.engine.gpu_loops import TritonLoops
    from medwave.engine.refine import CompositiveRun

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    forces = gpu_lncc if metric == "lncc" else gpu_curve
    compilers = []
    for module, names in (
        (gpu_filters, ("filter_rows", "smooth_field")), (gpu_sampling, ("warp", "compose", "folded", "advance")),
        (forces, ("moments", "coefficients", "force")),
    ):  # fmt: skip
        for name in names:
            compilers.append(Compiler(getattr(module, name)))
            monkeypatch.setattr(module, name, compilers[-1])
    loops, field = TritonLoops(torch.device("cpu")), torch.zeros(3, 5, 6, 7)
    for radius in (2, 4):
        run = CompositiveRun(loops, Level(1, 24, 1.0, 0.37), metric, radius, 0.5, *torch.zeros(3, 5, 6, 7))
        gpu_run._Queue(loops, run, field).iteration()
    loops.folded(field, 0.01)
    for compiler in compilers:
        assert compiler.built
        for kernel in compiler.built.values():
            assert len(kernel.asm["cubin"]) > 0
            assert ".local" not in kernel.asm["ptx"]  # nothing spills to memory before registers are given out


def image(shape: tuple[int, ...], seed: int) -> Any:
    values = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=shape), 2.0)
    return ((values - values.min()) / np.ptp(values)).astype(np.float32)


@needs_triton
@needs_gpu
@pytest.mark.parametrize("metric", ["lncc", "curve", "mi"])
def test_on_a_gpu_a_refinement_gives_the_numbers_of_the_compiled_loops(metric: str) -> None:
    """The documented tolerance: similarities within a thousandth, fields within 0.05 voxel, 0.002 in the mean."""
    from medwave.engine.gpu_loops import TritonLoops
    from medwave.engine.torch_loops import TorchLoops

    shape = (61, 70, 83)
    fixed, moving = image(shape, 0), 0.7 * image(shape, 0) + 0.3 * image(shape, 1)
    moving = np.roll(moving, 1, axis=1)
    levels = (Level(4, 30, 1.5, 0.6), Level(2, 30, 1.2, 0.45), Level(1, 12, 1.0, 0.37))
    plain = refine(fixed, moving, levels, metric=metric, loops=CpuLoops())
    assert np.linalg.norm(plain.displacement_voxels, axis=0).max() > 0.5
    for loops in (TritonLoops(torch.device("cuda")), TorchLoops(torch.device("cuda"))):
        found = refine(fixed, moving, levels, metric=metric, loops=loops)
        assert [len(h) for h in found.similarity] == [len(h) for h in plain.similarity]
        for ours, theirs in zip(found.similarity, plain.similarity, strict=True):
            assert ours == pytest.approx(theirs, rel=1e-3)
        apart = np.linalg.norm(found.displacement_voxels - plain.displacement_voxels, axis=0)
        assert apart.max() < 0.05
        assert apart.mean() < 0.002


@needs_triton
@needs_gpu
@pytest.mark.parametrize("radius", [1, 2, 3, 4])
@pytest.mark.parametrize("metric", ["lncc", "curve"])
def test_on_a_gpu_each_operation_agrees(metric: str, radius: int) -> None:
    from medwave.engine.gpu_loops import TritonLoops

    shape = (33, 41, 37)
    fixed, warped, weight = image(shape, 0), 0.5 * image(shape, 0) + 0.5 * image(shape, 1), image(shape, 2)
    field = np.stack([4 * image(shape, seed) - 2 for seed in (3, 4, 5)])
    results, values = [], []
    for loops in (CpuLoops(), TritonLoops(torch.device("cuda"))):
        out, image_out, composed, smoothed = (loops.empty(*s, *shape) for s in ((3,), (), (3,), (3,)))
        similarity = loops.similarity(metric, loops.upload(fixed), loops.upload(weight), radius, 1.5)
        values.append(similarity.force(loops.upload(warped), out))
        loops.warp(loops.upload(fixed), loops.upload(field), image_out)
        loops.compose(loops.upload(field), loops.upload(field[::-1]), 0.3, composed)
        loops.smooth(composed, (0.37, 0.7, 1.0, 1.5)[radius - 1], smoothed)
        results.append([loops.download(a) for a in (out, image_out, composed, smoothed)])
        values.append(loops.largest_length(smoothed))
    for expected, found in zip(*results, strict=True):
        np.testing.assert_allclose(found, expected, atol=1e-3 * np.abs(expected).max())
    assert values[2:] == pytest.approx(values[:2], rel=1e-4)


@needs_triton
@needs_gpu
def test_on_a_gpu_memory_is_bounded_and_what_it_gives_does_not_change() -> None:
    from medwave.engine.gpu_loops import TritonLoops

    shape = (96, 104, 88)
    fixed, moving = image(shape, 0), np.roll(image(shape, 0), 1, axis=0)
    levels = (Level(2, 12, 1.2, 0.45), Level(1, 8, 1.0, 0.37))
    loops = TritonLoops(torch.device("cuda"))
    torch.cuda.reset_peak_memory_stats()
    first, again = (refine(fixed, moving, levels, loops=loops) for _ in range(2))
    np.testing.assert_array_equal(first.displacement_voxels, again.displacement_voxels)
    assert torch.cuda.max_memory_allocated() < 40 * fixed.nbytes
