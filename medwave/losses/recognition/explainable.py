"""Channels that each fire on one part of the face: an ECLoss-style loss, derived, not the authors' formulas.

The formulas of the ECLoss paper (arXiv 2207.02179, "Activation Template Matching Loss for Explainable Face
Recognition") could not be recovered. What follows is a design of medwave after its idea: no part labels, no extra
data, one chosen convolutional layer. ``variant="mi"`` is the mutual-information loss of the parent method
(arXiv 1710.00935) instead.

Conventions
    As in :mod:`medwave.losses.recognition.interface` and :mod:`medwave.losses.recognition.channel_templates`. Peaks,
    levels, gates and running means carry no gradient.

Terms, for maps ``X = relu(maps)``, each over channels ``c`` and samples ``b``
    A channel's level is a running mean of its peak height. A map is active when its peak is above ``gate`` levels.

    match        active maps: one minus the cosine of the map and a cone at its peak
    silence      inactive maps: mean value over the channel's level (weight 0.1)
    consistency  active maps: one minus the cosine of the other channels' values at the peak and their running mean for
                 this channel: the same part on each face, wherever it lies (weight 0.5)
    division     overlap of what different groups of channels look at (weight 0.5)
    balance      how unevenly the groups fire (weight 0.1)
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor

from medwave.core.errors import GeometryError, InputError
from medwave.losses.recognition.channel_templates import (
    TINY,
    cone_mismatch,
    group_imbalance,
    group_overlap,
    slopes,
    template_information,
)
from medwave.losses.recognition.gathering import gather_batch
from medwave.losses.recognition.interface import LossParts, RecognitionLoss, added
from medwave.losses.recognition.memory import EmpiricalPrototypes
from medwave.losses.recognition.scores import unit

WEIGHTS = {"match": 1.0, "silence": 0.1, "consistency": 0.5, "division": 0.5, "balance": 0.1}


class ECLoss(RecognitionLoss):
    """A recognition loss, and beside it a loss that makes channels explain themselves (see the module).

    The second has weight 0 at the start and ``weight`` from a share ``ramp`` of the training on (``set_progress``).

    Args:
        face: recognition loss on features and labels, such as CosFace or UniTSFace.
        channels: of the maps.
        groups: of channels, each for one part; a divisor of ``channels``.
        variant: ``"template"`` for the terms of the module, ``"mi"`` for mutual information with templates.
        weight: of the second loss.
        ramp: share of the training over which the weight grows.
        beta: slope of the cones; they reach 0 at a distance of ``n / beta``.
        gate: share of its level that a peak must pass for a map to be active.
        momentum: of the running means.
        descriptor_channels: of the maps that describe a place, when they are not the maps themselves.

    Raises:
        InputError: when an option is out of its range, or groups do not divide the channels.
    """

    levels: Tensor
    levels_set: Tensor

    def __init__(
        self, face: RecognitionLoss, channels: int, *, groups: int = 8,
        variant: Literal["template", "mi"] = "template", weight: float = 0.1, ramp: float = 0.2, beta: float = 4.0,
        gate: float = 0.5, momentum: float = 0.9, descriptor_channels: int | None = None,
    ) -> None:  # fmt: skip
        super().__init__(face.classes, face.dimension)
        if variant not in ("template", "mi"):
            raise InputError(f'variant is "template" or "mi", got {variant!r}')
        if groups < 2 or channels < groups or channels % groups:
            raise InputError(f"groups are 2 or more and divide the channels, got {groups} for {channels} channels")
        shares = 0 < ramp <= 1 and 0 < gate < 1 and 0 <= momentum < 1
        if not (shares and 0 <= weight < math.inf and 0 < beta < math.inf):
            raise InputError(
                "ECLoss needs weight >= 0, ramp in (0, 1], beta > 0, gate in (0, 1) and momentum in [0, 1), got "
                f"{weight}, {ramp}, {beta}, {gate} and {momentum}"
            )
        self.face, self.channels, self.groups, self.variant = face, int(channels), int(groups), variant
        self.weight, self.ramp, self.beta = float(weight), float(ramp), float(beta)
        self.gate, self.momentum = float(gate), float(momentum)
        self.register_buffer("levels", torch.zeros(channels))
        self.register_buffer("levels_set", torch.zeros(channels, dtype=torch.bool))
        self.described = descriptor_channels
        self.places = EmpiricalPrototypes(channels, descriptor_channels or channels)

    def forward(  # type: ignore[override]
        self, features: Tensor, labels: Tensor, maps: Tensor, *, descriptors: Tensor | None = None,
        samples: Tensor | None = None,
    ) -> LossParts:  # fmt: skip
        """The loss.

        Args:
            features, labels, samples: as in ``RecognitionLoss``.
            maps: output of the chosen layer, before or after its ReLU, ``(B, channels, h, w)``.
            descriptors: ``(B, descriptor_channels, h, w)``, where the loss was built for such.

        Raises:
            GeometryError: when shapes do not fit.
            InputError: for labels as in ``RecognitionLoss``.
        """
        maps, descriptors = self._exact_maps(features, maps, descriptors)
        features, labels, samples = self._whole_batch(features, labels, samples)
        with torch.autocast(features.device.type, enabled=False):
            if self.training:
                maps = gather_batch(maps)
                descriptors = descriptors if descriptors is None else gather_batch(descriptors)
            parts = self.face._parts(features, labels, samples)
            weight = self.weight * min(1.0, float(self.progress[0] / self.progress[1]) / self.ramp)
            if not len(maps):
                explained = dict.fromkeys(("information",) if self.variant == "mi" else WEIGHTS, maps.sum())
            else:
                explained = self._information(maps) if self.variant == "mi" else self._templates(maps, descriptors)
            return added(parts | {name: weight * value for name, value in explained.items()})

    def set_progress(self, epoch: float, epochs: float = 1.0) -> None:
        """As in ``RecognitionLoss``; tells the inner loss too."""
        super().set_progress(epoch, epochs)
        self.face.set_progress(epoch, epochs)

    def _information(self, maps: Tensor) -> dict[str, Tensor]:
        slope = slopes(maps.shape[2], maps.shape[3], self.beta, maps)
        return {"information": -template_information(maps.relu().flatten(2), slope).mean()}

    def _templates(self, maps: Tensor, descriptors: Tensor | None) -> dict[str, Tensor]:
        flat = maps.relu().flatten(2)
        heights, peaks = flat.detach().max(dim=2)
        levels = self._levels(heights)
        active = heights > self.gate * levels
        mismatch = cone_mismatch(flat, peaks, slopes(maps.shape[2], maps.shape[3], self.beta, maps))
        terms = {
            "match": _mean_where(active, mismatch),
            "silence": _mean_where(~active, flat.mean(dim=2) / (levels + TINY)),
            "consistency": self._inconsistency(flat, peaks, active, descriptors),
            "division": group_overlap(flat, self.groups),
            "balance": group_imbalance(flat, self.groups),
        }
        return {name: WEIGHTS[name] * value for name, value in terms.items()}

    def _levels(self, heights: Tensor) -> Tensor:
        """Running mean of each channel's peak height, this batch included."""
        if self.training:
            mean = heights.mean(dim=0).to(self.levels.dtype)
            moved = torch.where(self.levels_set, self.momentum * self.levels + (1 - self.momentum) * mean, mean)
            sound = mean.isfinite()
            self.levels.copy_(torch.where(sound, moved, self.levels))
            self.levels_set |= sound
        return self.levels.to(heights.dtype).clone()

    def _inconsistency(self, flat: Tensor, peaks: Tensor, active: Tensor, descriptors: Tensor | None) -> Tensor:
        """One minus the cosine of what lies at each peak and what usually does, mean over active maps."""
        source = flat if descriptors is None else descriptors.flatten(2)
        found = source.gather(2, peaks[:, None].expand(-1, source.shape[1], -1)).transpose(1, 2)  # (B, C, described)
        if descriptors is None:  # a channel does not describe itself
            found = found.masked_fill(torch.eye(self.channels, dtype=torch.bool, device=flat.device), 0)
        found = unit(found)
        channel = torch.arange(self.channels, device=flat.device).expand(len(flat), -1)
        if self.training:
            self.places.update(found.detach()[active], channel[active], lambda s: torch.full_like(s, self.momentum))
        counts = active & self.places.filled & (found.detach().norm(dim=2) > 0.5)
        return _mean_where(counts, 1 - (found * self.places.rows.to(found.dtype)).sum(dim=2))

    def _exact_maps(self, features: Tensor, maps: Tensor, descriptors: Tensor | None) -> tuple[Tensor, Tensor | None]:
        if maps.ndim != 4 or maps.shape[:2] != (len(features), self.channels):
            raise GeometryError(
                f"the maps are ({len(features)}, {self.channels}, h, w) for these features, got {tuple(maps.shape)}"
            )
        wanted = None if self.described is None else (len(maps), self.described, *maps.shape[2:])
        came = None if descriptors is None else tuple(descriptors.shape)
        if came != wanted:
            raise GeometryError(f"the descriptors must be {wanted} (descriptor_channels of this loss), got {came}")
        exact = torch.promote_types(maps.dtype, torch.float32)
        return maps.to(exact), descriptors if descriptors is None else descriptors.to(exact)


def _mean_where(mask: Tensor, values: Tensor) -> Tensor:
    """Mean of the values that count; 0 for none."""
    return torch.where(mask, values, 0).sum() / mask.sum().clamp_min(1)
