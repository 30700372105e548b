"""The settings of a trace. Lengths and radii are in voxels of x unless a name says otherwise."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from medwave.core.errors import InputError


@dataclass(frozen=True, kw_only=True)
class TraceOptions:
    """How to trace. Defaults are those of APP2 in Vaa3D but where "Vaa3D:" gives another value.

    Attributes:
        kind: what the volume holds. "image": grey values, any type (8-bit values are taken as they are, others are
            scaled to 0 .. 255); "mask": fibre is what is not zero (boolean volumes always are masks);
            "probability": 0 .. 1, or 0 .. 255 as unsigned bytes.
        spacing: voxel size along z, y, x in any one unit; only ratios count.
        threshold: voxels above it are foreground; in the values of the volume (probabilities always 0 .. 1). None:
            0.5 for probabilities; for images the background's mean + 4 standard deviations, and at least 2/255 of the
            range above the mean (:func:`medwave.tracing.grey.automatic_threshold`)
            (Vaa3D: 10; -1 there is the image mean). A mask takes none.
        largest_foreground_share: a trace is refused when more of the volume is foreground.
        connectivity: 1, 2 or 3 axes may change in one step (6, 18 or 26 neighbours).
        cost: what makes a path cheap. "distance": the grey-weighted distance transform, so paths run along the middle
            of bright, thick structures; "brightness": grey values (Vaa3D); "log_probability": -log p.
        cross_gaps: let the march step over single dark voxels.
        shortest_segment: branches with a smaller sum of brightness (0 .. 1) times length are dropped.
        coverage_ratio: a branch is kept when it adds at least this much that stronger branches do not cover, compared
            to what they do.
        drop_dark_segments: drop branches of which 20 % is dark (only with ``cross_gaps``; Vaa3D: has no effect).
        radius_threshold: voxels at or below it are outside a fibre, in the values of the volume. None: the threshold
            (Vaa3D: never below 40 of 255).
        radius_in_plane: measure radii in the slice only.
        roots: positions (z, y, x) of somata, in voxels; each becomes a root of its own. None: the thickest bright
            place of each component; where that is no soma but lies inside a branch, the end of the thickest last
            branch (Vaa3D: stays there).
        soma_radius: also make a root of every blob into which a ball of this radius fits. None: no search.
        smallest_component_voxels: foreground components with fewer voxels are left out.
        trees: "all" components, or only the "one" that holds the first root (Vaa3D: one).
        bridge_distance: join a branch end to another tree within this distance; 0 joins nothing (Vaa3D: 0).
        bridge_angle_degrees: largest angle between the direction of a branch end and the way to its partner.
        resample_step: distance between nodes along branches; 0 keeps every voxel (Vaa3D: 10).
    """

    kind: Literal["image", "mask", "probability"] = "image"
    spacing: tuple[float, float, float] = (1.0, 1.0, 1.0)
    threshold: float | None = None
    largest_foreground_share: float = 0.1
    connectivity: int = 2
    cost: Literal["distance", "brightness", "log_probability"] = "distance"
    cross_gaps: bool = False
    shortest_segment: float = 5.0
    coverage_ratio: float = 1 / 3
    drop_dark_segments: bool = True
    radius_threshold: float | None = None
    radius_in_plane: bool = True
    roots: tuple[tuple[float, float, float], ...] | None = None
    soma_radius: float | None = None
    smallest_component_voxels: int = 10
    trees: Literal["all", "one"] = "all"
    bridge_distance: float = 15.0
    bridge_angle_degrees: float = 60.0
    resample_step: float = 2.0

    def __post_init__(self) -> None:
        _one_of("kind", self.kind, ("image", "mask", "probability"))
        _one_of("connectivity", self.connectivity, (1, 2, 3))
        _one_of("cost", self.cost, ("distance", "brightness", "log_probability"))
        _one_of("trees", self.trees, ("all", "one"))
        if len(self.spacing) != 3:
            raise InputError(f"spacing needs three voxel sizes (z, y, x), got {self.spacing}")
        for size in self.spacing:
            _within("spacing", size, 0, math.inf, open_below=True)
        _within("largest_foreground_share", self.largest_foreground_share, 0, 1, open_below=True)
        for name in ("shortest_segment", "coverage_ratio", "smallest_component_voxels", "bridge_distance"):
            _within(name, getattr(self, name), 0, math.inf)
        _within("resample_step", self.resample_step, 0, math.inf)
        _within("bridge_angle_degrees", self.bridge_angle_degrees, 0, 180)
        if self.roots is not None and not (self.roots and all(len(root) == 3 for root in self.roots)):
            raise InputError(f"roots are one or more positions (z, y, x), got {self.roots}")
        if self.soma_radius is not None:
            _within("soma_radius", self.soma_radius, 0, math.inf, open_below=True)
        if self.kind == "mask" and not (self.threshold is None and self.radius_threshold is None):
            raise InputError("kind mask takes no threshold: leave it out, or give the volume as an image")
        if self.cost == "log_probability" and self.kind != "probability":
            raise InputError(f'cost "log_probability" needs kind "probability", got kind "{self.kind}"')


def _one_of(name: str, value: object, known: tuple[object, ...]) -> None:
    if value not in known:
        raise InputError(f"{name} is one of {', '.join(map(str, known))}; got {value!r}")


def _within(name: str, value: float, low: float, high: float, *, open_below: bool = False) -> None:
    if not (low <= value <= high) or (open_below and value == low) or math.isinf(value):
        raise InputError(f"{name} lies between {low} and {high}{' (more than 0)' if open_below else ''}; got {value}")
