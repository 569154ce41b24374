"""What a solution may ask of the lab. Runs in the sandbox, beside untrusted code: not trusted.

    from harness import compile_cpp
    library = compile_cpp(SOURCE)             # at import: g++ makes a library of `extern "C"` functions
    library.rows(ctypes.c_void_p(x.data_ptr()), ...)

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
from collections.abc import Sequence
from pathlib import Path

import inside_call

FLAGS = ("-O3", "-march=native")
COMPILE_SECONDS = 120


def compile_cpp(source: str, flags: Sequence[str] = FLAGS) -> ctypes.CDLL:
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
    return ctypes.CDLL(str(path))
