"""InsightFace's verification sets (``lfw.bin``, ``cfp_fp.bin``, ``agedb_30.bin``), read without unpickling.

Such a file is a Python pickle of ``(pictures, same)``: bytes of PNG or JPEG files, two for each pair, and one truth
value per pair. Unpickling a file from elsewhere can run any program. Here the opcodes are parsed as data, and only
those that build numbers, bytes, lists and tuples are obeyed; any other is an error. No object but these is ever made.
"""

from __future__ import annotations

import io
import pickletools
from typing import Any

import numpy as np
import numpy.typing as npt

from medwave.core.errors import VolumeFormatError
from medwave.core.files import StrPath, input_file

_BYTES = {"BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"}
_LATIN = {"BINSTRING", "SHORT_BINSTRING"}  # bytes as Python 2 wrote them
_NUMBERS = {"INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1"}
_CONSTANTS = {"NEWTRUE": True, "NEWFALSE": False, "EMPTY_TUPLE": ()}
_PUT = {"PUT", "BINPUT", "LONG_BINPUT"}
_GET = {"GET", "BINGET", "LONG_BINGET"}
_TUPLES = {"TUPLE1": 1, "TUPLE2": 2, "TUPLE3": 3}
_NOTHING = {"PROTO", "FRAME"}
_MARK = object()


def read_pair_bin(path: StrPath) -> tuple[list[bytes], npt.NDArray[np.bool_]]:
    """Pictures of all pairs, as the bytes of their files, and whether each pair shows one identity.

    Returns:
        Pictures (pair ``i`` is ``2 i`` and ``2 i + 1``), and ``(n,)`` booleans.

    Raises:
        MissingFileError: when there is no such file.
        VolumeFormatError: when it is damaged, or holds anything but two lists of bytes and of truth values.
    """
    file = input_file(path)
    value = _plain_value(file.read_bytes(), str(file))
    if not isinstance(value, tuple | list) or len(value) != 2 or not all(isinstance(part, list) for part in value):
        raise VolumeFormatError(f"{file}: a verification set is a pair of lists, pictures and answers; this is not")
    pictures, same = value
    if not all(isinstance(p, bytes) for p in pictures) or not all(type(s) in (bool, int) and s in (0, 1) for s in same):
        raise VolumeFormatError(f"{file}: pictures must be bytes of files, and answers True or False")
    if len(pictures) != 2 * len(same) or not same:
        raise VolumeFormatError(f"{file}: two pictures per pair are needed, got {len(pictures)} for {len(same)} pairs")
    return pictures, np.array(same, dtype=np.bool_)


def _plain_value(content: bytes, name: str) -> Any:
    """What a pickle of plain values holds."""
    stack: list[Any] = []
    memo: dict[int, Any] = {}
    try:
        for opcode, argument, _ in pickletools.genops(io.BytesIO(content)):
            if opcode.name == "STOP":
                if len(stack) != 1:
                    break
                return stack[0]
            _obey(opcode.name, argument, stack, memo, name)
    except VolumeFormatError:
        raise
    except (ValueError, IndexError, KeyError, TypeError, AttributeError, MemoryError, OverflowError) as error:
        raise VolumeFormatError(f"{name}: not a pickle, or damaged ({type(error).__name__}); copy it again") from None
    raise VolumeFormatError(f"{name}: not a pickle, or damaged; copy it again")


def _obey(opcode: str, argument: Any, stack: list[Any], memo: dict[int, Any], name: str) -> None:
    if opcode in _NOTHING:
        return
    if opcode in _BYTES:
        stack.append(bytes(argument))
    elif opcode in _LATIN:
        stack.append(argument.encode("latin-1"))
    elif opcode in _NUMBERS:
        stack.append(argument)
    elif opcode in _CONSTANTS:
        stack.append(_CONSTANTS[opcode])
    elif opcode == "EMPTY_LIST":
        stack.append([])
    elif opcode == "MARK":
        stack.append(_MARK)
    elif opcode in ("TUPLE", "LIST"):
        items = _since_mark(stack)
        stack.append(tuple(items) if opcode == "TUPLE" else items)
    elif opcode in _TUPLES:
        count = _TUPLES[opcode]
        stack[-count:] = [tuple(stack[-count:])]
    elif opcode == "APPEND":
        item = stack.pop()
        stack[-1].append(item)
    elif opcode == "APPENDS":
        items = _since_mark(stack)
        stack[-1].extend(items)
    elif opcode == "MEMOIZE":
        memo[len(memo)] = stack[-1]
    elif opcode in _PUT:
        memo[argument] = stack[-1]
    elif opcode in _GET:
        stack.append(memo[argument])
    else:
        raise VolumeFormatError(
            f"{name}: holds more than bytes, numbers, lists and tuples (opcode {opcode}) and is not opened, since that "
            "could run code; make a list of pairs and a folder of pictures of it"
        )


def _since_mark(stack: list[Any]) -> list[Any]:
    place = max(n for n, item in enumerate(stack) if item is _MARK)
    items = stack[place + 1 :]
    del stack[place:]
    return items
