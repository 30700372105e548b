"""Features of pictures, and what they decide: are two pictures of one identity, and who is it."""

from __future__ import annotations

import csv
import io
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from medwave.core.errors import InputError
from medwave.core.files import StrPath, check_output, write_text
from medwave.data.identities import open_identities
from medwave.data.pair_set import PairSet, open_pairs
from medwave.engine.embed import embed_pictures
from medwave.metrics import (
    FoldedAccuracy,
    TarAtFar,
    auroc,
    cosine_pairs,
    equal_error_rate,
    folded_accuracy,
    tar_at_far,
)
from medwave.models import FaceNet, open_network
from medwave.transforms.faces import align_face, fit_picture, normalise
from medwave.volumes.embeddings import (
    Embeddings,
    check_embeddings_name,
    holds_embeddings,
    read_embeddings,
    write_embeddings,
)
from medwave.volumes.face_points import read_face_points
from medwave.volumes.pair_list import read_pair_list
from medwave.workflows.recognition_options import EmbedOptions, VerifyOptions, rate_list

Progress = Callable[[int, int], None]
"""Told the number of pictures done, and of all."""

MATCH_COLUMNS = ("probe", "identity", "found", "found_identity", "score")
_BLOCK = 2048


class _Pictures(Protocol):
    @property
    def sources(self) -> Sequence[str]: ...

    def __len__(self) -> int: ...

    def picture(self, index: int) -> npt.NDArray[np.uint8]: ...


@dataclass(frozen=True)
class Verification:
    """What a list of pairs shows.

    Attributes:
        first, second: name of each picture of each pair.
        same: ``(n,)``, whether they show one identity.
        scores: ``(n,)``, cosines.
        accuracy: over the folds.
        equal_error_rate, auroc: see :mod:`medwave.metrics.recognition.verification`.
        accepted: wanted rate of false acceptance -> share of same pairs recognised, None where there are too few
            different pairs to measure it.
    """

    first: tuple[str, ...]
    second: tuple[str, ...]
    same: npt.NDArray[np.bool_]
    scores: npt.NDArray[np.float64]
    accuracy: FoldedAccuracy
    equal_error_rate: float
    auroc: float
    accepted: dict[float, TarAtFar | None]

    def as_dict(self) -> dict[str, Any]:
        """What was measured as plain values, as ``run.json`` holds it; the pairs are left to :func:`write_scores`."""
        return {
            "pairs": len(self.same), "accuracy": self.accuracy._asdict(), "auroc": self.auroc,
            "equal_error_rate": self.equal_error_rate,
            "tar_at_far": {f"{far:g}": None if t is None else t._asdict() for far, t in self.accepted.items()},
        }  # fmt: skip


@dataclass(frozen=True)
class Identified:
    """The nearest picture of the gallery for each probe.

    Attributes:
        probes, identities: name of each probe and of whom it is.
        found, found_identities: the same of the nearest picture of the gallery.
        scores: cosine of the two.
        rank1: share of the probes that are found among those whose identity the gallery has; None for none such.
        known: how many those are.
    """

    probes: tuple[str, ...]
    identities: tuple[str, ...]
    found: tuple[str, ...]
    found_identities: tuple[str, ...]
    scores: npt.NDArray[np.float64]
    rank1: float | None
    known: int

    def as_dict(self) -> dict[str, Any]:
        """Everything as plain values: the figures, and a row of ``matches`` per probe."""
        columns = (self.probes, self.identities, self.found, self.found_identities, self.scores.tolist())
        return {
            "probes": len(self.probes), "known": self.known, "rank1": self.rank1,
            "matches": [dict(zip(MATCH_COLUMNS, row, strict=True)) for row in zip(*columns, strict=True)],
        }  # fmt: skip


def embed(
    pictures: StrPath, output: StrPath | None = None, *, weights: StrPath, options: EmbedOptions | None = None,
    on_done: Progress = lambda done, total: None, **changes: Any,
) -> Embeddings:  # fmt: skip
    """Features of a set of pictures.

    Args:
        pictures: what :func:`medwave.data.open_identities` opens.
        output: ``.npz`` or ``.parquet`` to write.
        weights: of a face network, such as ``medwave train recognise`` writes.
        options: all options; single ones can be given by name.
        on_done: told how many pictures are done.

    Raises:
        OutputError: when the output is one of the inputs, or cannot be written.
        MedwaveError: another leaf, for files that are missing, damaged or do not fit.
    """
    options = replace(options or EmbedOptions(), **changes)
    if output is not None:
        check_embeddings_name(output)
        check_output(output, pictures, weights, *filter(None, [options.points]))
    whole = open_identities(pictures)
    features = _features(whole, open_network(weights, FaceNet), options, on_done)
    found = Embeddings(features, tuple(whole.sources), tuple(whole.names[label] for label in whole.labels))
    if output is not None:
        write_embeddings(output, found)
    return found


def verify(
    pairs: StrPath, *, images: StrPath | None = None, weights: StrPath | None = None,
    embeddings: StrPath | None = None, options: VerifyOptions | None = None,
    on_done: Progress = lambda done, total: None, **changes: Any,
) -> Verification:  # fmt: skip
    """Verify pairs of pictures.

    Args:
        pairs: a list of pairs (see :mod:`medwave.volumes.pair_list`), or a ``.bin`` of InsightFace.
        images: folder of the pictures that a list names.
        weights: of a face network; or
        embeddings: features of the pictures, by the names in the list.
        options: all options; single ones can be given by name.
        on_done: told how many pictures are done.

    Raises:
        InputError: when neither or both of weights and embeddings are given, features of a picture are missing, or the
            pairs are too few for their folds.
        MedwaveError: another leaf, for files that are missing or damaged.
    """
    options = replace(options or VerifyOptions(), **changes)
    if (weights is None) == (embeddings is None):
        raise InputError("pairs are verified by --weights of a network or by --embeddings that it gave: name one")
    if embeddings is not None:
        return _listed(pairs, read_embeddings(embeddings), embeddings, options)
    opened = open_pairs(pairs, images)
    features = _features(opened, open_network(weights, FaceNet), options, on_done)  # type: ignore[arg-type]
    return _verification(opened, features, options)


def identify(
    probes: StrPath, gallery: StrPath, *, weights: StrPath | None = None, options: EmbedOptions | None = None,
    on_done: Progress = lambda done, total: None, **changes: Any,
) -> Identified:  # fmt: skip
    """Find each probe in a gallery.

    Args:
        probes, gallery: pictures as :func:`embed` takes them, or files of features.
        weights: of a face network; not needed for files of features.
        options: all options; single ones can be given by name.
        on_done: told how many pictures are done.

    Raises:
        InputError: when both are one set (each picture would find itself), weights are missing, or features are all 0.
        MedwaveError: another leaf, for files that are missing or damaged.
    """
    options = replace(options or EmbedOptions(), **changes)
    if Path(probes).resolve() == Path(gallery).resolve():
        raise InputError(f"{probes}: is both probes and gallery, so that each picture would find itself; name two sets")
    ours, theirs = (_embeddings(path, weights, options, on_done) for path in (probes, gallery))
    if ours.features.shape[1] != theirs.features.shape[1]:
        raise InputError(
            f"features of one network are compared, got {ours.features.shape[1]} and {theirs.features.shape[1]} values"
        )
    for path, part in ((probes, ours), (gallery, theirs)):
        _check_directions(path, part)
    nearest, scores = _nearest(ours.features, theirs.features)
    found = tuple(theirs.identities[n] for n in nearest)
    there = set(theirs.identities)
    known = [one == other for one, other in zip(ours.identities, found, strict=True) if one in there]
    return Identified(
        ours.sources, ours.identities, tuple(theirs.sources[n] for n in nearest), found, scores,
        float(np.mean(known)) if known else None, len(known),
    )  # fmt: skip


def write_scores(path: StrPath, result: Verification) -> None:
    """A table of all pairs: ``first,second,same,score``; raises OutputError when it cannot be written."""
    rows = zip(result.first, result.second, result.same.astype(int), map("{:.6f}".format, result.scores), strict=True)
    _write_table(path, ("first", "second", "same", "score"), rows)


def write_matches(path: StrPath, result: Identified) -> None:
    """A table of all probes: ``probe,identity,found,found_identity,score``; raises OutputError likewise."""
    columns = (result.probes, result.identities, result.found, result.found_identities)
    rows = zip(*columns, map("{:.6f}".format, result.scores), strict=True)
    _write_table(path, MATCH_COLUMNS, rows)


def _write_table(path: StrPath, header: tuple[str, ...], rows: Any) -> None:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(header)
    writer.writerows(rows)
    write_text(path, text.getvalue())


def _features(pictures: _Pictures, network: FaceNet, options: EmbedOptions, on_done: Progress) -> Any:
    total = len(pictures)
    return embed_pictures(
        network, _prepared(pictures, network, options), flip=options.mirror, batch=options.batch,
        device=options.device, on_done=lambda done: on_done(done, total),
    )  # fmt: skip


def _prepared(pictures: _Pictures, network: FaceNet, options: EmbedOptions) -> Iterator[torch.Tensor]:
    """Pictures as the network takes them, aligned where points are given."""
    points = None if options.points is None else read_face_points(options.points)
    for n in range(len(pictures)):
        picture = pictures.picture(n)
        if points is not None:
            name = pictures.sources[n]
            if name not in points:
                raise InputError(f"{options.points}: has no points for {name}; give some for each picture")
            picture = align_face(picture, points[name], network.image_size)
        yield normalise(fit_picture(picture, network.image_size, network.in_channels))


def _embeddings(path: StrPath, weights: StrPath | None, options: EmbedOptions, on_done: Progress) -> Embeddings:
    if holds_embeddings(path):
        return read_embeddings(path)
    if weights is None:
        raise InputError(f"{path}: pictures are identified by a network; name its --weights")
    return embed(path, weights=weights, options=options, on_done=on_done)


def _check_directions(path: StrPath, there: Embeddings) -> None:
    zero = np.flatnonzero(~there.features.any(axis=1))
    if len(zero):
        raise InputError(
            f"{path}: the features of {there.sources[zero[0]]} are all 0, which is like nothing; leave this picture out"
        )


def _listed(path: StrPath, there: Embeddings, name: StrPath, options: VerifyOptions) -> Verification:
    """Pairs of a list, scored by features that are there; a name in the list may lack its ending."""
    listed = read_pair_list(path)
    exact = {source: n for n, source in enumerate(there.sources)}
    rows = {str(Path(source).with_suffix("")): n for source, n in exact.items() if Path(source).suffix} | exact
    missing = next((each for each in listed.first + listed.second if each not in rows), None)
    if missing is not None:
        raise InputError(f"{name}: has no features of {missing}, which {path} names")
    pairs = PairSet(list(zip(listed.first, listed.second, strict=True)), listed.same, listed.folds)
    return _verification(pairs, there.features[[rows[source] for source in pairs.sources]], options)


def _verification(pairs: PairSet, features: npt.NDArray[np.float32], options: VerifyOptions) -> Verification:
    scores, same = cosine_pairs(features[pairs.first], features[pairs.second]), pairs.same
    first, second = (tuple(pairs.sources[n] for n in side) for side in (pairs.first, pairs.second))
    negatives = int((~same).sum())
    measurable = {rate: Fraction(repr(rate)) * negatives >= 1 for rate in rate_list(options.far)}
    accepted = {rate: tar_at_far(scores, same, rate) if enough else None for rate, enough in measurable.items()}
    return Verification(
        first, second, same, scores, folded_accuracy(scores, same, options.folds or pairs.folds or 10),
        equal_error_rate(scores, same).rate, auroc(scores, same), accepted,
    )  # fmt: skip


def _nearest(probes: Any, gallery: Any) -> tuple[list[int], npt.NDArray[np.float64]]:
    """Place in the gallery and cosine of the nearest row, for each probe."""
    a, b = (x.astype(np.float64) / np.linalg.norm(x, axis=1, keepdims=True) for x in (probes, gallery))
    places, scores = [], []
    for start in range(0, len(a), _BLOCK):
        cosine = a[start : start + _BLOCK] @ b.T
        places += cosine.argmax(axis=1).tolist()
        scores.append(cosine.max(axis=1))
    return places, np.concatenate(scores)
