"""Files of features: ``.npz`` (numpy alone) and ``.parquet`` (needs pyarrow), a row per picture.

Contents: ``features`` ``(n, d)`` float32, ``sources`` (which picture), ``identities`` (of whom; a name).
"""

from __future__ import annotations

import zipfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from medwave.core.errors import InputError, VolumeFormatError
from medwave.core.files import StrPath, atomic_path, check_output, input_file
from medwave.core.optional import require

SUFFIXES = (".npz", ".parquet")


@dataclass(frozen=True)
class Embeddings:
    """Features with the pictures they are of.

    Attributes:
        features: ``(n, d)`` float32, not of unit length.
        sources: name of each picture.
        identities: name of each identity.

    Raises:
        InputError: when lengths do not fit, or features are not finite.
    """

    features: npt.NDArray[np.float32]
    sources: tuple[str, ...]
    identities: tuple[str, ...]

    def __post_init__(self) -> None:
        n = len(self.sources)
        if self.features.ndim != 2 or len(self.features) != n or len(self.identities) != n:
            raise InputError(
                f"features are (n, d) with n sources and identities, got {self.features.shape}, {n} and "
                f"{len(self.identities)}"
            )
        if not np.isfinite(self.features).all():
            raise InputError("features must be finite numbers")


def check_embeddings_name(path: StrPath) -> Path:
    """The path of a file that can be written; to be asked before the long work, not after it.

    Raises:
        InputError: for another ending.
        OutputError: when its folder does not exist, or it is one.
        MissingPackageError: for ``.parquet`` without pyarrow.
    """
    target = Path(path)
    if target.suffix not in SUFFIXES:
        raise InputError(f"{path}: features are written as {' or '.join(SUFFIXES)}; choose one of these endings")
    check_output(target)
    if target.suffix == ".parquet":
        _arrow()
    return target


def write_embeddings(path: StrPath, found: Embeddings) -> None:
    """Write a file of features, whole or not at all; its ending chooses the format.

    Raises:
        InputError, MissingPackageError: as :func:`check_embeddings_name`.
        OutputError: when it cannot be written.
    """
    target = check_embeddings_name(path)
    if target.suffix == ".npz":
        with atomic_path(target) as partial:
            np.savez(
                partial, features=found.features, sources=_texts(found.sources), identities=_texts(found.identities)
            )
        return
    arrow, parquet = _arrow()
    flat = arrow.array(found.features.ravel())
    features = arrow.FixedSizeListArray.from_arrays(flat, found.features.shape[1])
    names = {"source": list(found.sources), "identity": list(found.identities)}
    table = arrow.table({name: arrow.array(values, arrow.string()) for name, values in names.items()})
    with atomic_path(target) as partial:
        parquet.write_table(table.append_column("feature", features), partial)


def read_embeddings(path: StrPath) -> Embeddings:
    """Read what :func:`write_embeddings` wrote.

    Raises:
        MissingFileError: when there is no such file.
        VolumeFormatError: when it is something else, or damaged.
        MissingPackageError: for ``.parquet`` without pyarrow.
    """
    file = input_file(path)
    try:
        return _read_parquet(file) if file.suffix == ".parquet" else _read_npz(file)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile, EOFError) as error:
        raise VolumeFormatError(
            f"{file}: not a file of features as medwave embed writes it, or damaged ({type(error).__name__})"
        ) from None


def holds_embeddings(path: StrPath) -> bool:
    """Whether a file holds features, by its ending and, for ``.npz``, by the names of its arrays."""
    file = Path(path)
    if not file.is_file() or file.suffix not in SUFFIXES:
        return False
    if file.suffix == ".parquet":
        return True
    try:
        with zipfile.ZipFile(file) as content:
            return "features.npy" in content.namelist()
    except (zipfile.BadZipFile, OSError):
        return False


def _read_npz(file: Path) -> Embeddings:
    with file.open("rb") as stream, np.load(stream, allow_pickle=False) as content:
        names = [tuple(map(str, content[key])) for key in ("sources", "identities")]
        return Embeddings(content["features"].astype(np.float32), *names)


def _read_parquet(file: Path) -> Embeddings:
    arrow, parquet = _arrow()
    table = parquet.read_table(file).combine_chunks()
    column: Any = table["feature"].combine_chunks()
    if not arrow.types.is_fixed_size_list(column.type):
        raise VolumeFormatError(f"{file}: its column feature must hold lists of one length")
    flat = column.flatten().to_numpy(zero_copy_only=False).astype(np.float32)
    names = [tuple(map(str, table[key].to_pylist())) for key in ("source", "identity")]
    return Embeddings(flat.reshape(len(table), -1), *names)


def _arrow() -> tuple[Any, Any]:
    needed = {"extra": "faces", "purpose": "reading and writing .parquet"}
    return require("pyarrow", **needed), require("pyarrow.parquet", **needed)


def _texts(values: Sequence[str]) -> npt.NDArray[np.str_]:
    return np.array(values, dtype=np.str_)
