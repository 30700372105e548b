"""Vectors of 32 bytes as values of compiled loops.

Conventions
    A :class:`Lanes` holds eight float32 or four float64 values. Arrays are flat and C-contiguous, offsets are unsigned
    elements and need no alignment. CPUs with narrower vectors run the same in parts.

    A compiler that must find vectors by itself tests at every row whether rows overlap, which costs short rows more
    than their arithmetic. Here nothing has to be proved: the loops say what happens.
    Stores past the cache were tried: a quarter faster than these for one result in a row, half slower for eight bands.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir
from numba import extending
from numba.core import types
from numba.extending import models, register_model

from medwave.core.compiler import compiler

Array = Any  # numba specialises on the array types that come
Index = Any  # an Offset, in functions that are called from loops
Offset = np.uint64  # an unsigned index needs no test for a negative one
ONE = Offset(1)
intrinsic: Any = extending.intrinsic  # its own annotations do not know what it makes of a function
compiled = compiler(fastmath={"contract", "nsz"})
inlined = compiler(fastmath={"contract", "nsz"}, forceinline=True)  # a call costs a short row

LANE_BYTES = 32
_FUSE = ("contract",)  # a product and the sum it enters may be rounded once


class Lanes(types.Type):
    """The numba type of a vector of ``element``."""

    def __init__(self, element: Any) -> None:
        self.element = element
        self.count = 8 * LANE_BYTES // element.bitwidth
        super().__init__(name=f"Lanes({element})")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, lanes: Lanes) -> None:
        element = ir.FloatType() if lanes.element.bitwidth == 32 else ir.DoubleType()
        super().__init__(manager, lanes, ir.VectorType(element, lanes.count))  # type: ignore[no-untyped-call]


def _pointer(context: Any, builder: Any, signature: Any, args: Any) -> tuple[Any, int]:
    """Pointer to the lanes at an offset of an array, and the size of an element."""
    array = context.make_array(signature.args[0])(context, builder, args[0])
    element = signature.args[0].dtype
    lanes = context.get_value_type(Lanes(element))
    return builder.bitcast(builder.gep(array.data, [args[1]]), lanes.as_pointer()), element.bitwidth // 8


@intrinsic
def load(typing_context: Any, array: Any, at: Any) -> Any:
    """Lanes from an array."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, size = _pointer(context, builder, signature, args)
        return builder.load(pointer, align=size)

    return Lanes(array.dtype)(array, types.uint64), generate


@intrinsic
def store(typing_context: Any, array: Any, at: Any, value: Any) -> Any:
    """Lanes into an array."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        pointer, size = _pointer(context, builder, signature, args)
        builder.store(args[2], pointer, align=size)
        return context.get_dummy_value()

    return types.void(array, types.uint64, value), generate


@intrinsic
def zero(typing_context: Any, array: Any) -> Any:
    """Lanes of zeros, of the type of an array."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return ir.Constant(context.get_value_type(signature.return_type), None)

    return Lanes(array.dtype)(array), generate


def _splat(builder: Any, scalar: Any, lanes: Any) -> Any:
    first = builder.insert_element(ir.Constant(lanes, ir.Undefined), scalar, ir.Constant(ir.IntType(32), 0))
    mask = ir.Constant(ir.VectorType(ir.IntType(32), lanes.count), None)
    return builder.shuffle_vector(first, ir.Constant(lanes, ir.Undefined), mask)


@intrinsic
def scaled(typing_context: Any, value: Any, factor: Any) -> Any:
    """``factor * value``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        return builder.fmul(args[0], _splat(builder, args[1], args[0].type), flags=_FUSE)

    return value(value, value.element), generate


@intrinsic
def add_scaled(typing_context: Any, total: Any, value: Any, factor: Any) -> Any:
    """``total + factor * value``."""

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        product = builder.fmul(args[1], _splat(builder, args[2], args[1].type), flags=_FUSE)
        return builder.fadd(args[0], product, flags=_FUSE)

    return value(value, value, value.element), generate


def _binary(describe: str, make: Callable[[Any, Any, Any], Any]) -> Any:
    """A function of two lanes."""

    def binary(typing_context: Any, a: Any, b: Any) -> Any:
        def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
            return make(builder, *args)

        return a(a, a), generate

    binary.__doc__ = describe
    return intrinsic(binary)


def _shuffle(select: Callable[[int], list[int]]) -> Callable[[Any, Any, Any], Any]:
    """A choice among the lanes of two vectors, the second's counted on from the first's."""

    def make(builder: Any, a: Any, b: Any) -> Any:
        chosen = select(a.type.count)
        return builder.shuffle_vector(a, b, ir.Constant(ir.VectorType(ir.IntType(32), len(chosen)), chosen))

    return make


def _zipped(first: int, count: int) -> list[int]:
    return [lane for k in range(first, first + count // 2) for lane in (k, k + count)]


added = _binary("``a + b``.", lambda builder, a, b: builder.fadd(a, b))
less = _binary("``a - b``.", lambda builder, a, b: builder.fsub(a, b))
evens = _binary("Every other of two lanes in a row, from the first.", _shuffle(lambda n: list(range(0, 2 * n, 2))))
odds = _binary("Every other of two lanes in a row, from the second.", _shuffle(lambda n: list(range(1, 2 * n, 2))))
zip_front = _binary("First halves, alternating: the reverse of evens and odds.", _shuffle(lambda n: _zipped(0, n)))
zip_back = _binary("Second halves, alternating.", _shuffle(lambda n: _zipped(n // 2, n)))
