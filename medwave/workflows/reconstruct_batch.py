"""Reconstruct many volumes: a folder each, one table at the end; bad ones are listed, and complete ones passed over.

Volumes are named one by one, or come from a folder, or from a CSV table with a column ``volume`` and, where wanted,
``gold`` (SWC of the true tree) and ``name``; its paths are relative to it, URLs as they are. Results lie in
``DIR/NAME``, where the name is that of the volume without its endings. ``summary.csv`` has a row per volume and is
written after each. With a store images go to ``STORE/NAME``.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from medwave.core.detached import data_files
from medwave.core.errors import MedwaveError
from medwave.core.files import StrPath
from medwave.core.locks import only_run_in
from medwave.scale import Workers
from medwave.volumes import open_stack
from medwave.volumes.location import is_url, location
from medwave.volumes.ome_zarr import is_zarr
from medwave.volumes.open import is_stack
from medwave.workflows.batch import (
    BatchProgress,
    Outcome,
    own_names,
    read_table,
    run_items,
    write_table,
)  # fmt: skip
from medwave.workflows.block_progress import OnProgress
from medwave.workflows.options_neurons import ReconstructOptions
from medwave.workflows.reconstruct import REPORT, TREE, reconstruct, request
from medwave.workflows.run_folder import MARK, result_folder, spare_inputs

SUMMARY = "summary.csv"
COLUMNS = (
    "name", "volume", "status", "error", "nodes", "tips", "branches", "components", "length", "units",
    "f1", "precision", "recall", "esa", "fibre_voxels", "wall_s",
)  # fmt: skip
_TRIED = 8
"""Files of a folder that are opened to tell whether they are volumes or slices."""


@dataclass(frozen=True)
class Item:
    """One volume of a batch: its name, which is that of its folder, and its true tree where there is one."""

    name: str
    volume: Path
    gold: Path | None = None


class ItemResult(Outcome[Item]):
    """What became of a volume: a status, the error when it failed, and its ``run.json`` otherwise."""

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


@dataclass(frozen=True)
class _Reconstructions:
    """The work on each volume of a batch."""

    folder: Path
    weights: StrPath | None
    options: ReconstructOptions
    told: dict[str, Any]

    def name(self, item: Item) -> str:
        return str(item.volume)

    def options_of(self, item: Item) -> ReconstructOptions:
        """Those of the batch, with a store of the item's own below theirs."""
        store = self.options.store
        return self.options if store is None else replace(self.options, store=f"{store.rstrip('/')}/{item.name}")

    def known(self, item: Item) -> dict[str, Any] | None:
        folder = self.folder / item.name
        try:
            run = json.loads((folder / MARK).read_text(encoding="utf-8"))
            same = run["request"] == request(item.volume, item.gold, self.weights, self.options_of(item))
        except (OSError, ValueError, KeyError, TypeError, MedwaveError):
            return None
        there = (folder / TREE).exists() and (folder / REPORT).exists()  # images may be gone, to save space
        return run if same and there else None

    def run(self, item: Item) -> dict[str, Any]:
        folder, options = self.folder / item.name, self.options_of(item)
        with _made(options.store):
            reconstruct(
                item.volume, folder, gold=item.gold, weights=self.weights, options=options, **self.told
            )  # fmt: skip
        return dict(json.loads((folder / MARK).read_text(encoding="utf-8")))


def _made(store: str | None) -> contextlib.AbstractContextManager[Any]:
    """The folder of a store, made when absent; a URL needs none."""
    return contextlib.nullcontext() if store is None or is_url(store) else result_folder(location(store))


def batch_items(sources: Sequence[StrPath]) -> list[Item] | None:
    """The volumes that were named, found in a folder or listed in a table; None when it is just one volume.

    Raises:
        MissingFileError, InputError: for a table that cannot be read, or lacks a column or a value.
    """
    if len(sources) == 1:
        source = location(sources[0])
        if is_url(source):
            return None
        if source.suffix.lower() == ".csv":
            return _named(_table(source))
        if source.is_dir() and not is_zarr(source) and source.suffix.lower() != ".zarr":
            found = _volumes_in(source)
            return _named([("", path, None) for path in found]) if found else None
        return None
    return _named([("", location(source), None) for source in sources])


def reconstruct_batch(
    items: Sequence[Item],
    output: StrPath,
    *,
    sources: Sequence[StrPath] = (),
    weights: StrPath | None = None,
    options: ReconstructOptions | None = None,
    command_line: str = "",
    on_item: Callable[[Item, int], None] | None = None,
    on_stage: Callable[[str], None] | None = None,
    on_progress: OnProgress | None = None,
    workers: Workers | None = None,
) -> list[ItemResult]:
    """Reconstruct volumes one after another; an item that fails is noted, and the next one begins.

    Args:
        items: such as :func:`batch_items` gives.
        output: the folder; made when absent.
        sources: what the items come from, such as a table, which the summary must not replace.
        weights, options, command_line, on_stage, on_progress, workers: as for :func:`medwave.reconstruct`.
        on_item: told each item and its number, from 0, when it begins.

    Raises:
        OutputError: when the folder or the summary cannot be written, or another batch works in the folder.
    """
    told = {"command_line": command_line, "on_stage": on_stage, "on_progress": on_progress, "workers": workers}
    results: list[ItemResult] = []
    with result_folder(output) as folder, only_run_in(folder):
        spare_inputs([folder / SUMMARY], sources)

        def note(outcome: Outcome[Item], _: BatchProgress) -> None:
            results.append(ItemResult(**vars(outcome)))
            write_table(folder / SUMMARY, COLUMNS, (result.row() for result in results))

        work = _Reconstructions(folder, weights, options or ReconstructOptions(), told)
        run_items(items, work, on_begin=on_item, on_outcome=note)
    return results


def _volumes_in(folder: Path) -> list[Path]:
    """The volumes of a folder, or none when it is a folder of slices; a header counts together with its values."""
    found = [
        path for path in sorted(folder.iterdir())
        if not path.name.startswith(".") and (is_zarr(path) if path.is_dir() else is_stack(path))
    ]  # fmt: skip
    values = {file for path in found if path.is_file() for file in data_files(path)}
    found = [path for path in found if path not in values]
    return found if any(map(_is_volume, found[:_TRIED])) else []


def _is_volume(path: Path) -> bool:
    try:
        with open_stack(path):
            return True
    except MedwaveError:  # a slice, or damaged
        return False


def _table(path: Path) -> Iterator[tuple[str, Path, Path | None]]:
    for _, row in read_table(path, ("volume",), ("volume", "gold", "name")):
        volume = location(row["volume"])
        yield (
            row["name"],
            volume if is_url(volume) else path.parent / volume,
            path.parent / row["gold"] if row["gold"] else None,
        )


def _named(found: Iterable[tuple[str, Path, Path | None]]) -> list[Item]:
    """Items with names of their own."""
    listed = list(found)
    names = own_names((name or volume.name.split(".")[0] or "volume" for name, volume, _ in listed), taken={SUMMARY})
    return [Item(name, volume, gold) for name, (_, volume, gold) in zip(names, listed, strict=True)]
