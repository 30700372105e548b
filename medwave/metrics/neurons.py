"""All scores of a traced neuron against its gold tree, and the averages over many.

Conventions
    As in :mod:`medwave.metrics.neuron_distances`. A failed trace (none, empty, without length) is scored with NaN
    distances and zero shares and is named. In averages a NaN distance or error becomes ``inf`` and a share is 0: an
    average over all cases can therefore not improve when a trace fails, and it shows at once that one did.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from medwave.core.errors import InputError
from medwave.core.tree import Float64Array, Tree
from medwave.core.tree_paths import Topology, topology
from medwave.core.tree_walk import components
from medwave.metrics.neuron_diadem import Diadem, simplified_diadem
from medwave.metrics.neuron_distances import (
    Samples,
    TreeDistances,
    comparable,
    sample_distances,
    tree_distances,
)
from medwave.metrics.neuron_matching import (
    Score,
    ToleranceScore,
    curve_point,
    one_to_one_score,
    path_score,
)

CURVE = tuple(float(n) for n in range(1, 11))
"""Tolerances of the curve."""

LOWER_IS_BETTER = ("esa", "dsa", "pds", "length_error", "betti0_error")
HIGHER_IS_BETTER = (
    "precision",
    "recall",
    "f1",
    "precision_by_length",
    "recall_by_length",
    "f1_by_length",
    "one_to_one_precision",
    "one_to_one_recall",
    "one_to_one_f1",
    "path_precision",
    "path_recall",
    "path_f1",
    "simplified_diadem",
    "largest_component_recall",
)


@dataclass(frozen=True)
class TraceScores:
    """Everything that is measured between one trace and its gold tree.

    Attributes:
        failed: why the trace could not be scored; empty when it could.
        distances: ESA, DSA, PDS.
        at_tolerance: precision, recall and F1 at the chosen tolerance.
        curve: the same at 1 to 10.
        one_to_one: with every sample matched once at most.
        path: with connections that must hold in both trees.
        diadem: forks and tips, simplified.
        largest_component_recall: share of the gold length that is found by one single component of the trace.
        length_error: absolute difference of the lengths over the gold length; NaN for a failed trace.
        betti0_error: difference of the numbers of components that have an edge; NaN for a failed trace.
        gold_topology: counts of the gold tree.
        trace_topology: counts of the trace, None if there is none.
        gold_distances: distance of samples of the gold tree from the trace, for histograms.
        trace_distances: distance of samples of the trace from the gold tree; empty for a failed trace.
    """

    failed: str
    distances: TreeDistances
    at_tolerance: ToleranceScore
    curve: tuple[ToleranceScore, ...]
    one_to_one: Score
    path: Score
    diadem: Diadem
    largest_component_recall: float
    length_error: float
    betti0_error: float
    gold_topology: Topology
    trace_topology: Topology | None
    gold_distances: Float64Array
    trace_distances: Float64Array

    def row(self) -> dict[str, float]:
        """The main numbers by name (:data:`LOWER_IS_BETTER`, then :data:`HIGHER_IS_BETTER`), for a table."""
        samples, length = self.at_tolerance.by_samples, self.at_tolerance.by_length
        lower = (*self.distances[:3], self.length_error, self.betti0_error)
        shares = (*samples, *length, *self.one_to_one, *self.path, self.diadem.score, self.largest_component_recall)
        return dict(zip((*LOWER_IS_BETTER, *HIGHER_IS_BETTER), (*lower, *shares), strict=True))


@dataclass(frozen=True)
class Summary:
    """Averages over many traces.

    Attributes:
        cases: number of traces, failed ones included.
        failed: names of the failed ones.
        mean: name of a score -> mean over ALL cases; ``inf`` for distances and errors as soon as one failed.
        median: name of a score -> median over ALL cases; stays finite while fewer than half failed.
        worst: name of a score -> worst value over all cases.
    """

    cases: int
    failed: tuple[str, ...]
    mean: dict[str, float]
    median: dict[str, float]
    worst: dict[str, float]


def score_trace(
    gold: Tree,
    trace: Tree | None,
    *,
    tolerance: float = 2.0,
    step: float = 1.0,
    spacing_xyz: npt.ArrayLike = 1.0,
) -> TraceScores:
    """Score a trace against its gold tree by every measure of this room.

    Args:
        gold: the true tree.
        trace: the tree to score; None if tracing failed.
        tolerance: distance up to which two points are the same, and from which DSA and PDS count a difference.
        step: sampling step of the tolerance and one-to-one scores.
        spacing_xyz: factors of x, y, z for both trees, such as the voxel size; then all lengths are in that unit.

    Raises:
        InputError: when the gold tree has no length, or an option is out of range.
    """
    true, made = comparable(gold, trace, spacing_xyz, step)
    there = sample_distances(true, made, step=step)
    nothing = Samples(np.zeros((1, 3)), np.ones(1), np.full(1, np.inf), np.full(1, -1))  # found nowhere
    back = nothing if made is None else sample_distances(made, true, step=step)
    return TraceScores(
        failed=_reason(trace) if made is None else "",
        distances=tree_distances(true, made, threshold=tolerance),
        at_tolerance=curve_point(there, back, tolerance),
        curve=tuple(curve_point(there, back, limit) for limit in CURVE),
        one_to_one=one_to_one_score(true, made, tolerance=tolerance, step=step),
        path=path_score(true, made, tolerance=tolerance),
        diadem=simplified_diadem(true, made, xy_tolerance=tolerance, z_tolerance=tolerance),
        largest_component_recall=_largest_share(there, made, tolerance),
        length_error=np.nan if made is None else abs(made.length - true.length) / true.length,
        betti0_error=np.nan if made is None else float(abs(_pieces(made) - _pieces(true))),
        gold_topology=topology(true),
        trace_topology=None if made is None else topology(made),
        gold_distances=there.distance,
        trace_distances=np.zeros(0) if made is None else back.distance,
    )


def largest_component_recall(
    gold: Tree, trace: Tree | None, *, tolerance: float = 2.0, step: float = 1.0, spacing_xyz: npt.ArrayLike = 1.0
) -> float:
    """Share of the gold length that lies within the tolerance of one component of the trace: the one with the most.

    Every sample of the gold tree is given to the component that holds its nearest edge. 0 for a failed trace.

    Args and Raises: as :func:`score_trace`.
    """
    true, made = comparable(gold, trace, spacing_xyz, step)
    return _largest_share(sample_distances(true, made, step=step), made, tolerance)


def summarise(scores: Mapping[str, TraceScores]) -> Summary:
    """Average scores over cases so that a missing trace never improves an average.

    Args:
        scores: name of a case -> its scores.

    Raises:
        InputError: when there is no case.
    """
    if not scores:
        raise InputError("an average needs at least one scored trace")
    rows = [one.row() for one in scores.values()]
    table = {name: np.array([row[name] for row in rows]) for name in rows[0]}
    filled = {
        name: np.where(np.isnan(values), np.inf if name in LOWER_IS_BETTER else 0.0, values)
        for name, values in table.items()
    }
    return Summary(
        cases=len(rows),
        failed=tuple(name for name, one in scores.items() if one.failed),
        mean={name: float(values.mean()) for name, values in filled.items()},
        median={name: float(np.median(values)) for name, values in filled.items()},
        worst={name: float(v.max() if name in LOWER_IS_BETTER else v.min()) for name, v in filled.items()},
    )


def _reason(trace: Tree | None) -> str:
    if trace is None:
        return "there is no trace"
    if len(trace) < 2:
        return f"the trace has {len(trace)} nodes, two at least are needed"
    return "the trace has no length"


def _pieces(tree: Tree) -> int:
    """Components that have an edge."""
    return len(np.unique(components(tree.parent)[tree.edges]))


def _largest_share(gold_samples: Samples, trace: Tree | None, tolerance: float) -> float:
    if trace is None:
        return 0.0
    found = gold_samples.distance <= tolerance
    label = components(trace.parent)[gold_samples.edge[found]]
    by_component = np.bincount(label, gold_samples.weight[found], minlength=1)
    return float(by_component.max() / gold_samples.weight.sum())
