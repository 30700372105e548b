"""``medwave export``: networks for programs that do not have medwave."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer


def export(
    weights: Annotated[
        Path,
        typer.Argument(
            metavar="WEIGHTS",
            help="Weights of a medwave network: a file (safetensors), or neuron, neuron_noise or brain, which come "
            "with medwave (a file of that name comes first).",
        ),
    ],
    output: Annotated[Path, typer.Option("--output", "-o", help="File to write, .onnx.")],
    size: Annotated[
        str, typer.Option("--size", help="Size of the images, such as 224x224 or 64x128x128; the batch stays free.")
    ] = "",
) -> None:
    """Write a network as ONNX, and check that onnxruntime gives its numbers.

    Images go in as the network takes them: scaled already, channels first.
    """
    from medwave.workflows.export import export_onnx

    inputs = export_onnx(weights, output, size=size)
    for name, shape in inputs.items():
        typer.echo(f"input {name}: float32, {' x '.join(str(n) if n else 'batch' for n in shape)}")
    typer.echo(f"written: {output}")
