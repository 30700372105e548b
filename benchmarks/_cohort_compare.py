"""What must be the same in two folders of ``medwave batch``: all but times and the folder of the command."""

from __future__ import annotations

import hashlib
import json
import re
from pathlib import Path

_TIMES = (
    re.compile(r'<div class="tile [^"]*"><dt>CPU time</dt>.*?</dd></div>', re.DOTALL),
    re.compile(r"<caption>Cost</caption>.*?</table>", re.DOTALL),
    re.compile(r' data-cpu-s="[^"]*"'),
)
_LAST_COLUMN = re.compile(r'<td class="num">[^<]*</td>\s*</tr>')  # of the index: CPU seconds


def digests(folder: Path) -> dict[str, str]:
    """Path below the folder -> digest of its bytes, of ``run.json`` and pages without their times and place."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {path.relative_to(folder).as_posix(): hashlib.sha256(_timeless(path)).hexdigest() for path in files}


def differences(one: Path, other: Path) -> list[str]:
    """Files that only one of the folders has, or that differ."""
    a, b = digests(one), digests(other)
    return sorted(name for name in a.keys() | b.keys() if a.get(name) != b.get(name))


def _timeless(path: Path) -> bytes:
    data = path.read_bytes()
    if path.name == "run.json":
        record = json.loads(data)
        kept = {key: value for key, value in record.items() if key not in ("stages", "total", "working_folder")}
        return json.dumps(kept, indent=1).encode()
    if path.suffix == ".html":
        text = data.decode("utf-8")
        for pattern in (*_TIMES, *((_LAST_COLUMN,) if path.name == "index.html" else ())):
            text = pattern.sub("", text)
        return text.encode()
    return data
