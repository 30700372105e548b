"""Lazy public names, cheap imports, and the gate for optional packages."""

import subprocess
import sys

import pytest

from medwave.core.errors import MissingPackageError
from medwave.core.lazy import exports
from medwave.core.optional import require

ROOMS = ("wavelets", "fields", "volumes", "transforms", "models", "losses", "metrics", "reports")


def test_a_module_is_imported_when_its_name_is_first_used(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / "lazy_room_of_test.py").write_text("answer = 42\n")
    load, names = exports("room", {"answer": "lazy_room_of_test", "another": "no.such.module"})
    assert "lazy_room_of_test" not in sys.modules
    assert names() == ["another", "answer"]
    assert load("answer") == 42
    assert "lazy_room_of_test" in sys.modules
    with pytest.raises(AttributeError, match="module 'room' has no attribute 'other'"):
        load("other")
    with pytest.raises(ModuleNotFoundError):
        load("another")


@pytest.mark.parametrize("room", ROOMS)
def test_every_exported_name_exists(room):
    module = __import__(f"medwave.{room}", fromlist=["x"])
    assert dir(module)
    for name in dir(module):
        assert getattr(module, name) is not None


def test_importing_medwave_and_its_rooms_brings_nothing_heavy():
    heavy = ["torch", "monai", "numba", "nibabel", "SimpleITK", "scipy"]
    program = f"import sys, medwave, {', '.join(f'medwave.{room}' for room in ROOMS)}\n"
    program += f"print([m for m in {heavy} if m in sys.modules])"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_tracing_brings_nothing_that_it_does_not_need():
    heavy = ["torch", "monai", "nibabel", "SimpleITK", "skimage", "zarr"]
    program = (
        f"import sys; from medwave.workflows.trace import trace_file\nprint([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_registration_brings_nothing_that_it_does_not_need():
    heavy = ["torch", "monai", "SimpleITK", "skimage", "scipy.ndimage", "matplotlib"]
    program = (
        "import sys; from medwave.workflows.register import register; from medwave.workflows.save import"
        f" save_registration\nprint([m for m in {heavy} if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True, timeout=60)
    assert done.stdout.strip() == "[]"


def test_an_optional_package_that_is_there_is_handed_out():
    assert require("json.decoder", extra="demo", purpose="x").__name__ == "json.decoder"


@pytest.mark.parametrize("module", ["no_such_package_of_medwave", "no_such_package_of_medwave.part.deep"])
def test_a_missing_package_comes_with_its_pip_line(module):
    with pytest.raises(MissingPackageError) as caught:
        require(module, extra="demo", purpose="the sample brain")
    message = str(caught.value)
    assert message.startswith('the sample brain needs the package "no_such_package_of_medwave": ')
    assert message.endswith('pip install "medwave[demo]"')
    assert isinstance(caught.value, ImportError)


@pytest.mark.parametrize("absent", ["absent_dependency", "gate"])  # the second is how the package's own name begins
def test_what_a_present_package_lacks_is_shown_as_it_is(tmp_path, monkeypatch, absent):
    monkeypatch.syspath_prepend(tmp_path)
    (tmp_path / f"gate_of_test_{len(absent)}.py").write_text(f"import {absent}\n")
    with pytest.raises(ModuleNotFoundError, match=absent) as caught:
        require(f"gate_of_test_{len(absent)}", extra="demo", purpose="x")
    assert not isinstance(caught.value, MissingPackageError)
