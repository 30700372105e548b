"""What the benchmarks share: the file that keeps finished runs, and versions of what was measured."""

from __future__ import annotations

import importlib.util
import json
import shutil
import subprocess
from collections.abc import Iterable, Mapping
from importlib import metadata
from pathlib import Path
from typing import Any


class BenchmarkError(Exception):
    """Something that the person at the keyboard can change."""


def save(path: Path, results: Mapping[str, Any]) -> None:
    """Write results as JSON, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_suffix(".partial")
    partial.write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    partial.replace(path)


def versions(packages: Iterable[str]) -> dict[str, str]:
    """Versions of packages that are there; that of medwave with its commit where it is a checkout."""
    found = {}
    for package in dict.fromkeys(packages):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            continue
    commit = _commit()
    return found | ({"medwave": f"{found.get('medwave', '')}+{commit}"} if commit else {})


def write_request(folder: Path, request: Mapping[str, Any]) -> str:
    """A request for a child process; returns its path."""
    path = folder / "request.json"
    path.write_text(json.dumps(request), encoding="utf-8")
    return str(path)


def _commit() -> str:
    """Short commit of the medwave that Python finds; empty when it is not a checkout."""
    spec = importlib.util.find_spec("medwave")
    if spec is None or spec.origin is None or shutil.which("git") is None:
        return ""
    package = Path(spec.origin).parent

    def git(*arguments: str) -> str:
        command = ["git", "-C", str(package), *arguments, "--", "."]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()

    commit = git("log", "-1", "--format=%h")
    return f"{commit}.changed" if commit and git("status", "--porcelain") else commit
