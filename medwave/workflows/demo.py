"""``medwave demo``: a main job on a sample made on the spot, whose truth is known."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from medwave.core.files import StrPath
from medwave.metrics import TraceScores
from medwave.workflows.demo_brains import TrueError, make_brain_sample, true_error_mm
from medwave.workflows.demo_neurons import SEED, make_neuron_sample
from medwave.workflows.options import RegisterOptions
from medwave.workflows.reconstruct import REPORT, reconstruct
from medwave.workflows.register import register


def demo_brains(
    folder: StrPath,
    *,
    options: RegisterOptions,
    command_line: str = "",
    on_stage: Callable[[str], None] = lambda _: None,
    on_progress: Callable[[Any], None] | None = None,
) -> tuple[Path, TrueError, TrueError]:
    """Make the brain sample in ``folder/sample``, register it into ``folder``, and measure the true error.

    Returns:
        The path of the report, and the true error in the brain before and after.
    """
    home = Path(folder)
    on_stage("make the sample")
    sample = make_brain_sample(home / "sample", seed=options.seed)
    result = register(
        sample.fixed_path, sample.moving_path, options=options, on_stage=on_stage, on_progress=on_progress
    )
    before = true_error_mm(sample)
    after = true_error_mm(sample, result.transform.apply_points_mm)
    on_stage("write")
    report = result.save(
        home,
        inputs={"fixed": str(sample.fixed_path), "moving": str(sample.moving_path)},
        command_line=command_line,
        true_error_mm=after.map_mm,
        true_error_mean_mm=(before.mean_mm, after.mean_mm),
    )
    return report, before, after


def demo_neuron(
    folder: StrPath,
    *,
    seed: int = SEED,
    weights: StrPath | None = None,
    command_line: str = "",
    on_stage: Callable[[str], None] = lambda _: None,
    on_progress: Callable[[Any], None] | None = None,
) -> tuple[Path, TraceScores]:
    """Make the demo neuron in ``folder/sample``, reconstruct it into ``folder``, and score it against its truth.

    Returns:
        The path of the report, and the scores in voxels.
    """
    home = Path(folder)
    on_stage("make the sample")
    sample = make_neuron_sample(home / "sample", seed=seed)
    made = reconstruct(
        sample.image_path, home, gold=sample.tree_path, weights=weights, command_line=command_line,
        on_stage=on_stage, on_progress=on_progress,
    )  # fmt: skip
    assert made.scores is not None
    return made.folder / REPORT, made.scores.scores
