"""Triton's interpreter, mended where it computes something else than a GPU.

`TRITON_INTERPRET=1` before the first import of triton chooses it; kernels then run on the CPU by numpy.
"""

from __future__ import annotations

from typing import Any

import numpy
import triton.language as tl
from triton.runtime import interpreter


def mend() -> None:
    """Make `tl.dot` multiply bfloat16 by value: the interpreter multiplies the bit patterns, as numpy has no such type.

    Changes the interpreter of this process; calling it again changes nothing.
    """
    builder = interpreter.InterpreterBuilder
    if not getattr(builder.create_dot, "by_value", False):
        builder.create_dot = _by_value(builder.create_dot)


def _by_value(dot: Any) -> Any:
    def create_dot(self: Any, a: Any, b: Any, *rest: Any) -> Any:
        return dot(self, _widened(a), _widened(b), *rest)

    create_dot.by_value = True  # type: ignore[attr-defined]
    return create_dot


def _widened(handle: Any) -> Any:
    """float32 of the same values for bfloat16, which is kept as its upper 16 bits; all else as it is."""
    if handle.dtype.scalar != tl.bfloat16:
        return handle
    bits = handle.data.astype(numpy.uint32) << 16
    return interpreter.TensorHandle(bits.view(numpy.float32), tl.float32)
