"""What is measured of a classifier besides its accuracy: corruptions, shifts, attacks.

Networks take images in [0, 1] (:class:`medwave.workflows.image_answers.OfUnit`); images are uint8 ``(H, W, C)``, all of
one size. Whatever is drawn follows from the seed and the number of the image, so that networks see the same.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from medwave.engine.attacks import attack, carlini_wagner, least_change
from medwave.metrics import shift_consistency
from medwave.transforms.corruptions import CORRUPTIONS, SEVERITIES, corrupt
from medwave.transforms.images import RESIZE_RATIO, unit_tensor
from medwave.workflows.image_answers import Bytes, answers

EPSILONS = (1, 2, 4, 8)
"""Half-widths of the boxes of attacks, in steps of a byte."""

ATTACK_KINDS = ("fgsm", "pgd", "mifgsm")
"""Attacks that are tried."""


class Attacked(NamedTuple):
    """Accuracy under an attack: its kind and the half-width of its box, in steps of a byte."""

    kind: str
    epsilon: int
    accuracy: float


def corrupted(
    images: Sequence[Bytes], seed: int, kinds: Sequence[str] = CORRUPTIONS
) -> Iterator[tuple[str, int, list[Bytes]]]:
    """Kind, severity and all images corrupted so, one after the other."""
    for kind in kinds:
        for severity in SEVERITIES:
            yield kind, severity, [corrupt(image, kind, severity, seed=seed + i) for i, image in enumerate(images)]


def consistency(
    network: nn.Module, images: Sequence[Bytes], *, passes: int, seed: int, batch: int, device: str
) -> float:  # fmt: skip
    """Share of pairs of shifted crops with the same answer; a shift for each image and pass.

    Images are continued by their mirror image to 256/224 of their size; crops have the size of the image. (From 256
    pixels, 224 are cropped at 0 to 31; this is that share of any size.)
    """
    height, width = images[0].shape[:2]
    margin = max(1, round(min(height, width) * (RESIZE_RATIO - 1)))
    before = margin // 2
    pads = ((before, margin - before), (before, margin - before), (0, 0))
    larger = [np.pad(image, pads, mode="reflect") for image in images]
    rng, shares = np.random.default_rng((seed, 11)), []
    for _ in range(passes):
        found = []
        for _ in range(2):
            at = rng.integers(0, margin, (len(images), 2))
            crops = [p[r : r + height, c : c + width] for p, (r, c) in zip(larger, at, strict=True)]
            found.append(answers(network, crops, batch=batch, device=device))
        shares.append(shift_consistency(*found))
    return float(np.mean(shares))


def attacked(
    network: nn.Module,
    images: Sequence[Bytes],
    truth: np.ndarray,
    *,
    steps: int,
    seed: int,
    batch: int,
    device: str,
    kinds: Sequence[str] = ATTACK_KINDS,
    epsilons: Sequence[int] = EPSILONS,
    on_done: Callable[[], None] = lambda: None,
) -> list[Attacked]:
    """Accuracy under each attack in each box."""
    results = []
    for kind in kinds:
        for epsilon in epsilons:
            right = 0
            for start in range(0, len(images), batch):
                part = torch.stack([unit_tensor(image) for image in images[start : start + batch]]).to(device)
                labels = torch.from_numpy(truth[start : start + batch]).to(device)
                made = attack(network, part, labels, kind, epsilon / 255, steps=steps, seed=seed + start)
                with torch.inference_mode():
                    right += int((network(made).argmax(1) == labels).sum())
            results.append(Attacked(kind, epsilon, right / len(images)))
            on_done()
    return results


def least_change_length(
    network: nn.Module, images: Sequence[Bytes], truth: np.ndarray, *, steps: int, batch: int, device: str,
    optimised: bool = False,
) -> float | None:  # fmt: skip
    """Median over the images that are got right of the length (L2, of samples in [0, 1]) of a change that fools.

    An image that is right after the last step counts as infinitely far; None where the median image is, or where no
    image is got right. Changes are those of DeepFool or, ``optimised``, of Carlini and Wagner.
    """
    shorten = carlini_wagner if optimised else least_change
    lengths: list[Tensor] = []
    for start in range(0, len(images), batch):
        part = torch.stack([unit_tensor(image) for image in images[start : start + batch]]).to(device)
        labels = torch.from_numpy(truth[start : start + batch]).to(device)
        made = shorten(network, part, labels, steps=steps)
        with torch.inference_mode():
            right, kept = (network(x).argmax(1) == labels for x in (part, made))
        length = (made - part).flatten(1).norm(dim=1).masked_fill(kept, torch.inf)
        lengths.append(length[right].cpu())
    median = float(np.median(torch.cat(lengths))) if sum(map(len, lengths)) else math.inf
    return median if math.isfinite(median) else None


def spread(count: int, wanted: int) -> np.ndarray:
    """Numbers of ``wanted`` of ``count`` images, evenly spread; all where ``wanted`` is 0 or more than there are."""
    if not wanted or wanted >= count:
        return np.arange(count)
    return np.linspace(0, count - 1, wanted).round().astype(int)
