"""One run at a time in a folder or on a file: a lock that ends with its process, however suddenly that dies."""

from __future__ import annotations

import contextlib
import fcntl
import os
from collections.abc import Iterator
from pathlib import Path

from medwave.core.errors import OutputError

LOCK = ".lock"


@contextlib.contextmanager
def only_run_in(folder: Path) -> Iterator[None]:
    """Let no other run work in a folder while the block runs; the folder exists.

    The lock is the system's, on a file ``.lock`` that is removed at the end. One that a killed run left stops nobody.

    Raises:
        OutputError: when another run holds it, or the file cannot be made.
    """
    with _held(folder / LOCK, folder, "in this folder", "folder"):
        yield


@contextlib.contextmanager
def only_run_on(file: Path) -> Iterator[None]:
    """Let no other run make a file while the block runs; its folder exists.

    The lock is on a file beside it, of its name with ``.lock``, as for :func:`only_run_in`.

    Raises:
        OutputError: when another run holds it, or the lock cannot be made.
    """
    with _held(file.with_name(f"{file.name}{LOCK}"), file, "on this file", "file"):
        yield


@contextlib.contextmanager
def _held(path: Path, guarded: Path, where: str, kind: str) -> Iterator[None]:
    descriptor = _descriptor(path, guarded, where, kind)
    try:
        yield
    finally:
        path.unlink(missing_ok=True)  # before it is let go: whoever takes this file next sees that it is gone
        os.close(descriptor)


def _descriptor(path: Path, guarded: Path, where: str, kind: str) -> int:
    while True:
        try:
            descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o644)
        except OSError as error:
            raise OutputError(f"{path}: cannot be written ({error.strerror}); choose another {kind}") from error
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            holder = os.read(descriptor, 20).decode("ascii", "replace").strip()
            os.close(descriptor)
            who = f"process {holder}" if holder else "another process"
            raise OutputError(
                f"{guarded}: {who} is working {where}; wait for it, or choose another output {kind}"
            ) from None
        except OSError:  # a file system without locks: better none than no run at all
            return descriptor
        if _is_at(path, descriptor):
            with contextlib.suppress(OSError):  # a full disk: the number is only for what others are told
                os.ftruncate(descriptor, 0)
                os.pwrite(descriptor, str(os.getpid()).encode("ascii"), 0)
            return descriptor
        os.close(descriptor)  # its last holder removed it in between


def _is_at(path: Path, descriptor: int) -> bool:
    with contextlib.suppress(OSError):
        return os.path.samestat(path.stat(), os.fstat(descriptor))
    return False
