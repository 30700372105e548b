"""The one gate for optional packages."""

from __future__ import annotations

import importlib
from types import ModuleType

from medwave.core.errors import MissingPackageError


def require(module: str, *, extra: str, purpose: str) -> ModuleType:
    """Import an optional module, or say which pip line brings it.

    Args:
        module: dotted module name, such as ``"nilearn.datasets"``.
        extra: the medwave extra that installs it.
        purpose: what it is needed for, in a few words.

    Raises:
        MissingPackageError: when the package is not installed.
    """
    try:
        return importlib.import_module(module)
    except ModuleNotFoundError as error:
        package = module.split(".")[0]
        if error.name is None or error.name.split(".")[0] != package:
            raise  # the package is there, but something it needs is not: show that instead
        raise MissingPackageError(f'{purpose} needs the package "{package}": pip install "medwave[{extra}]"') from error
