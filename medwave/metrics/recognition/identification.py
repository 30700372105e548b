"""Who is it: the nearest of a gallery, by cosine.

Conventions
    Embeddings are ``(n, d)``, identities whole numbers ``(n,)``. A probe is found when some image of its identity is
    nearer than all images of others; a tie is not found. Galleries may come in parts and hold distractors.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from medwave.core.errors import GeometryError, InputError
from medwave.metrics.recognition.arrays import Float64Array, unit_rows, whole

_BLOCK = 4096


def cosine_pairs(first: Any, second: Any) -> Float64Array:
    """Cosine of each row of one array with the same row of the other, ``(n,)``.

    Raises:
        GeometryError: when the shapes differ.
        InputError: for a row of zeros, NaN or infinity.
    """
    a, b = unit_rows(first, "embeddings (n, d)"), unit_rows(second, "embeddings (n, d)")
    if a.shape != b.shape:
        raise GeometryError(f"pairs are two arrays of one shape, got {a.shape} and {b.shape}")
    return np.einsum("nd,nd->n", a, b)


class Identification:
    """Probes that are looked up in a gallery which comes in parts; two numbers per probe are kept.

    Args:
        probes: ``(n, d)``.
        identities: ``(n,)``.

    Raises:
        GeometryError: when shapes do not fit.
        InputError: for no probes, a row of zeros, NaN or infinity.
    """

    def __init__(self, probes: Any, identities: Any) -> None:
        self._probes = unit_rows(probes, "probes (n, d)")
        self._identities = whole(identities, len(self._probes), "identities")
        if not len(self._probes):
            raise InputError("there are no probes to look up")
        self._own = np.full(len(self._probes), -np.inf)
        self._other = np.full(len(self._probes), -np.inf)

    def update(self, gallery: Any, identities: Any) -> None:
        """Take a part of the gallery in; raises as the constructor, and GeometryError for another ``d``."""
        rows = unit_rows(gallery, "gallery (n, d)")
        names = whole(identities, len(rows), "identities")
        if rows.shape[1] != self._probes.shape[1]:
            raise GeometryError(f"probes have {self._probes.shape[1]} features, the gallery {rows.shape[1]}")
        for start in range(0, len(rows), _BLOCK):
            cosine = self._probes @ rows[start : start + _BLOCK].T
            own = self._identities[:, None] == names[start : start + _BLOCK]
            np.maximum(self._own, np.where(own, cosine, -np.inf).max(axis=1), out=self._own)
            np.maximum(self._other, np.where(own, -np.inf, cosine).max(axis=1), out=self._other)

    def rank1(self) -> float:
        """Share of probes that are found; raises InputError when the gallery lacks the identity of a probe."""
        missing = np.unique(self._identities[np.isneginf(self._own)])
        if len(missing):
            raise InputError(f"the gallery has no image of {len(missing)} identities, such as {missing[0]}")
        return float(np.mean(self._own > self._other))


def rank1_identification(probes: Any, identities: Any, gallery: Any, gallery_identities: Any) -> float:
    """Share of probes whose nearest in the gallery is of their identity; see :class:`Identification`."""
    search = Identification(probes, identities)
    search.update(gallery, gallery_identities)
    return search.rank1()
