"""What a solution may ask of the lab. Runs in the sandbox, beside untrusted code: not trusted.

    from harness import compile_cpp
    library = compile_cpp(SOURCE)             # at import: g++ makes a library of `extern "C"` functions
    library.rows(x, out, *x.shape)            # tensors as pointers, whole numbers as long, others as double

    from harness import compile_cuda, stream  # on a GPU
    library = compile_cuda(SOURCE)            # the same by nvcc: `extern "C"` host functions that launch kernels
    library.rows(x, out, *x.shape, stream())  # the last one a `long` that is cast to cudaStream_t

A solution is `PROBLEM/solution.py` with `run(*inputs)`, in the order of the definition; it returns the outputs as a
tensor, a sequence in order or a dict by name. It must not write to its inputs.

What compilers keep belongs into /cache, where inductor and triton are pointed: as it stands when the clock starts, it
is there again in later trials of the same commit.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

import inside_call
import torch

FLAGS = ("-O3", "-march=native")
CUDA_FLAGS = ("-O3", "-arch=native", "-Xcompiler", "-fPIC")
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
    return _compiled(source, "cpp", "g++", (*flags, "-fPIC"))


def compile_cuda(source: str, flags: Sequence[str] = CUDA_FLAGS) -> Library:
    """The CUDA C++ text as a loaded library; like `compile_cpp`."""
    return _compiled(source, "cu", nvcc(), flags)


def nvcc() -> str:
    """Where the toolkit is, whether it is on the path or not."""
    home = os.environ.get("CUDA_HOME", "/usr/local/cuda")
    return shutil.which("nvcc") or f"{home}/bin/nvcc"


def stream() -> int:
    """The stream on which torch works at the moment."""
    return int(torch.cuda.current_stream().cuda_stream)


def _compiled(source: str, suffix: str, compiler: str, flags: Sequence[str]) -> Library:
    identity = hashlib.sha256("\0".join((*flags, source)).encode()).hexdigest()[:24]
    path = Path(inside_call.cache) / f"{suffix}-{identity}.so"
    if not path.exists():
        text, made = Path(inside_call.scratch) / f"{identity}.{suffix}", path.with_suffix(f".{os.getpid()}")
        text.write_text(source)
        command = [compiler, *flags, "-std=c++17", "-shared", "-o", str(made), str(text)]
        name = Path(compiler).name
        try:
            done = subprocess.run(command, capture_output=True, text=True, timeout=COMPILE_SECONDS)
        except FileNotFoundError:
            raise RuntimeError(f"there is no {name} on this machine: install it, or leave {name} out") from None
        if done.returncode:
            raise RuntimeError(f"{name} refused the source:\n{done.stderr[:4000]}")
        made.replace(path)
    return Library(str(path))
