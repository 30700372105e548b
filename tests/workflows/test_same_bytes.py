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
fixed, moving, out, threads, metric = sys.argv[1:]
result = medwave.register(fixed, moving, preset="fast", metric=metric, threads=int(threads))
result.save(out)
"""


def digests(folder):
    names = [name for name, _ in FILES.values() if (folder / name).exists()]
    return {name: hashlib.sha256((folder / name).read_bytes()).hexdigest() for name in names}


@pytest.mark.slow
def test_files_do_not_depend_on_the_process_or_its_threads(tmp_path):
    """Timings differ, so run.json and the report do: all images and transforms are compared."""
    grid, other = phantom.turned(spacing_mm=(4.0, 4.0, 4.0)), phantom.turned(spacing_mm=(4.0, 4.0, 4.5), reach_mm=75.0)
    paths = phantom.make_pair(grid, other).write(tmp_path)
    for metric in ("lncc", "mi", "curve"):
        found = []
        for threads in (1, 3):
            out = tmp_path / f"{metric}{threads}"
            words = [str(paths["fixed"]), str(paths["moving"]), str(out), str(threads), metric]
            done = subprocess.run([sys.executable, "-c", CODE, *words], capture_output=True, text=True, check=False)
            assert done.returncode == 0, done.stderr
            found.append(digests(out))
        assert len(found[0]) == len(FILES) - 1  # no labels were given
        assert found[0] == found[1]
