"""What a solution may ask of the lab. Runs in the sandbox, beside untrusted code: not trusted.

    from harness import compile_cpp
    library = compile_cpp(SOURCE)             # at import: g++ makes a library of `extern "C"` functions
    library.rows(x, out, *x.shape)            # tensors as pointers, whole numbers as long, others as double

A solution is `PROBLEM/solution.py` with `run(*inputs)`, in the order of the definition; it returns the outputs as a
tensor, a sequence in order or a dict by name. It must not write to its inputs.

What compilers keep belongs into /cache, where inductor and triton are pointed: as it stands when the clock starts, it
is there again in later trials of the same commit.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import inside_call
import torch

FLAGS = ("-O3", "-march=native")
COMPILE_SECONDS = 120


class Library:
    """The functions of a compiled text. What one returns is a long; of a `void` one it means nothing."""

    def __init__(self, path: str) -> None:
        self._loaded = ctypes.CDLL(path)

    def __getattr__(self, name: str) -> Callable[..., int]:
        function = getattr(self._loaded, name)
        function.restype = ctypes.c_long

        def call(*arguments: torch.Tensor | int | float) -> int:
            """Tensors are handed over by their address, so they must be contiguous where the function takes that."""
            return int(function(*map(passed, arguments)))

        setattr(self, name, call)
        return call


def passed(argument: torch.Tensor | int | float) -> ctypes.c_void_p | ctypes.c_long | ctypes.c_double:
    if isinstance(argument, int):
        return ctypes.c_long(argument)
    return ctypes.c_double(argument) if isinstance(argument, float) else ctypes.c_void_p(argument.data_ptr())


def compile_cpp(source: str, flags: Sequence[str] = FLAGS) -> Library:
    """The C++ text as a loaded library; compiled once for a commit and a kind of processor.

    Raises RuntimeError with what the compiler said, or where there is none.
    """
    identity = hashlib.sha256("\0".join((*flags, source)).encode()).hexdigest()[:24]
    path = Path(inside_call.cache) / f"cpp-{identity}.so"
    if not path.exists():
        text, made = Path(inside_call.scratch) / f"{identity}.cpp", path.with_suffix(f".{os.getpid()}")
        text.write_text(source)
        command = ["g++", *flags, "-std=c++17", "-shared", "-fPIC", "-o", str(made), str(text)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS)
        except FileNotFoundError:
            raise RuntimeError("there is no g++ on this machine: install it, or leave C++ out") from None
        if done.returncode:
            raise RuntimeError(f"g++ refused the source:\n{done.stderr[:4000]}")
        made.replace(path)
    return Library(str(path))
