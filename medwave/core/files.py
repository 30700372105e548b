"""Paths: inputs that must be there, and outputs that no reader ever meets half written.

A file is written under a temporary name in the folder of its target and renamed when it is complete; whatever
goes wrong (a full disk, an exception, Ctrl-C), the temporary file is removed and an older target stays as it was.
Links stay, what they lead to is replaced, but for those to contents that git keeps; devices and pipes are written to as
they are.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import secrets
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from medwave.core.errors import InputError, MedwaveError, MissingFileError, OutputError

StrPath = str | os.PathLike[str]
"""What every reader and writer takes as a path."""


def input_file(path: StrPath) -> Path:
    """The path of a file that is to be read.

    Raises:
        MissingFileError: when it does not exist.
        InputError: when it is a folder, or may not be read.
    """
    file = Path(path)
    try:
        there = file.exists()
    except OSError:  # such as a name longer than the system allows
        there = False
    if not there:
        raise MissingFileError(f"{file}: no such file; check the name and the folder")
    if file.is_dir():
        raise InputError(f"{file}: a file is needed, this is a folder; name a file in it")
    if not os.access(file, os.R_OK):
        raise InputError(f"{file}: may not be read; change its permissions")
    return file


@contextlib.contextmanager
def atomic_path(path: StrPath) -> Iterator[Path]:
    """Give a temporary path beside ``path`` to write to, and rename it to ``path`` when the block ends well.

    The temporary name keeps the last two suffixes (``.nii.gz``, ``.h5``), since writers choose a format by them. Where
    ``path`` is a link, its target is replaced; a device or a pipe is given itself.

    Raises:
        OutputError: when the folder is absent, or anything in the block fails as an operating system error.
    """
    target = Path(path)
    check_folder_of(target)
    if _is_stream(target):
        with _named(target):
            yield target
        return
    place = _behind_links(target)
    partial = place.with_name(f".medwave-{secrets.token_hex(8)}{''.join(target.suffixes[-2:])}")
    try:
        with _named(target):
            yield partial
            partial.replace(place)
    finally:
        with contextlib.suppress(OSError):
            partial.unlink(missing_ok=True)


@contextlib.contextmanager
def _named(target: Path) -> Iterator[None]:
    """Turn an operating system error of the block into one that names the file."""
    try:
        yield
    except MedwaveError:
        raise
    except OSError as error:
        reason = error.strerror or str(error)
        raise OutputError(f"{target}: cannot be written ({reason}); check the free space and permissions") from error


def _is_stream(path: Path) -> bool:
    """Whether a path is there and is no file to replace, but a device or a pipe.

    Raises:
        OutputError: when it is another name of a file that is open, such as that which stdout goes to.
    """
    try:
        mode = path.stat().st_mode
    except OSError:
        return False
    if stat.S_ISREG(mode) and _names_open_file(path):
        raise OutputError(f"{path}: what else that file holds would be lost; name a file, or - where it is taken")
    return not (stat.S_ISREG(mode) or stat.S_ISDIR(mode))


def _names_open_file(path: Path) -> bool:
    """Whether links lead by way of ``/proc``, as those of ``/dev/stdout`` do."""
    while path.is_symlink():
        if Path(os.path.realpath(path.parent)).is_relative_to("/proc"):
            return True
        path = path.parent / path.readlink()
    return False


def _behind_links(path: Path) -> Path:
    """The file that a link leads to, which may be absent yet; any other path, and a link of git-annex, as it is."""
    place = Path(os.path.realpath(path))
    return place if path.is_symlink() and ".git" not in place.parts else path


def check_folder_of(target: Path) -> None:
    """Refuse a file or folder to be written whose parent folder is absent.

    Raises:
        OutputError: naming both.
    """
    if not target.parent.is_dir():
        raise OutputError(f"{target}: the folder {target.parent} does not exist; create it first")


def check_output(output: StrPath, *inputs: StrPath) -> None:
    """Refuse at once, before long work, a file that cannot be written or is an input.

    Raises:
        OutputError: naming the file.
    """
    path = Path(output)
    if path.is_dir():
        raise OutputError(f"{path}: a file is to be written, this is a folder; name a file in it")
    check_folder_of(path)
    if _is_stream(path):
        return
    folder = _behind_links(path).parent
    if not os.access(folder, os.W_OK):
        raise OutputError(f"{path}: the folder {folder} may not be written to; choose another")
    if any(path.exists() and Path(each).exists() and path.samefile(each) for each in inputs):
        raise OutputError(f"{path}: the result would replace its input; choose another name")


def sweep_partial(folder: Path) -> None:
    """Remove what writers that were killed left in a folder and below it: temporary files of :func:`atomic_path`."""
    for partial in folder.rglob(".medwave-*"):
        with contextlib.suppress(OSError):
            partial.unlink()


def write_text(path: StrPath, text: str) -> None:
    """Write a UTF-8 text file in one go; bytes of a file's name that are not UTF-8 become escapes, as JSON has them.

    Raises:
        OutputError: when it cannot be written.
    """
    with atomic_path(path) as partial:
        partial.write_text(text, encoding="utf-8", errors="backslashreplace")


def write_json(path: StrPath, value: Any) -> None:
    """Write a value as indented UTF-8 JSON; NumPy values become numbers and lists, paths text, NaN and inf ``null``.

    Raises:
        OutputError: when it cannot be written.
        TypeError: when the value holds an object that JSON has no form for.
    """
    write_text(path, json_text(value))


def json_text(value: Any) -> str:
    """What :func:`write_json` writes."""
    return json.dumps(_plain(value), indent=2, ensure_ascii=False, allow_nan=False) + "\n"


def _plain(value: Any) -> Any:
    if hasattr(value, "tolist"):  # NumPy arrays and scalars
        value = value.tolist()
    if isinstance(value, Mapping):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return os.fspath(value) if isinstance(value, os.PathLike) else value
