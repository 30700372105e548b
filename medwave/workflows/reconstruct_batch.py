"""Reconstruct many volumes: a folder each, one table at the end; bad ones are listed, and complete ones passed over.

Volumes are named one by one, or come from a folder, or from a CSV table with a column ``volume`` and, where wanted,
``gold`` (SWC of the true tree) and ``name``; its paths are relative to it. Results lie in ``DIR/NAME``, where the name
is that of the volume without its endings. ``summary.csv`` has a row per volume and is written after each.
"""

from __future__ import annotations

import csv
import io
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medwave.core.errors import InputError, MedwaveError
from medwave.core.files import StrPath, input_file, write_text
from medwave.volumes import open_stack
from medwave.volumes.ome_zarr import is_zarr
from medwave.volumes.open import is_stack
from medwave.workflows.options_neurons import ReconstructOptions
from medwave.workflows.reconstruct import reconstruct, request
from medwave.workflows.run_folder import MARK, result_folder
from medwave.workflows.segment import BlockProgress

SUMMARY = "summary.csv"
COLUMNS = (
    "name", "volume", "status", "error", "nodes", "tips", "branches", "components", "length", "units",
    "f1", "precision", "recall", "esa", "fibre_voxels", "wall_s",
)  # fmt: skip
_TRIED = 8
"""Files of a folder that are opened to tell whether they are volumes or slices."""

DONE, BEFORE, FAILED = "done", "complete before", "failed"


@dataclass(frozen=True)
class Item:
    """One volume of a batch: its name, which is that of its folder, and its true tree where there is one."""

    name: str
    volume: Path
    gold: Path | None = None


@dataclass(frozen=True)
class ItemResult:
    """What became of an item: a status, the error when it failed, and its ``run.json`` otherwise."""

    item: Item
    status: str
    error: str = ""
    run: dict[str, Any] = field(default_factory=dict)
    wall_s: float = 0.0

    def row(self) -> dict[str, Any]:
        """Its row of the summary."""
        tree = {"components" if k == "roots" else k: v for k, v in self.run.get("tree", {}).items()}
        scores = (self.run.get("scores") or {}).get("scores", {})
        known = {
            **tree, **scores, "units": self.run.get("options", {}).get("units"),
            "fibre_voxels": self.run.get("fibre_voxels"), "name": self.item.name, "volume": str(self.item.volume),
            "status": self.status, "error": self.error, "wall_s": round(self.wall_s, 1),
        }  # fmt: skip
        return {column: "" if known.get(column) is None else known[column] for column in COLUMNS}


def batch_items(sources: Sequence[StrPath]) -> list[Item] | None:
    """The volumes that were named, found in a folder or listed in a table; None when it is just one volume.

    Raises:
        MissingFileError, InputError: for a table that cannot be read, or lacks a column or a value.
    """
    if len(sources) == 1:
        source = Path(sources[0])
        if source.suffix.lower() == ".csv":
            return _named(_table(source))
        if source.is_dir() and not is_zarr(source) and source.suffix.lower() != ".zarr":
            found = _volumes_in(source)
            return _named([("", path, None) for path in found]) if found else None
        return None
    return _named([("", Path(source), None) for source in sources])


def reconstruct_batch(
    items: Sequence[Item],
    output: StrPath,
    *,
    weights: StrPath | None = None,
    options: ReconstructOptions | None = None,
    command_line: str = "",
    on_item: Callable[[Item, int], None] | None = None,
    on_stage: Callable[[str], None] | None = None,
    on_progress: Callable[[BlockProgress], None] | None = None,
) -> list[ItemResult]:
    """Reconstruct volumes one after another; an item that fails is noted, and the next one begins.

    Args:
        items: such as :func:`batch_items` gives.
        output: the folder; made when absent.
        weights, options, command_line, on_stage, on_progress: as for :func:`medwave.reconstruct`.
        on_item: told each item and its number, from 0, when it begins.

    Raises:
        OutputError: when the folder or the summary cannot be written.
    """
    options = options or ReconstructOptions()
    results: list[ItemResult] = []
    with result_folder(output) as folder:
        for number, item in enumerate(items):
            if on_item:
                on_item(item, number)
            began, run = time.monotonic(), _complete(folder / item.name, item, weights, options)
            if run is not None:
                results.append(ItemResult(item, BEFORE, run=run))
            else:
                try:
                    reconstruct(
                        item.volume, folder / item.name, gold=item.gold, weights=weights, options=options,
                        command_line=command_line, on_stage=on_stage, on_progress=on_progress,
                    )  # fmt: skip
                except MedwaveError as error:
                    results.append(ItemResult(item, FAILED, str(error), wall_s=time.monotonic() - began))
                except Exception as error:  # one volume that meets a fault of ours must not cost the others
                    said = f"{item.volume}: unexpected {type(error).__name__}: {error}"
                    results.append(ItemResult(item, FAILED, said, wall_s=time.monotonic() - began))
                else:
                    run = json.loads((folder / item.name / MARK).read_text(encoding="utf-8"))
                    results.append(ItemResult(item, DONE, run=run, wall_s=time.monotonic() - began))
            _write_summary(folder / SUMMARY, results)
    return results


def _complete(folder: Path, item: Item, weights: StrPath | None, options: ReconstructOptions) -> dict[str, Any] | None:
    """The record of a complete run that was asked the same, or None."""
    try:
        run = json.loads((folder / MARK).read_text(encoding="utf-8"))
        same = run["request"] == request(item.volume, item.gold, weights, options)
    except (OSError, ValueError, KeyError, TypeError, MedwaveError):
        return None
    return run if same else None


def _write_summary(path: Path, results: Sequence[ItemResult]) -> None:
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, COLUMNS, lineterminator="\n")
    writer.writeheader()
    writer.writerows(result.row() for result in results)
    write_text(path, text.getvalue())


def _volumes_in(folder: Path) -> list[Path]:
    """The volumes of a folder, or none when it is a folder of slices."""
    found = [
        path for path in sorted(folder.iterdir())
        if not path.name.startswith(".") and (is_zarr(path) if path.is_dir() else is_stack(path))
    ]  # fmt: skip
    return found if any(map(_is_volume, found[:_TRIED])) else []


def _is_volume(path: Path) -> bool:
    try:
        with open_stack(path):
            return True
    except MedwaveError:  # a slice, or damaged
        return False


def _table(path: Path) -> Iterator[tuple[str, Path, Path | None]]:
    try:
        text = input_file(path).read_text(encoding="utf-8-sig")
        rows = list(csv.DictReader(io.StringIO(text), strict=True))
    except (UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{path}: not a readable CSV table ({error}); write it as UTF-8 with commas") from None
    if not rows or "volume" not in rows[0]:
        raise InputError(f"{path}: a table of volumes has a column volume and at least one row; gold and name are free")
    for number, row in enumerate(rows, 2):
        volume = (row["volume"] or "").strip()
        if not volume:
            raise InputError(f"{path}: line {number}: names no volume")
        gold = (row.get("gold") or "").strip()
        yield (row.get("name") or "").strip(), path.parent / volume, path.parent / gold if gold else None


def _named(found: Iterator[tuple[str, Path, Path | None]] | list[tuple[str, Path, Path | None]]) -> list[Item]:
    """Items with names of their own: a name that comes again gets a number."""
    items: list[Item] = []
    for name, volume, gold in found:
        base = name or volume.name.split(".")[0] or "volume"
        if base != Path(base).name or base in (".", ".."):
            raise InputError(f"{base}: the name of an item is that of a folder to make, without any / in it")
        taken = {item.name for item in items} | {SUMMARY}
        number = next(n for n in range(1, len(items) + 2) if _numbered(base, n) not in taken)
        items.append(Item(_numbered(base, number), volume, gold))
    return items


def _numbered(name: str, number: int) -> str:
    return name if number == 1 else f"{name}-{number}"
