"""Graphs that others capture of what stands on the transform: levels, packets, stationary, layers, learned filters."""

from collections.abc import Callable
from pathlib import Path

import onnxruntime
import pytest
import torch
from torch import nn

from medwave.wavelets import (
    FilterBank,
    LearnedDWT,
    LearnedIDWT,
    LearnedShrinkage,
    WaveletPool,
    WaveletShuffle,
    WaveletUnshuffle,
    WaveletUpsample,
    iswt,
    replace_downsampling,
    swt,
    wavedec,
    waverec,
    wpdec,
    wprec,
)

# torch warns about parts of itself that it calls while it exports
ONNX_WARNINGS = "ignore:.*isinstance.treespec, LeafSpec.*:FutureWarning"


class Shrunk(nn.Module):
    """A pyramid, learned thresholds on its details, and back."""

    def __init__(self) -> None:
        super().__init__()
        self.shrink = LearnedShrinkage(3, 0.3, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        pyramid = wavedec(x, "db2", ndim=2, levels=2, mode="symmetric").map_details(self.shrink)
        return waverec(pyramid, "db2", ndim=2, mode="symmetric", output_size=x.shape[2:])


class Packets(nn.Module):
    """Packets, the strongest kept, and back."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        leaves = nn.functional.softshrink(wpdec(x, "haar", ndim=2, levels=2), 0.5)
        return wprec(leaves, "haar", ndim=2, levels=2, output_size=x.shape[2:])


class Stationary(nn.Module):
    """The stationary transform, thresholds, and back."""

    def __init__(self, mode: str) -> None:
        super().__init__()
        self.mode = mode

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        bands = swt(x, "db2", ndim=2, levels=2, mode=self.mode).map_details(nn.functional.softshrink)
        return iswt(bands, "db2", ndim=2, mode=self.mode)


class Learned(nn.Module):
    """Learned filters, forth and back."""

    def __init__(self) -> None:
        super().__init__()
        bank = FilterBank("ch2.2")
        self.analysis, self.synthesis = LearnedDWT(bank, 2), LearnedIDWT(bank, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.synthesis(self.analysis(x).square(), x.shape[2:])


def layers() -> nn.Module:
    pool, up = WaveletPool("db2", 2, stride=(2, 4)), WaveletUpsample("db2", 2, stride=(2, 4))
    return nn.Sequential(
        pool, nn.Conv2d(3, 3, 3, padding=1), up, WaveletUnshuffle("haar", 2), WaveletShuffle("haar", 2)
    )


def replaced() -> nn.Module:
    net = nn.Sequential(
        nn.Conv2d(3, 4, 3, stride=2, padding=1), nn.ReLU(), nn.MaxPool2d(2), nn.Conv2d(4, 4, 1, stride=2), nn.ReLU()
    )
    replace_downsampling(net, "db2")
    return net


MODELS: dict[str, Callable[[], nn.Module]] = {
    "shrunk": Shrunk,
    "packets": Packets,
    "stationary": lambda: Stationary("periodization"),
    "stationary with margin": lambda: Stationary("reflect"),
    "learned": Learned,
    "layers": layers,
    "replaced": replaced,
}


def image() -> torch.Tensor:
    return torch.randn(2, 3, 18, 16)


def gradients(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> list[torch.Tensor]:
    start = x.clone().requires_grad_()
    (gradient,) = torch.autograd.grad(function(start).square().sum(), start)
    return [gradient]


@pytest.mark.parametrize("name", MODELS)
def test_compile_in_one_graph(name: str) -> None:
    torch._dynamo.reset()
    model, x = MODELS[name](), image()
    compiled = torch.compile(model, fullgraph=True, backend="aot_eager")
    torch.testing.assert_close(compiled(x), model(x))
    torch.testing.assert_close(gradients(compiled, x), gradients(model, x))


@pytest.mark.slow
def test_compile_with_the_default_compiler() -> None:
    torch._dynamo.reset()
    model, x = nn.Sequential(Shrunk(), Stationary("periodization"), WaveletPool("db2", 2)), image()
    torch.testing.assert_close(torch.compile(model, fullgraph=True)(x), model(x), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("name", MODELS)
def test_export_holds_ordinary_operations(name: str) -> None:
    model, x = MODELS[name](), image()
    exported = torch.export.export(model, (x,))
    assert "medwave" not in " ".join(str(node.target) for node in exported.graph.nodes)
    torch.testing.assert_close(exported.module()(x), model(x))


@pytest.mark.slow
@pytest.mark.parametrize("name", ["shrunk", "stationary"])
def test_export_with_free_sizes(name: str) -> None:
    model = MODELS[name]()
    free = {0: torch.export.Dim.AUTO, 2: torch.export.Dim.AUTO, 3: torch.export.Dim.AUTO}
    exported = torch.export.export(model, (image(),), dynamic_shapes=(free,))
    other = torch.randn(3, 3, 24, 22)
    torch.testing.assert_close(exported.module()(other), model(other))


@pytest.mark.slow
@pytest.mark.filterwarnings(ONNX_WARNINGS)
@pytest.mark.parametrize("name", MODELS)
def test_onnx_gives_the_same_numbers(name: str, tmp_path: Path) -> None:
    model, x = MODELS[name]().eval(), image()
    program = torch.onnx.export(model, (x,), dynamo=True, verbose=False)
    assert program is not None
    program.save(tmp_path / "model.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx", providers=["CPUExecutionProvider"])
    (result,) = session.run(None, {session.get_inputs()[0].name: x.numpy()})
    torch.testing.assert_close(torch.from_numpy(result), model(x), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("name", MODELS)
def test_function_transforms_and_double_backward(name: str) -> None:
    model = MODELS[name]().double()
    x = torch.randn(3, 1, 3, 8, 12, dtype=torch.float64)
    expected = torch.stack([model(item) for item in x])
    torch.testing.assert_close(torch.func.vmap(model)(x), expected)
    _, tangent = torch.func.jvp(model, (x[0],), (x[1],))
    start = x[0].clone().requires_grad_()
    (back,) = torch.autograd.grad(model(start), start, tangent, create_graph=True)
    (ahead,) = torch.autograd.grad((back * x[1]).sum(), start, allow_unused=True)  # through a second backward
    torch.testing.assert_close((back.detach() * x[1]).sum(), tangent.square().sum())  # <J^T J v, v> = |J v|^2
    assert ahead is None or torch.isfinite(ahead).all()


@pytest.mark.parametrize("name", MODELS)
def test_autocast_and_memory_order(name: str) -> None:
    model, x = MODELS[name](), image()
    torch.testing.assert_close(model(x.to(memory_format=torch.channels_last)), model(x))
    with torch.autocast("cpu", torch.bfloat16):
        out = model(x)
    torch.testing.assert_close(out.float(), model(x), atol=5e-2, rtol=5e-2)
    low = model(x.bfloat16()) if name in ("packets", "stationary", "shrunk", "learned") else out
    torch.testing.assert_close(low.float(), model(x), atol=0.1, rtol=5e-2)
