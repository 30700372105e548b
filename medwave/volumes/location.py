"""Where a zarr store lies: a folder, or a URL such as ``s3://bucket/brain.ome.zarr``.

URLs are those of fsspec: ``s3://`` needs s3fs (it comes with the extra ``scale``), ``gs://`` gcsfs, ``https://``
aiohttp. Credentials and endpoints are theirs to find: environment variables, files in the home folder, or fsspec's own
configuration. ``file://`` is the folder it names. An object of a bucket appears when it is complete, as a file here
appears by a rename. A store that does not answer is asked twice more (:func:`patiently`); how long one answer may take,
and how often the client itself asks, its options say.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TypeVar
from urllib.parse import unquote, urlsplit

from medwave.core.detached import data_files
from medwave.core.errors import InputError, MedwaveError, MissingPackageError, UnreachableError
from medwave.core.files import StrPath, atomic_path, json_text, write_json
from medwave.core.optional import require
from medwave.core.provenance import fingerprint

METADATA_FILES = ("zarr.json", ".zattrs", ".zgroup", ".zarray")
"""Names of which a node of a zarr store has one at least."""

WAITS_S = (0.5, 2.0)
"""Pauses before a store that did not answer is asked again."""

_NOT_CURED = (
    MedwaveError, MemoryError, FileNotFoundError, PermissionError, ValueError, TypeError, RuntimeError, SystemError,
)  # fmt: skip
"""What asking again does not cure: besides these, damaged bytes, at which codecs fail in their own ways."""

T = TypeVar("T")


def is_url(path: StrPath) -> bool:
    """Whether a name is a URL of something that is not a folder here."""
    return "://" in str(path) and not str(path).startswith("file://")


def location(path: StrPath) -> Path:
    """The path of a name; of a URL one that has the methods of a path (of universal_pathlib).

    Raises:
        InputError: for a kind of URL that nothing installed reads.
        MissingPackageError: naming the package that does.
    """
    text = str(path)
    if text.startswith("file://"):
        return Path(unquote(urlsplit(text).path))
    if not is_url(path):
        return Path(path)
    upath = require("upath", extra="scale", purpose=f"{text}: reading from a URL")
    try:
        found = upath.UPath(text)
        _ = found.fs  # brings the package for the protocol
    except ImportError as error:
        raise MissingPackageError(f"{text}: {' '.join(str(error).split())}") from None
    except ValueError as error:
        raise InputError(f"{text}: not a kind of URL that is known ({error}); use s3:// or file://") from None
    return found  # type: ignore[no-any-return]


def absolute(path: StrPath) -> str:
    """A name that means the same in another process: the URL, or the whole path."""
    return str(path) if is_url(path) else os.path.abspath(location(path))  # noqa: PTH100


def remove_store(path: Path) -> None:
    """Remove a folder or all objects below a URL; nothing there is no error."""
    if is_url(path):
        with contextlib.suppress(FileNotFoundError):
            path.fs.rm(path.path, recursive=True)  # type: ignore[attr-defined]
    elif path.exists():
        shutil.rmtree(path)


def put_json(path: Path, value: Any) -> None:
    """Write JSON in one go, as :func:`medwave.core.files.write_json`, also to a URL."""
    if is_url(path):
        path.write_text(json_text(value), encoding="utf-8", errors="backslashreplace")
    else:
        write_json(path, value)


def put_bytes(path: Path, content: bytes) -> None:
    """Write a file in one go, also to a URL.

    Raises:
        OutputError: when it cannot be written.
    """
    if is_url(path):
        patiently(path, "a file", lambda: path.write_bytes(content))
        return
    with atomic_path(path) as partial:
        partial.write_bytes(content)


def fingerprint_at(path: StrPath) -> dict[str, str]:
    """As :func:`medwave.core.provenance.fingerprint`; of a URL names, sizes and what its server says of versions.

    A web server lists no files: of a store there the metadata count.
    """
    if not is_url(path):
        return fingerprint(location(path))
    there = location(path)
    digest = hashlib.sha256()
    if str(path).startswith(("http://", "https://")):
        with reached(path):
            for node in (there, there / "0"):
                for name in METADATA_FILES:
                    if (node / name).is_file():
                        digest.update(f"{name}\0".encode() + (node / name).read_bytes())
        return {"sha256": digest.hexdigest(), "of": "metadata"}
    with reached(path):
        for name, entry in sorted(there.fs.find(there.path, detail=True).items()):  # type: ignore[attr-defined]
            version = entry.get("ETag") or entry.get("etag") or entry.get("LastModified") or entry.get("mtime")
            digest.update(f"{name}\0{entry.get('size')}\0{version}\n".encode())
    return {"sha256": digest.hexdigest(), "of": "names, sizes and versions of objects"}


def stamp(path: StrPath) -> tuple[tuple[int, int, int], ...]:
    """What changes when a file or folder here is replaced, told at once: unlike a fingerprint, nothing of it is read.

    The files of a header count too. Nothing is told of a URL, or of what is not there.
    """
    if is_url(path):
        return ()
    root = location(path)
    try:
        each = [file.stat() for file in (root, *data_files(root))]
    except OSError:
        return ()
    return tuple((info.st_ino, info.st_size, info.st_mtime_ns) for info in each)


@contextlib.contextmanager
def reached(path: StrPath) -> Iterator[None]:
    """Failures to reach a URL name it.

    Raises:
        InputError: in place of what its client raises.
    """
    try:
        yield
    except MedwaveError:
        raise
    except Exception as error:  # each client fails in its own ways
        if not is_url(path):
            raise
        said = " ".join(str(error).split()) or type(error).__name__
        raise InputError(f"{path}: cannot be reached ({said}); check the address and the credentials") from None


def patiently(path: StrPath, what: str, act: Callable[[], T]) -> T:
    """What a call gives that reads or writes whole chunks of a store; at a URL it is repeated when that fails.

    Args:
        path: the store.
        what: is read or written, such as ``"chunk 0/0/0"``.
        act: harmless to repeat.

    Raises:
        UnreachableError: naming the URL and ``what``, after as many repetitions as :data:`WAITS_S` has pauses.
        Exception: what ``act`` raises, where that is no failure of the store to answer, or the store a folder here.
    """
    if not is_url(path):
        return act()
    for wait_s in (*WAITS_S, None):
        try:
            return act()
        except _NOT_CURED:
            raise
        except Exception as error:  # each client fails in its own ways
            if wait_s is None:
                said = " ".join(str(error).split()) or type(error).__name__
                raise UnreachableError(
                    f"{path}: {what}: the store does not answer, asked {len(WAITS_S) + 1} times ({said}); repeat the "
                    "command when it does, or give the client more time"
                ) from None
            time.sleep(wait_s)
    raise AssertionError("the last attempt returns or raises")
