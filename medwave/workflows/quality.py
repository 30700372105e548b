"""Marks that a person gives the registrations of a cohort: ``qc.csv``, one row a registration.

Columns are ``name``, ``mark`` (pass, fail, or empty), ``marked_at`` (UTC) and ``run_sha256`` of the ``run.json`` that
was looked at: a mark counts as long as that is the same, or where none was noted. Rows of other names and further
columns, such as a comment, stay as they are. A mark is on the disk before it is answered for.
"""

from __future__ import annotations

import csv
import hashlib
import io
import threading
from collections.abc import Collection
from datetime import UTC, datetime
from pathlib import Path

from medwave.core.errors import InputError
from medwave.workflows.batch import write_table
from medwave.workflows.cohort import RUNS
from medwave.workflows.run_folder import MARK

QUALITY = "qc.csv"
COLUMNS = ("name", "mark", "marked_at", "run_sha256")
MARKS = ("pass", "fail", "")
_LOCK = threading.Lock()

Rows = list[dict[str, str]]


def read_marks(folder: Path) -> dict[str, str]:
    """Name -> ``pass`` or ``fail``, of those that are marked and were not registered anew since.

    Raises:
        InputError: when ``qc.csv`` is there and is no such table.
    """
    _, rows = _read(folder / QUALITY)
    return {row["name"]: row["mark"] for row in rows if row.get("mark") and _of_this_run(folder, row)}


def write_mark(folder: Path, name: str, mark: str, known: Collection[str]) -> None:
    """Mark one registration.

    Args:
        folder: of the cohort.
        name: of the registration.
        mark: ``pass``, ``fail``, or empty to take a mark back.
        known: names of all registrations.

    Raises:
        InputError: for another mark, a name that is not known, or a damaged table.
        OutputError: when it cannot be written.
    """
    if mark not in MARKS:
        raise InputError(f"mark: one of pass, fail or empty, got {mark!r}")
    if name not in known:
        raise InputError(f"{folder}: no registration is called {name!r}; names are in the summary of the cohort")
    with _LOCK:
        columns, rows = _read(folder / QUALITY)
        at = datetime.now(UTC).isoformat(timespec="seconds") if mark else ""
        row = next((row for row in rows if row["name"] == name), None)
        if row is None:
            row = dict.fromkeys(columns, "") | {"name": name}
            rows.append(row)
        row.update(mark=mark, marked_at=at, run_sha256=_digest(folder, name) if mark else "")
        write_table(folder / QUALITY, columns, rows)


def _of_this_run(folder: Path, row: dict[str, str]) -> bool:
    return not row.get("run_sha256") or row["run_sha256"] == _digest(folder, row["name"])


def _digest(folder: Path, name: str) -> str:
    """SHA-256 of the record of a registration; that of nothing when it failed and has none."""
    record = folder / RUNS / name / MARK
    return hashlib.sha256(record.read_bytes() if record.is_file() else b"").hexdigest()


def _read(path: Path) -> tuple[list[str], Rows]:
    """Columns and rows; the least there can be when the file is not there."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        return list(COLUMNS), []
    except (OSError, UnicodeDecodeError) as error:
        raise InputError(f"{path}: cannot be read ({error}); repair it or move it away") from None
    table = csv.DictReader(io.StringIO(text, newline=""))
    columns, rows = list(table.fieldnames or ()), list(table)
    if "name" not in columns or any(None in row or None in row.values() for row in rows):
        raise InputError(
            f"{path}: a table of marks has a column called name and as many cells in each row as in its head; repair "
            "it or move it away"
        )
    return [*columns, *(c for c in COLUMNS if c not in columns)], rows
