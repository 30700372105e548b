"""What is published: the sdist holds all that a checkout needs, and the wheel made from it its data and recipes."""

import os
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest

pytest.importorskip("hatchling", reason="the wheel is built by hatchling, which the extra test brings")
ROOT = Path(__file__).resolve().parents[1]


def run(words, folder) -> str:
    environment = {k: v for k, v in os.environ.items() if k not in ("PYTHONPATH", "PYTHONHOME")}
    found = subprocess.run(words, cwd=folder, env=environment, capture_output=True, text=True, check=False)
    assert found.returncode == 0, found.stdout + found.stderr
    return found.stdout


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    """Sdist, and the wheel that is built from the unpacked sdist."""
    folder = tmp_path_factory.mktemp("dist")
    run([sys.executable, "-m", "hatchling", "build", "-t", "sdist", "-d", str(folder)], ROOT)
    (sdist,) = folder.glob("*.tar.gz")
    with tarfile.open(sdist) as archive:
        archive.extractall(folder, filter="data")
    run([sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(folder)], sdist.parent / sdist.name[:-7])
    (wheel,) = folder.glob("*.whl")
    return sdist, wheel


@pytest.mark.slow
def test_the_sdist_holds_what_a_checkout_needs(built):
    with tarfile.open(built[0]) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    for wanted in ("Makefile", "README.md", "LICENSE", "docs/conf.py", "tests/conftest.py", "constraints/cpu.txt",
                   "pipelines/README.md", "notebooks/README.md", "benchmarks/README.md"):  # fmt: skip
        assert wanted in names, wanted
    assert not any(name.startswith(("docs/_build", "docs/generated")) for name in names)


@pytest.mark.slow
def test_the_wheel_holds_data_and_recipes_and_nothing_else(built):
    with zipfile.ZipFile(built[1]) as archive:
        names = archive.namelist()
    inside = {name.split("/")[0] for name in names}
    assert inside == {"medwave", next(n for n in inside if n.endswith(".dist-info"))}
    for wanted in ("medwave/models/shipped/neuron_wavesnet.safetensors", "medwave/reports/templates/style.css",
                   "medwave/_shipped/pipelines/register_brain/configs/metadata.json"):  # fmt: skip
        assert wanted in names, wanted


@pytest.mark.slow
def test_the_wheel_works_where_it_is_installed(built, tmp_path):
    """In an environment that holds medwave alone; what it needs is lent by this one (``make smoke`` lends none)."""
    run([sys.executable, "-m", "venv", "--without-pip", str(tmp_path / "venv")], tmp_path)
    python = tmp_path / "venv" / "bin" / "python"
    (packages,) = (tmp_path / "venv" / "lib").glob("python*/site-packages")
    pip = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--python", str(python)]
    run([*pip, "install", "--quiet", "--no-index", "--no-deps", str(built[1])], tmp_path)
    (packages / "lent.pth").write_text(f"{sysconfig.get_paths()['purelib']}\n", encoding="utf-8")
    said = run([str(python), str(ROOT / "tests" / "installed_smoke.py")], tmp_path)
    assert said.endswith(": well\n")
