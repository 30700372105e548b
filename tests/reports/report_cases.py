"""Small volumes and reports that the tests of the reports share."""

from html.parser import HTMLParser
from itertools import permutations, product

import numpy as np

from medwave.core.geometry import Grid, Volume
from medwave.reports import RegistrationReport

ORIENTATIONS = [(order, flips) for order in permutations(range(3)) for flips in product((False, True), repeat=3)]
"""All 48 ways to store a volume."""


def stored(canonical: np.ndarray, spacing_mm, order, flips) -> tuple[np.ndarray, np.ndarray]:
    """A canonical (R, A, S) array stored with axis ``i`` along world axis ``order[i]``, backwards where flipped.

    Returns the array and its affine; every voxel keeps its place in the world.
    """
    data = np.transpose(canonical, order)
    affine = np.zeros((4, 4))
    affine[3, 3] = 1
    for i, (world, back) in enumerate(zip(order, flips, strict=True)):
        step = spacing_mm[world]
        affine[world, i] = -step if back else step
        affine[world, 3] = step * (canonical.shape[world] - 1) if back else 0.0
        if back:
            data = np.flip(data, i)
    return np.ascontiguousarray(data), affine


def stored_field(field: np.ndarray, order, flips) -> np.ndarray:
    """A canonical field ``(3, R, A, S)`` in voxels for :func:`stored`: components along the stored axes."""
    components = []
    for world, back in zip(order, flips, strict=True):
        turned, _ = stored(field[world], (1, 1, 1), order, flips)
        components.append(-turned if back else turned)
    return np.stack(components)


def ball(shape, spacing_mm=(1, 1, 1), radius_mm=20.0) -> np.ndarray:
    """A soft ball of height 100 in the middle of a grid."""
    axes = [(np.arange(n) - (n - 1) / 2) * s for n, s in zip(shape, spacing_mm, strict=True)]
    r = np.sqrt(sum(a**2 for a in np.meshgrid(*axes, indexing="ij")))
    return (100 / (1 + np.exp((r - radius_mm) / 0.7))).astype(np.float32)


def volume(data: np.ndarray, affine=None, name="volume") -> Volume:
    return Volume(data, Grid(data.shape, np.eye(4) if affine is None else affine), name)


def full_report(**changes) -> RegistrationReport:
    """A report on balls with every field filled."""
    shape = (48, 52, 44)
    fixed = ball(shape)
    rng = np.random.default_rng(3)
    labels = (fixed > 50).astype(np.int16)
    fields = {
        "fixed": volume(fixed, name="fixed.nii.gz"),
        "moving": volume(ball((40, 40, 40), radius_mm=15), name="moving.nii.gz"),
        "warped": np.roll(fixed, 1, axis=0),
        "before": np.roll(fixed, 9, axis=0),
        "affine_only": np.roll(fixed, 4, axis=1),
        "displacement_voxels": rng.normal(0, 0.3, (3, *shape)).astype(np.float32),
        "jacobian": np.ones(shape, dtype=np.float32),
        "fixed_labels": labels,
        "warped_labels": np.roll(labels, 1, axis=0),
        "figures": [
            ("Local correlation", 0.2137, 0.4313, 0.8379, "", "windows of 9 voxels", "higher"),
            ("Inverse consistency", None, None, 0.0412, "mm", "", "lower"),
            ("Slope", 0.5, None, 0.75, "", "", "lower"),
        ],
        "dice": {17: ("Left hippocampus", 0.411, 0.823), 53: ("Right hippocampus", 0.5, 0.75)},
        "true_error_mm": np.full(shape, 0.7, dtype=np.float32),
        "true_error_mean_mm": (3.21, 0.84),
        "status": "ok",
        "messages": [],
        "stages": [("affine", 3.1, 1.8, 512.0), ("refine", 8.9, 5.0, 1730.0)],
        "options": {"levels": [8, 4, 2, 1], "network": None},
        "versions": {"medwave": "0.1.0"},
        "files": {"Warped image": ("warped.nii.gz", "moving image on the fixed grid")},
        "command_line": "medwave register fixed.nii.gz moving.nii.gz",
    }
    return RegistrationReport(**{**fields, **changes})


class Page(HTMLParser):
    """Text, images, links, headings and captions of an HTML page."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.images: list[dict[str, str]] = []
        self.links: list[str] = []
        self.addresses: list[str] = []
        self.headings: list[tuple[int, str]] = []
        self.tags: list[str] = []
        self.ids: set[str] = set()
        self.captions = 0
        self.rows: list[list[str]] = []
        self.words: list[str] = []
        self._open: list[str] = []
        self.feed(html)
        self.text = " ".join(" ".join(self.words).split())

    def handle_starttag(self, tag, attrs):
        given = {name: value or "" for name, value in attrs}
        self.tags.append(tag)
        self.addresses += [given[a] for a in ("src", "href", "srcset", "data", "action") if a in given]
        if "id" in given:
            self.ids.add(given["id"])
        if tag == "img":
            self.images.append(given)
        if tag == "a":
            self.links.append(given.get("href", ""))
        if tag == "caption":
            self.captions += 1
        if tag in ("h1", "h2", "h3", "h4"):
            self.headings.append((int(tag[1]), ""))
        if tag == "tr":
            self.rows.append([])
        if tag in ("td", "th"):
            self.rows[-1].append("")
        if tag not in ("img", "meta", "link", "input", "br", "wbr"):
            self._open.append(tag)

    def handle_endtag(self, tag):
        assert self._open.pop() == tag, f"</{tag}> closes nothing"

    def handle_data(self, data):
        if self._open and self._open[-1] in ("style", "script"):
            return
        self.words.append(data)
        if {"td", "th"} & set(self._open):
            self.rows[-1][-1] += data.strip()
        if self._open and self._open[-1] in ("h1", "h2", "h3", "h4"):
            self.headings[-1] = (self.headings[-1][0], self.headings[-1][1] + data)
