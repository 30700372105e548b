"""The one error family of medwave.

Every error that a user can cause is a :class:`MedwaveError` and also the built-in that fits, so that both
``except MedwaveError`` and ``except ValueError`` work. A message names the file (if there is one), says the rule
that was broken, what came instead, and the way out. The command line prints the message on one line and ends
with exit code 2.
"""

from __future__ import annotations


class MedwaveError(Exception):
    """Base class of all errors raised on purpose by medwave."""


class MissingFileError(MedwaveError, FileNotFoundError):
    """A named input does not exist."""


class VolumeFormatError(MedwaveError, ValueError):
    """A file is not a volume of a known format, or it is damaged."""


class GeometryError(MedwaveError, ValueError):
    """Shapes, spacings, axes or affines are unusable or do not fit together."""


class InputError(MedwaveError, ValueError):
    """Values are unusable: NaN, constant image, empty mask, unknown option."""


class OutputError(MedwaveError, OSError):
    """A result cannot be written."""


class DeviceError(MedwaveError, RuntimeError):
    """The requested device is not there."""


class ClusterError(MedwaveError, RuntimeError):
    """A cluster cannot be reached or started, or went away."""


class UnreachableError(MedwaveError, ConnectionError):
    """A store behind a URL does not answer, also when asked again."""


class MissingPackageError(MedwaveError, ImportError):
    """An optional package is not installed; the message carries the pip line."""


class MissingProgramError(MedwaveError, FileNotFoundError):
    """A program of others is not on the PATH; the message carries the command to run it with."""
