"""Sixteen numbers at a time in numba: a vector type and the few operations that the nearest-neighbour search needs.

numba has no vectors, and leaves it to LLVM whether a loop over an array becomes vector instructions; values that live
across such loops go through memory then. A :class:`Lanes` value is one LLVM vector and stays in registers (of float32:
one of 512 bit, two of 256 or four of 128), on every processor that LLVM knows.

The operations exist only within compiled code, where offsets are not checked. Imported only where numba is installed.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic, models, register_model

WIDTH = 16


class Lanes(types.Type):
    """The numba type of ``WIDTH`` numbers, or truth values, of one scalar type."""

    def __init__(self, scalar: types.Type) -> None:
        self.scalar = scalar
        super().__init__(name=f"Lanes({scalar})")


@register_model(Lanes)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, dmm: Any, fe_type: Lanes) -> None:
        scalar = ir.IntType(1) if fe_type.scalar == types.boolean else dmm.lookup(fe_type.scalar).get_value_type()
        super().__init__(dmm, fe_type, ir.VectorType(scalar, WIDTH))


def _read(context: Any, builder: Any, array_type: Any, array: Any, offset: Any, width: int) -> Any:
    """The number at ``array[offset]``, or the vector that begins there."""
    data = context.make_array(array_type)(context, builder, array).data
    pointer = builder.gep(data, [offset])
    if width == 1:
        return builder.load(pointer)
    vector = context.get_value_type(Lanes(array_type.dtype))
    size = context.get_abi_sizeof(context.get_data_type(array_type.dtype))
    return builder.load(builder.bitcast(pointer, vector.as_pointer()), align=size)


def _fill(builder: Any, number: Any) -> Any:
    vector = ir.VectorType(number.type, WIDTH)
    first = builder.insert_element(ir.Constant(vector, ir.Undefined), number, ir.Constant(ir.IntType(32), 0))
    return builder.shuffle_vector(first, first, ir.Constant(ir.VectorType(ir.IntType(32), WIDTH), [0] * WIDTH))


def _suffix(kind: Any) -> str:
    return f"v{WIDTH}f32" if kind == ir.VectorType(ir.FloatType(), WIDTH) else f"v{WIDTH}f64"


def _sum_of_squares(builder: Any, x: Any, y: Any, z: Any) -> Any:
    signature = ir.FunctionType(x.type, [x.type] * 3)
    fused = cgutils.get_or_insert_function(builder.module, signature, f"llvm.fmuladd.{_suffix(x.type)}")
    return builder.call(fused, [z, z, builder.call(fused, [x, x, builder.fmul(y, y)])])


def _lesser(builder: Any, left: Any, right: Any) -> Any:
    return builder.select(builder.fcmp_ordered("<", left, right), left, right)


@intrinsic
def load(typing_context, array, offset):  # type: ignore[no-untyped-def]
    """``array[offset : offset + WIDTH]`` of a contiguous one-dimensional array."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return _read(context, builder, signature.args[0], *arguments, WIDTH)

    return Lanes(array.dtype)(array, types.intp), build


@intrinsic
def store(typing_context, array, offset, value):  # type: ignore[no-untyped-def]
    """Write ``value`` to ``array[offset : offset + WIDTH]``."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        data = context.make_array(signature.args[0])(context, builder, arguments[0]).data
        pointer = builder.bitcast(builder.gep(data, [arguments[1]]), arguments[2].type.as_pointer())
        builder.store(arguments[2], pointer, align=context.get_abi_sizeof(arguments[2].type.element))
        return context.get_dummy_value()

    return types.void(array, types.intp, value), build


@intrinsic
def fill(typing_context, number):  # type: ignore[no-untyped-def]
    """One number in all lanes."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return _fill(builder, arguments[0])

    return Lanes(number)(number), build


def _of_two(operation: Callable[..., Any]) -> Any:
    """An intrinsic of two vectors of one type that gives a third of that type."""

    def define(typing_context, left, right):  # type: ignore[no-untyped-def]
        def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            return operation(builder, *arguments)

        return left(left, right), build

    return intrinsic(define)


def _comparison(symbol: str) -> Any:
    """An intrinsic of two vectors of one type that gives truth values; false where one is NaN."""

    def define(typing_context, left, right):  # type: ignore[no-untyped-def]
        def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            if isinstance(signature.args[0].scalar, types.Float):
                return builder.fcmp_ordered(symbol, *arguments)
            return builder.icmp_signed(symbol, *arguments)

        return Lanes(types.boolean)(left, right), build

    return intrinsic(define)


subtract = _of_two(lambda builder, left, right: builder.fsub(left, right))
larger = _of_two(lambda builder, left, right: builder.select(builder.fcmp_ordered(">", left, right), left, right))
either = _of_two(lambda builder, left, right: builder.or_(left, right))
both = _of_two(lambda builder, left, right: builder.and_(left, right))
less = _comparison("<")
equal = _comparison("==")
at_most = _comparison("<=")


@intrinsic
def choose(typing_context, condition, yes, no):  # type: ignore[no-untyped-def]
    """Lane by lane ``yes`` where ``condition`` holds, else ``no``."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.select(*arguments)

    return yes(condition, yes, no), build


@intrinsic
def bits(typing_context, condition):  # type: ignore[no-untyped-def]
    """An int64 whose bit k is set where ``condition`` holds in lane k."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.zext(builder.bitcast(arguments[0], ir.IntType(WIDTH)), ir.IntType(64))

    return types.int64(condition), build


@intrinsic
def lowest_bit(typing_context, number):  # type: ignore[no-untyped-def]
    """The place of the lowest bit set in an int64 other than zero."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return builder.cttz(arguments[0], ir.Constant(ir.IntType(1), 1))

    return types.int64(types.int64), build


def _reduction(name: str) -> Any:
    """An intrinsic that gives the extreme of a vector of floats, none of them NaN."""

    def define(typing_context, value):  # type: ignore[no-untyped-def]
        def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
            kind = arguments[0].type
            function = cgutils.get_or_insert_function(
                builder.module, ir.FunctionType(kind.element, [kind]), f"llvm.vector.reduce.{name}.{_suffix(kind)}"
            )
            return builder.call(function, arguments, fastmath=("nnan",))

        return value.scalar(value), build

    return intrinsic(define)


largest = _reduction("fmax")
smallest = _reduction("fmin")


@intrinsic
def sum_of_squares(typing_context, x, y, z):  # type: ignore[no-untyped-def]
    """x² + y² + z² of floats, by fused multiply-adds where the processor has them.

    Every step rounds monotonically, so that the result never falls when |x|, |y| or |z| rises.
    """

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        return _sum_of_squares(builder, *arguments)

    return x(x, y, z), build


@intrinsic
def squared_distances(typing_context, axes_x, axes_y, axes_z, start, x, y, z):  # type: ignore[no-untyped-def]
    """From the points in the lanes to each of the ``WIDTH`` points at ``start`` of three arrays: a tuple of vectors.

    Written out, without a loop, so that all of them may stay in registers and none waits for another.
    """

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        *arrays, start, x, y, z = arguments
        found = []
        for k in range(WIDTH):
            offset = builder.add(start, ir.Constant(start.type, k))
            point = [
                _fill(builder, _read(context, builder, kind, array, offset, 1))
                for kind, array in zip(signature.args[:3], arrays, strict=True)
            ]
            gaps = [builder.fsub(there, here) for there, here in zip(point, (x, y, z), strict=True)]
            found.append(_sum_of_squares(builder, *gaps))
        return context.make_tuple(builder, signature.return_type, found)

    return types.UniTuple(x, WIDTH)(axes_x, axes_y, axes_z, types.intp, x, y, z), build


@intrinsic
def least_of(typing_context, vectors):  # type: ignore[no-untyped-def]
    """Lane by lane the least of a tuple of vectors, by pairs, then pairs of pairs."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        left = cgutils.unpack_tuple(builder, arguments[0])
        while len(left) > 1:
            left = [_lesser(builder, left[k], left[k + 1]) for k in range(0, len(left), 2)]
        return left[0]

    return vectors.dtype(vectors), build


@intrinsic
def first_equal(typing_context, vectors, value, names, start, otherwise):  # type: ignore[no-untyped-def]
    """Lane by lane ``names[start + k]`` of the first vector k that equals ``value``, or ``otherwise``."""

    def build(context, builder, signature, arguments):  # type: ignore[no-untyped-def]
        packed, value, names, start, which = arguments
        for k, vector in reversed(list(enumerate(cgutils.unpack_tuple(builder, packed)))):
            offset = builder.add(start, ir.Constant(start.type, k))
            name = _fill(builder, _read(context, builder, signature.args[2], names, offset, 1))
            which = builder.select(builder.fcmp_ordered("==", vector, value), name, which)
        return which

    return Lanes(names.dtype)(vectors, value, names, types.intp, otherwise), build
