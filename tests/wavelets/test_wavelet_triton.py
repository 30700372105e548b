"""The back-end for CUDA tensors: its kernels in Triton's interpreter, in its compiler, and on a GPU where there is one.

The interpreter runs in processes of its own (``triton_cases.py``), so that nothing else here is interpreted.
"""

import importlib.util
import os
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch

from medwave.core.errors import DeviceError
from medwave.wavelets import backends, dwt, dwt_low, idwt
from medwave.wavelets.backends import plain
from medwave.wavelets.extension import RULES
from medwave.wavelets.filters import kernels, kernels_key

needs_triton = pytest.mark.skipif(
    importlib.util.find_spec("triton") is None, reason="the package triton is absent (it is made for Linux x86-64)"
)
needs_gpu = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize(
    "part", ["lines", "images", "volumes", "tiles or alone or one_axis", "bits or types or 65535", "operator or stay"]
)
def test_kernels_in_the_interpreter(part: str) -> None:
    cases = Path(__file__).with_name("triton_cases.py")
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


TYPES = {torch.float32: "*fp32", torch.float64: "*fp64", torch.bfloat16: "*bf16", torch.float16: "*fp16"}


class Compiler:
    """Stands where a kernel stands: compiles for sm_90 with the arguments of each launch instead of launching."""

    def __init__(self, kernel: Any) -> None:
        self.kernel = kernel
        self.built: list[Any] = []
        self.grids: list[tuple[int, ...]] = []

    def __getitem__(self, grid: tuple[int, ...]) -> Any:
        self.grids.append(grid)
        return self.launch

    def launch(self, *arguments: Any, num_warps: int, **constants: Any) -> None:
        import triton
        from triton.backends.compiler import GPUTarget

        names = self.kernel.arg_names
        signature = dict.fromkeys(constants, "constexpr")
        aligned = {}
        for name, value in zip(names, arguments, strict=False):
            signature[name] = TYPES[value.dtype] if isinstance(value, torch.Tensor) else "i32"
            if isinstance(value, torch.Tensor):
                aligned[(names.index(name),)] = [["tt.divisibility", 16]]
        source = triton.compiler.ASTSource(
            self.kernel,
            signature={name: signature[name] for name in names},
            constexprs={(names.index(name),): value for name, value in constants.items()},
            attrs=aligned,
        )
        target = GPUTarget("cuda", 90, 32)
        self.built.append(triton.compile(source, target=target, options={"num_warps": num_warps}))


@pytest.fixture
def compilers(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> tuple[Compiler, Compiler]:
    from medwave.wavelets.backends import gpu, gpu_analysis, gpu_synthesis

    monkeypatch.setenv("TRITON_CACHE_DIR", str(tmp_path))
    pair = Compiler(gpu_analysis.analysis), Compiler(gpu_synthesis.synthesis)
    monkeypatch.setattr(gpu.gpu_analysis, "analysis", pair[0])
    monkeypatch.setattr(gpu.gpu_synthesis, "synthesis", pair[1])
    return pair


@needs_triton
@pytest.mark.slow
@pytest.mark.parametrize(
    ("wavelet", "size", "rule", "dtype"),
    [
        ("haar", (8, 256), "periodization", torch.bfloat16),
        ("haar", (5, 9), "periodization", torch.float32),
        ("db2", (33,), "symmetric", torch.float64),
        ("db2", (16, 16), "periodization", torch.float16),
        ("db2", (15, 17), "reflect", torch.float32),
        ("sym5", (12, 12, 12), "zero", torch.float32),
        ("db2", (8, 16, 16), "periodization", torch.float32),
    ],
)
def test_kernels_compile_without_a_gpu(
    compilers: tuple[Compiler, Compiler], wavelet: str, size: tuple[int, ...], rule: str, dtype: torch.dtype
) -> None:
    from medwave.wavelets.backends import gpu

    taps = kernels(kernels_key(wavelet, filter_roles="pywt", analysis=True))
    bands = gpu.analysis(torch.zeros(1, 2, *size, dtype=dtype), taps, rule, len(size), False)
    gpu.synthesis(bands, taps, rule, size, False)
    passes = 3 if taps.length > gpu.FUSED_TAPS[len(size)] else 1
    for compiler in compilers:
        assert len(compiler.built) == passes
        assert all(len(kernel.asm["cubin"]) > 0 for kernel in compiler.built)
    if wavelet == "haar" and size[-1] % 16 == 0:  # whole vectors of 16 bytes, both ways
        assert "ld.global.v4.b32" in compilers[0].built[0].asm["ptx"]
        assert "st.global.v4.b32" in compilers[1].built[0].asm["ptx"]


@needs_triton
def test_a_batch_of_any_size_is_one_axis_of_the_grid(monkeypatch: pytest.MonkeyPatch) -> None:
    from medwave.wavelets.backends import gpu, gpu_analysis

    grids: list[tuple[int, ...]] = []

    class Recorder:
        def __getitem__(self, grid: tuple[int, ...]) -> Any:
            grids.append(grid)
            return lambda *arguments, **constants: None

    monkeypatch.setattr(gpu_analysis, "analysis", Recorder())
    taps = kernels(kernels_key("db2", filter_roles="pywt", analysis=True))
    gpu.analysis(torch.zeros(70_000, 1, 2, 2, 2), taps, "periodization", 3, False)
    assert grids == [(70_000,)]  # the other axes of a grid end at 65535, the first at 2 ** 31 - 1


@pytest.fixture
def triton_for_cpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backends, "_broken", {})
    monkeypatch.setattr(backends, "DEVICES", {"triton": "cpu"})


@pytest.mark.usefixtures("triton_for_cpu")
def test_where_triton_cannot_run_the_torch_form_does() -> None:
    """No package, no driver, or a tensor that is not on a GPU: this machine has one of the three reasons."""
    x = torch.randn(1, 1, 9, 8)
    with pytest.warns(RuntimeWarning, match="triton back-end of medwave.wavelets does not work here"):
        bands = dwt(x, "db2", ndim=2)
    assert torch.equal(bands, dwt(x, "db2", ndim=2, backend="torch"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert torch.equal(dwt(x, "db2", ndim=2), bands)


def test_a_forced_triton_refuses_a_cpu_tensor() -> None:
    with pytest.raises(DeviceError, match="triton back-end does cuda tensors"):
        dwt(torch.zeros(1, 1, 4), "haar", ndim=1, backend="triton")


@needs_triton
@needs_gpu
@pytest.mark.parametrize("size", [(33,), (64, 48), (31, 66), (16, 20, 48), (9, 33, 17)])
@pytest.mark.parametrize("wavelet", ["haar", "db2", "bior2.2", "sym5", "db10"])
def test_on_a_gpu_it_equals_the_torch_form(wavelet: str, size: tuple[int, ...]) -> None:
    from medwave.wavelets.backends import gpu

    taps = kernels(kernels_key(wavelet, filter_roles="pywt", analysis=True))
    x = torch.randn(2, 3, *size, dtype=torch.float64, device="cuda")
    for rule in RULES:
        for low_only in (False, True):
            bands = gpu.analysis(x, taps, rule, len(size), low_only)
            torch.testing.assert_close(
                bands, plain.analysis(x, taps, rule, len(size), low_only), rtol=1e-11, atol=1e-11
            )
            signal = gpu.synthesis(bands, taps, rule, size, low_only)
            torch.testing.assert_close(
                signal, plain.synthesis(bands, taps, rule, size, low_only), rtol=1e-11, atol=1e-11
            )


@needs_triton
@needs_gpu
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_on_a_gpu_it_is_the_default_and_needs_no_memory_but_the_result(dtype: torch.dtype) -> None:
    x = torch.randn(1, 2, 32, 64, 96, device="cuda").to(dtype)
    expected = dwt(x, "db2", ndim=3, backend="torch")
    dwt(x, "db2", ndim=3, backend="triton")
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        bands = dwt(x, "db2", ndim=3)
    assert torch.cuda.max_memory_allocated() - before <= bands.numel() * bands.element_size() + 4096
    torch.testing.assert_close(bands, expected)
    torch.testing.assert_close(dwt_low(x, "db2", ndim=3), expected[:, :, 0])


@needs_triton
@needs_gpu
def test_on_a_gpu_gradients_graphs_and_large_batches() -> None:
    x = torch.randn(1, 1, 6, 7, dtype=torch.float64, device="cuda", requires_grad=True)
    for mode in ("periodization", "symmetric", "reflect", "zero", "zero_truncated"):
        assert torch.autograd.gradcheck(lambda t, m=mode: dwt(t, "db2", ndim=2, mode=m, backend="triton"), (x,))
    compiled = torch.compile(lambda t: dwt(t, "db2", ndim=2), fullgraph=True)
    torch.testing.assert_close(compiled(x), dwt(x, "db2", ndim=2, backend="torch"))
    many = torch.randn(70_000, 1, 4, 4, 4, device="cuda")
    bands = dwt(many, "db2", ndim=3, backend="triton")
    torch.testing.assert_close(idwt(bands, "db2", ndim=3, backend="triton"), many, rtol=1e-4, atol=1e-5)
