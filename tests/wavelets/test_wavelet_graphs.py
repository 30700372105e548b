"""Derivatives of every kind, and graphs that others capture: compile, export, ONNX."""

from collections.abc import Callable, Sequence
from pathlib import Path

import onnxruntime
import pytest
import torch
from functorch.compile import make_boxed_func
from torch._dynamo.backends.common import aot_autograd
from torch.autograd import forward_ad

from medwave.wavelets import DWT, IDWT, MODES, DWTLow, dwt, idwt

# torch warns about parts of itself that it calls while it exports
ONNX_WARNINGS = "ignore:.*isinstance.treespec, LeafSpec.*:FutureWarning"


class Everything(torch.nn.Module):
    """All three layers in one graph."""

    def __init__(self, wavelet: str, ndim: int, mode: str, backend: str | None = None) -> None:
        super().__init__()
        self.analysis = DWT(wavelet, ndim, mode=mode, backend=backend)
        self.synthesis = IDWT(wavelet, ndim, mode=mode, backend=backend)
        self.low = DWTLow(wavelet, ndim, mode=mode, ll_gain="unit", backend=backend)

    def forward(self, x: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
        bands = self.analysis(x)
        return bands, self.synthesis(bands, x.shape[2:]), self.low(x)


def operator_names(graph: torch.fx.Graph) -> str:
    return " ".join(str(node.target) for node in graph.nodes)


@pytest.mark.parametrize("backend", ["numba", "torch"])
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("size", [(5,), (4, 5), (3, 4, 2)])
def test_gradients_of_every_order_and_direction(size: tuple[int, ...], mode: str, backend: str) -> None:
    options = {"ndim": len(size), "mode": mode, "backend": backend}
    for wavelet in ("haar", "db2"):
        x = torch.randn(1, 1, *size, dtype=torch.float64, requires_grad=True)
        bands = dwt(x, wavelet, **options).detach().requires_grad_()

        def forward(x: torch.Tensor, wavelet: str = wavelet) -> torch.Tensor:
            return dwt(x, wavelet, **options)

        def inverse(bands: torch.Tensor, wavelet: str = wavelet) -> torch.Tensor:
            return idwt(bands, wavelet, output_size=size, **options)

        for function, start in ((forward, x), (inverse, bands)):
            torch.autograd.gradcheck(function, start, fast_mode=True, check_forward_ad=True)
            torch.autograd.gradgradcheck(function, start, fast_mode=True, check_fwd_over_rev=True)


def test_full_gradcheck_with_a_batch_of_gradients() -> None:
    x = torch.randn(1, 2, 5, 6, dtype=torch.float64, requires_grad=True)
    for mode in MODES:
        assert torch.autograd.gradcheck(lambda x, m=mode: dwt(x, "bior2.2", ndim=2, mode=m), x, check_batched_grad=True)


def test_function_transforms() -> None:
    x = torch.randn(4, 2, 3, 6, 8)

    def forward(x: torch.Tensor) -> torch.Tensor:
        return dwt(x, "db2", ndim=2)

    expected = torch.stack([forward(item) for item in x])
    torch.testing.assert_close(torch.func.vmap(forward)(x), expected)
    torch.testing.assert_close(torch.func.vmap(forward, in_dims=1)(x.transpose(0, 1)), expected)
    value, tangent = torch.func.jvp(forward, (x[0],), (x[1],))
    torch.testing.assert_close(value, expected[0])
    torch.testing.assert_close(tangent, expected[1])
    grad = torch.func.grad(lambda x: forward(x).square().sum())(x[0])
    torch.testing.assert_close(grad, 2 * x[0], atol=1e-5, rtol=1e-5)  # an orthogonal transform


def test_the_operators_pass_torch_checks() -> None:
    x = torch.randn(2, 1, 5, 6, requires_grad=True)
    arguments = ("db2:dec:orthonormal", "symmetric", 2, False, "auto")
    torch.library.opcheck(torch.ops.medwave.wavelet_analysis.default, (x, *arguments))
    bands = torch.randn(2, 1, 4, 4, 4, requires_grad=True)
    arguments = ("db2:rec:orthonormal", "zero", [5, 6], False, "auto")
    torch.library.opcheck(torch.ops.medwave.wavelet_synthesis.default, (bands, *arguments))


@pytest.mark.parametrize("backend", [None, "torch"])
@pytest.mark.parametrize(("wavelet", "mode"), [("haar", "periodization"), ("ch2.2", "reflect")])
def test_compile_in_one_graph(wavelet: str, mode: str, backend: str | None) -> None:
    torch._dynamo.reset()
    model = Everything(wavelet, 2, mode, backend)
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    x = torch.randn(2, 3, 9, 10)
    torch.testing.assert_close(compiled(x), model(x))
    grads = []
    for function in (model, compiled):
        start = x.clone().requires_grad_()
        function(start)[0].square().sum().backward()
        grads.append(start.grad)
    torch.testing.assert_close(*grads)


def test_compile_the_functions() -> None:
    torch._dynamo.reset()

    def both(x: torch.Tensor) -> torch.Tensor:
        return idwt(dwt(x, "ch2.2", ndim=3), "bior2.2", ndim=3, output_size=x.shape[2:])

    x = torch.randn(1, 2, 5, 6, 7)
    torch.testing.assert_close(torch.compile(both, fullgraph=True, backend="aot_eager")(x), x, atol=1e-5, rtol=1e-5)


def bands_of(x: torch.Tensor) -> torch.Tensor:
    return dwt(x, "db2", ndim=2)


def tangent_by_levels(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(bands_of(forward_ad.make_dual(x, t))).tangent
    assert tangent is not None
    return tangent


@pytest.mark.parametrize(
    "derivative",
    [
        lambda x, t: torch.func.jvp(bands_of, (x,), (t,))[1],
        lambda x, t: torch.func.jacfwd(bands_of)(x),
        lambda x, t: torch.func.grad(lambda x: bands_of(x).square().sum())(x),
        tangent_by_levels,
    ],
    ids=["jvp", "jacfwd", "grad", "levels"],
)
def test_derivatives_within_a_compiled_function(derivative: Callable[..., torch.Tensor]) -> None:
    torch._dynamo.reset()
    x, t = torch.randn(1, 1, 4, 6), torch.randn(1, 1, 4, 6)
    torch.testing.assert_close(torch.compile(derivative, backend="eager")(x, t), derivative(x, t))


def test_forward_mode_through_a_function_that_was_compiled_without_it() -> None:
    torch._dynamo.reset()
    x, t = torch.randn(1, 1, 4, 6), torch.randn(1, 1, 4, 6)
    compiled = torch.compile(bands_of, backend="eager")
    torch.testing.assert_close(compiled(x), bands_of(x))
    with forward_ad.dual_level():
        tangent = forward_ad.unpack_dual(compiled(forward_ad.make_dual(x, t))).tangent
    torch.testing.assert_close(tangent, bands_of(t))


def test_compiled_graphs_hold_the_operators_forwards_and_backwards() -> None:
    torch._dynamo.reset()
    graphs: list[str] = []

    def keep(module: torch.fx.GraphModule, inputs: Sequence[torch.Tensor]) -> Callable[..., object]:
        graphs.append(operator_names(module.graph))
        return make_boxed_func(module.forward)

    compiled = torch.compile(bands_of, fullgraph=True, backend=aot_autograd(fw_compiler=keep))
    compiled(torch.randn(1, 1, 4, 6, requires_grad=True)).sum().backward()
    forwards, backwards = graphs
    assert "medwave.wavelet_analysis" in forwards
    assert "medwave.wavelet_synthesis" in backwards


@pytest.mark.slow
@pytest.mark.parametrize("backend", [None, "torch"])
def test_compile_with_the_default_compiler(backend: str | None) -> None:
    torch._dynamo.reset()
    model = Everything("db2", 3, "periodization", backend)
    x = torch.randn(1, 2, 6, 8, 7)
    torch.testing.assert_close(torch.compile(model, fullgraph=True)(x), model(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("strict", [False, True])
@pytest.mark.parametrize("mode", MODES)
def test_export_holds_ordinary_operations(mode: str, strict: bool) -> None:
    torch._dynamo.reset()
    model = Everything("db2", 2, mode)
    x = torch.randn(2, 3, 9, 8)
    exported = torch.export.export(model, (x,), strict=strict)
    assert "medwave" not in operator_names(exported.graph)
    torch.testing.assert_close(exported.module()(x), model(x))


@pytest.mark.parametrize("mode", ["periodization", "symmetric"])
def test_export_with_free_sizes(mode: str) -> None:
    model = Everything("db2", 2, mode)
    free = {0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    exported = torch.export.export(model, (torch.randn(2, 3, 9, 8),), dynamic_shapes=(free,))
    other = torch.randn(4, 3, 12, 15)
    torch.testing.assert_close(exported.module()(other), model(other))


def check_onnx(
    make: Callable[[], torch.onnx.ONNXProgram | None], path: Path, model: Everything, *inputs: torch.Tensor
) -> None:
    program = make()
    assert program is not None
    program.save(path)
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    for x in inputs:
        results = session.run(None, {session.get_inputs()[0].name: x.numpy()})
        for ours, theirs in zip(model(x), results, strict=True):
            torch.testing.assert_close(torch.from_numpy(theirs), ours, atol=1e-5, rtol=1e-4)


@pytest.mark.filterwarnings(ONNX_WARNINGS)
def test_onnx_with_free_sizes_gives_the_same_numbers(tmp_path: Path) -> None:
    model = Everything("db2", 2, "periodization").eval()
    x = torch.randn(2, 3, 9, 8)
    free = {"x": {0: torch.export.Dim("n"), 2: torch.export.Dim("h"), 3: torch.export.Dim("w")}}
    check_onnx(
        lambda: torch.onnx.export(model, (x,), dynamic_shapes=free, dynamo=True, verbose=False),
        tmp_path / "model.onnx",
        model,
        x,
        torch.randn(1, 3, 14, 11),
    )


@pytest.mark.slow
@pytest.mark.filterwarnings(ONNX_WARNINGS)
@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize(("wavelet", "size"), [("haar", (8,)), ("bior2.2", (5, 6, 7))])
def test_onnx_gives_the_same_numbers(wavelet: str, size: tuple[int, ...], mode: str, tmp_path: Path) -> None:
    model = Everything(wavelet, len(size), mode).eval()
    x = torch.randn(2, 3, *size)
    check_onnx(lambda: torch.onnx.export(model, (x,), dynamo=True, verbose=False), tmp_path / "model.onnx", model, x)
