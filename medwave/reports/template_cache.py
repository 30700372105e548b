"""Templates that jinja compiles once per machine, as Python does with modules: a fifth of the time of a page.

What was compiled lies in ``__pycache__`` beside the templates, and counts for one text of a template and one version of
medwave, jinja's format and Python. Where nothing can be written there, each process compiles for itself.
"""

from __future__ import annotations

import contextlib
from pathlib import Path

from jinja2.bccache import Bucket, BytecodeCache

from medwave import __version__
from medwave.core.errors import OutputError
from medwave.core.files import atomic_path


class TemplateCache(BytecodeCache):
    """Compiled templates in a folder, which is made when it is absent.

    Args:
        folder: where they lie.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def load_bytecode(self, bucket: Bucket) -> None:
        """Fill the bucket from disk; it stays empty where there is no file of this text and this jinja."""
        with contextlib.suppress(OSError), self._file(bucket).open("rb") as stream:
            bucket.load_bytecode(stream)

    def dump_bytecode(self, bucket: Bucket) -> None:
        """Keep the bucket on disk, if it can be."""
        with contextlib.suppress(OSError, OutputError):
            self.folder.mkdir(exist_ok=True)
            with atomic_path(self._file(bucket)) as partial, partial.open("wb") as stream:
                bucket.write_bytecode(stream)

    def _file(self, bucket: Bucket) -> Path:
        return self.folder / f"{bucket.key}-{__version__}.jinja"
