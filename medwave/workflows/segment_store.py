"""The folder of a segmentation while it grows: what it holds, and which blocks are finished.

``segmentation.json`` pins everything that shapes a probability: the input, the weights, where cubes lie. A run with
other values is refused, as is one whose store holds the images of another run. ``segmentation.blocks`` gets a line when
a block of ``probability.ome.zarr`` is written, so that a killed run goes on with the next; a line that a kill cut short
does not count, and its block is written again, with the same values. The mask follows from the probability alone, and
is made anew by every run.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medwave.core.errors import MedwaveError, OutputError
from medwave.core.files import StrPath, json_text, write_json
from medwave.cubes import Box
from medwave.cubes.plan import Triple
from medwave.volumes import LazyVolume, OmeZarrImage, build_pyramid, create_ome_zarr
from medwave.volumes.location import absolute, is_url, location, remove_store
from medwave.workflows.segment_pieces import NONE_SMALL, Pieces, Small, fibre_without, label_fibre, small_pieces

PROBABILITY, MASK = "probability.ome.zarr", "mask.ome.zarr"
RECORD, JOURNAL = "segmentation.json", "segmentation.blocks"
FORMAT = "medwave-segmentation-1"
FIBRE = 255
"""Value of fibre in a mask."""


def keep_input(path: StrPath, *targets: Path) -> None:
    """Refuse results of which one would replace an input.

    Raises:
        OutputError: naming the input.
    """
    for target in targets:
        here = not is_url(path) and not is_url(target) and target.exists() and location(path).exists()
        if str(target) == str(location(path)) or (here and target.samefile(location(path))):
            raise OutputError(f"{path}: a result would replace this input; choose another output folder")


class SegmentStore:
    """A segmentation that begins or goes on.

    Args:
        folder: where it lies.
        pinned: what may not change between the runs that make it, as plain values.
        images: folder or URL of the probability and the mask; the folder itself when left out.
        shard: voxels along each side of the files of the images; 0: a file per chunk.

    Attributes:
        finished: starts of the blocks that are written.

    Raises:
        OutputError: when the folder holds another segmentation or foreign results, or cannot be written.
    """

    def __init__(self, folder: Path, pinned: dict[str, Any], images: Path | None = None, shard: int = 0) -> None:
        self.folder, self.images, self.shard = folder, images or folder, shard
        self.store = None if absolute(self.images) == absolute(folder) else absolute(self.images)
        self.pinned: dict[str, Any] = json.loads(json_text(pinned))
        self.finished: set[Triple] = set()
        self._known = self._check()
        self._journal = -1

    @contextlib.contextmanager
    def open(self, volume: LazyVolume) -> Iterator[OmeZarrImage]:
        """The probability to write blocks to, which lies on the volume.

        Raises:
            OutputError: when it cannot be written.
        """
        with _writing(self.folder / JOURNAL):
            self._journal = os.open(self.folder / JOURNAL, os.O_RDWR | os.O_CREAT, 0o666)
        try:
            self._read_journal()
            write_json(self.folder / RECORD, {"format": FORMAT, "store": self.store, **self.pinned})
            yield self._image(volume)
        finally:
            os.close(self._journal)
            self._journal = -1

    def finish(self, block: Box) -> None:
        """Note that a block is written.

        Raises:
            OutputError: when that cannot be written.
        """
        with _writing(self.folder / JOURNAL):
            line = " ".join(map(str, block.start)) + "\n"
            if os.write(self._journal, line.encode()) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        self.finished.add(block.start)

    def _check(self) -> bool:
        """Whether the folder holds this segmentation already; any other is refused."""
        path = self.folder / RECORD
        there = [name for name in (PROBABILITY, MASK) if (self.images / name).exists()]
        if not path.exists():
            if there:
                raise OutputError(
                    f"{self.images}: holds {there[0]}, but no {RECORD} of the run that made it; choose another folder"
                )
            return False
        try:
            known = json.loads(path.read_text(encoding="utf-8"))
            if known.pop("format") != FORMAT:
                raise ValueError
        except (OSError, ValueError, KeyError, AttributeError):
            raise OutputError(f"{path}: not a usable record of a segmentation; choose another folder") from None
        if there and known.get("store", self.store) != self.store:
            raise OutputError(
                f"{self.images}: holds {there[0]} of another run, that of {self.folder} has its images in "
                f"{known['store'] or self.folder}; repeat its command, or choose another --store"
            )
        other = [name for name in self.pinned if known.get(name) != self.pinned[name]]
        if other:
            said = ", ".join(f"{n}: {_short(known.get(n))} there, {_short(self.pinned[n])} now" for n in other[:3])
            raise OutputError(
                f"{self.folder}: holds a segmentation of another kind ({said}); repeat its command, or choose another "
                "folder"
            )
        return True

    def _read_journal(self) -> None:
        """Collect the finished blocks, and cut off what a kill left of a line."""
        content = b"".join(iter(lambda: os.read(self._journal, 1 << 20), b""))
        whole = content[: content.rfind(b"\n") + 1] if self._known else b""
        try:
            for line in whole.decode().splitlines():
                z, y, x = map(int, line.split())
                self.finished.add((z, y, x))
        except ValueError:
            raise OutputError(f"{self.folder / JOURNAL}: is damaged; choose another folder") from None
        with _writing(self.folder / JOURNAL):
            os.ftruncate(self._journal, len(whole))
            os.lseek(self._journal, len(whole), os.SEEK_SET)

    def _image(self, volume: LazyVolume) -> OmeZarrImage:
        path = self.images / PROBABILITY
        if path.exists():
            try:
                image = OmeZarrImage(path)
            except MedwaveError as error:
                if self.finished:
                    raise OutputError(f"{path}: is damaged ({error}); choose another folder") from None
                remove_store(path)  # killed while it was made
            else:
                for left in [] if is_url(path) else path.rglob("*.partial"):  # chunks that a kill cut short
                    left.unlink(missing_ok=True)
                return image
        elif self.finished:
            raise OutputError(
                f"{path}: is missing, though {JOURNAL} says that blocks of it are finished; choose another folder"
            )
        return _created(path, volume, self.shard)


def write_mask(
    images: Path, probability: OmeZarrImage, blocks: Sequence[Box], threshold: float, smallest_voxels: int = 0
) -> tuple[int, Pieces | None]:
    """Make ``mask.ome.zarr``, fibre where the probability is above the threshold, and the pyramids of both.

    Args:
        images: where it goes.
        probability: of fibre.
        blocks: outside of which nothing is fibre.
        threshold: 0 to 1.
        smallest_voxels: pieces with fewer are left out.

    Returns:
        How many voxels are fibre, and what became of the pieces when small ones were left out.

    Raises:
        OutputError: when it cannot be written.
    """
    mask = create_mask(images / MASK, probability)
    pieces, small = None, [NONE_SMALL] * len(blocks)
    if smallest_voxels > 1:
        pieces, small = small_pieces([label_fibre(probability, block, threshold) for block in blocks], smallest_voxels)
    fibre = sum(mask_block(probability, mask, *each, threshold) for each in zip(blocks, small, strict=True))
    build_pyramid(probability.path, method="mean")
    build_pyramid(mask.path, method="max")
    return fibre, pieces


def create_mask(path: Path, probability: OmeZarrImage) -> OmeZarrImage:
    """An empty mask like the probability, in place of one that is there.

    Raises:
        OutputError: when it cannot be written.
    """
    with _writing(path):
        remove_store(path)
    shard = 0 if probability.files == probability.chunks else max(probability.files)
    return _created(path, probability, shard)


def _created(path: Path, like: LazyVolume | OmeZarrImage, shard: int) -> OmeZarrImage:
    shards, version = ((shard,) * 3, "0.5") if shard else (None, "0.4")
    return create_ome_zarr(
        path, like.shape, np.uint8, spacing_um=like.spacing_um, offset_voxels=like.offset_voxels, shards=shards,
        version=version,
    )  # fmt: skip


def mask_block(probability: OmeZarrImage, mask: OmeZarrImage, block: Box, small: Small, threshold: float) -> int:
    """Write a block of the mask without its small pieces; returns how many of its voxels are fibre."""
    inside = fibre_without(probability, block, threshold, small)
    count = int(np.count_nonzero(inside))
    if count:
        mask.write(block.slices, np.where(inside, np.uint8(FIBRE), np.uint8(0)))
    return count


def as_bytes(probability: npt.NDArray[np.floating]) -> npt.NDArray[np.uint8]:
    """Probabilities 0 to 1 as 0 to 255."""
    return np.rint(np.clip(probability, 0, 1) * 255).astype(np.uint8)


def _short(value: Any) -> str:
    text = json.dumps(value)
    return text if len(text) <= 60 else text[:57] + "..."


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"{path}: cannot be written ({reason}); check the free space and permissions") from error
