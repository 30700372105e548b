"""The same run writes the same bytes: in other processes, with other numbers of threads."""

import hashlib
import subprocess
import sys

import phantom
import pytest

from medwave.workflows.run_folder import FILES

CODE = """
import sys
import medwave
fixed, moving, out, threads, *metrics = sys.argv[1:]
for metric in metrics:
    medwave.register(fixed, moving, preset="fast", metric=metric, threads=int(threads)).save(f"{out}/{metric}")
"""

METRICS = ("lncc", "mi", "curve")


def digests(folder):
    names = [name for name, _ in FILES.values() if (folder / name).exists()]
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


@pytest.mark.slow
def test_files_do_not_depend_on_the_process_or_its_threads(tmp_path):
    """Timings differ, so run.json and the report do: all images and transforms are compared."""
    grid, other = phantom.turned(spacing_mm=(4.0, 4.0, 4.0)), phantom.turned(spacing_mm=(4.0, 4.0, 4.5), reach_mm=75.0)
    paths = phantom.make_pair(grid, other).write(tmp_path)
    for threads in (1, 3):
        words = [str(paths["fixed"]), str(paths["moving"]), str(tmp_path / str(threads)), str(threads), *METRICS]
        done = subprocess.run([sys.executable, "-c", CODE, *words], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
    for metric in METRICS:
        found = digests(tmp_path / "1" / metric)
        assert len(found) == len(FILES) - 1  # no labels were given
        assert found == digests(tmp_path / "3" / metric)
