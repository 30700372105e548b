"""The error family: one root, and the built-in that fits, for every leaf."""

import inspect
import pickle

import pytest

from medwave.core import errors
from medwave.core.errors import MedwaveError

LEAVES = {
    "MissingFileError": FileNotFoundError,
    "VolumeFormatError": ValueError,
    "GeometryError": ValueError,
    "InputError": ValueError,
    "OutputError": OSError,
    "DeviceError": RuntimeError,
    "ClusterError": RuntimeError,
    "UnreachableError": ConnectionError,
    "MissingPackageError": ImportError,
    "MissingProgramError": FileNotFoundError,
}


def test_the_family_is_complete():
    found = {name for name, value in inspect.getmembers(errors, inspect.isclass) if issubclass(value, MedwaveError)}
    assert found == {*LEAVES, "MedwaveError"}


@pytest.mark.parametrize(("name", "builtin"), LEAVES.items())
def test_every_error_is_caught_by_both_of_its_parents(name, builtin):
    kind = getattr(errors, name)
    for parent in (MedwaveError, builtin):
        with pytest.raises(parent) as caught:
            raise kind("a.nii: the rule; what came; the way out")
        assert str(caught.value) == "a.nii: the rule; what came; the way out"
    assert kind.__doc__


@pytest.mark.parametrize("name", LEAVES)
def test_errors_travel_between_processes(name):
    error = getattr(errors, name)("a.nii: broken")
    copy = pickle.loads(pickle.dumps(error))
    assert type(copy) is type(error)
    assert str(copy) == "a.nii: broken"
