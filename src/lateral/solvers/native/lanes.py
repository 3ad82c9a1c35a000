"""Eight steps at a time: a Numba type for eight numbers that one instruction works on.

The elimination does the same at every step, so its kernels (`lateral.solvers.native.elimination`) are written in
*lanes*: ``lane(a, i)`` reads eight neighbouring steps of entry i, ``+ - * /`` work on all of them, ``put(a, i, x)``
writes them back. Arrays of lanes have shape (entries, 8), one cache line per entry, or half of one where they are kept
in single precision: lanes are doubles all the same. A plain loop over the steps leaves
the compiler to prove that arrays do not overlap, and to treat what is left over from its own width; this does not.

Functions here can be called from compiled code only. Numba does not see when this file changes: remove
``__pycache__`` beside it then.
"""

from __future__ import annotations

import operator
from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import types
from numba.core.typing.templates import AbstractTemplate, infer_global, signature
from numba.extending import intrinsic, lower_builtin, models, register_model

#: Steps per lane.
WIDTH = 8
_VECTOR = ir.VectorType(ir.DoubleType(), WIDTH)
_SINGLE = ir.VectorType(ir.FloatType(), WIDTH)
# what Numba leaves untyped, or types so that kernels could not call it
_intrinsic: Callable[[Any], Any] = intrinsic
_signature: Callable[..., Any] = signature
_infer_global: Callable[..., Any] = infer_global
_lower_builtin: Callable[..., Any] = lower_builtin
_FAST = ("contract", "arcp", "nsz", "reassoc")


class LanesType(types.Type):
    """Eight doubles."""

    def __init__(self) -> None:
        super().__init__(name="Lanes")


lanes_type = LanesType()


@register_model(LanesType)
class _LanesModel(models.PrimitiveModel):
    def __init__(self, manager: Any, numba_type: Any) -> None:
        super().__init__(manager, numba_type, _VECTOR)  # type: ignore[no-untyped-call]


def _arithmetic(operation: Any, instruction: str) -> None:
    """Let an operator of Python be an instruction on lanes."""

    class Template(AbstractTemplate):
        def generic(self, args: Any, kws: Any) -> Any:
            both = len(args) == 2 and all(isinstance(a, LanesType) for a in args)
            return _signature(lanes_type, lanes_type, lanes_type) if both and not kws else None

    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return getattr(builder, instruction)(args[0], args[1], flags=_FAST)

    _infer_global(operation)(Template)
    _lower_builtin(operation, lanes_type, lanes_type)(lower)


for _operation, _instruction in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _arithmetic(_operation, _instruction)


def _address(context: Any, builder: Any, array_type: Any, array: Any, element: Any, pointee: Any) -> Any:
    data = context.make_array(array_type)(context, builder, array).data
    return builder.bitcast(builder.gep(data, [element]), pointee.as_pointer())


def _in_a_row(array_type: Any, *kinds: Any) -> bool:
    """Whether elements are next to each other in memory, and doubles or of these types: others would be read as what
    they are not, so that a call with them does not compile."""
    return bool(array_type.layout == "C" and array_type.dtype in (kinds or (types.float64,)))


def _times_width(builder: Any, index: Any) -> Any:
    return builder.mul(index, ir.Constant(index.type, WIDTH))


@_intrinsic
def lane(typing: Any, a: Any, i: Any) -> Any:
    """Lane i of an array of lanes, of doubles or of singles."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        at = _times_width(builder, args[1])
        if sig.args[0].dtype == types.float32:
            found = builder.load(_address(context, builder, sig.args[0], args[0], at, _SINGLE), align=4)
            return builder.fpext(found, _VECTOR)
        return builder.load(_address(context, builder, sig.args[0], args[0], at, _VECTOR), align=8)

    return (lanes_type(a, types.intp), generate) if _in_a_row(a, types.float64, types.float32) else None


@_intrinsic
def put(typing: Any, a: Any, i: Any, x: Any) -> Any:
    """Write lane i of an array of lanes; rounded, where it holds singles."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        at = _times_width(builder, args[1])
        if sig.args[0].dtype == types.float32:
            rounded = builder.fptrunc(args[2], _SINGLE)
            builder.store(rounded, _address(context, builder, sig.args[0], args[0], at, _SINGLE), align=4)
        else:
            builder.store(args[2], _address(context, builder, sig.args[0], args[0], at, _VECTOR), align=8)
        return context.get_dummy_value()

    return (types.void(a, types.intp, lanes_type), generate) if _in_a_row(a, types.float64, types.float32) else None


@_intrinsic
def piece(typing: Any, a: Any, at: Any) -> Any:
    """Eight neighbours in memory from one element on, of any contiguous array."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.load(_address(context, builder, sig.args[0], args[0], args[1], _VECTOR), align=8)

    return (lanes_type(a, types.intp), generate) if _in_a_row(a) else None


@_intrinsic
def put_piece(typing: Any, a: Any, at: Any, x: Any) -> Any:
    """Write eight neighbours in memory from one element on, of any contiguous array."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        builder.store(args[2], _address(context, builder, sig.args[0], args[0], args[1], _VECTOR), align=8)
        return context.get_dummy_value()

    return (types.void(a, types.intp, lanes_type), generate) if _in_a_row(a) else None


@_intrinsic
def splat(typing: Any, x: Any) -> Any:
    """One number in all lanes."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        out = ir.Constant(_VECTOR, ir.Undefined)
        for k in range(WIDTH):
            out = builder.insert_element(out, args[0], ir.Constant(ir.IntType(32), k))
        return out

    return lanes_type(types.float64), generate


@_intrinsic
def below_zero(typing: Any, x: Any) -> Any:
    """1 in the lanes that are below zero, 0 in the others."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        zero = ir.Constant(_VECTOR, [0.0] * WIDTH)
        return builder.uitofp(builder.fcmp_ordered("<", args[0], zero), _VECTOR)

    return lanes_type(lanes_type), generate


@_intrinsic
def prefetch(typing: Any, a: Any, i: Any) -> Any:
    """Ask for lane i, which may lie outside of the array, to be fetched from memory."""

    def generate(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        byte, number = ir.IntType(8), ir.IntType(32)
        at = _address(context, builder, sig.args[0], args[0], _times_width(builder, args[1]), byte)
        kind = ir.FunctionType(ir.VoidType(), [at.type, number, number, number])
        function = builder.module.declare_intrinsic("llvm.prefetch", [at.type], kind)
        builder.call(function, [at, number(0), number(3), number(1)])
        return context.get_dummy_value()

    return types.void(a, types.intp), generate


__all__ = ["WIDTH", "below_zero", "lane", "piece", "prefetch", "put", "put_piece", "splat"]
