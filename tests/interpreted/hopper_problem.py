"""Compiles the Triton solution in a folder for Hopper at the sizes of its workloads, without a GPU. One line a build.

Tensors hold no data, and what `run` would launch is compiled instead, as on the device: with the same types, alignments
and options. A line is JSON: kernel, workload that needed it first, bytes of shared memory, registers a thread, bytes of
stack and of spills, and how often wgmma and bulk copies (TMA) occur.
"""

from __future__ import annotations

import importlib.util
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.driver import driver
from triton.runtime.jit import JITFunction

from benchmarks.kernels.formats.definition import TensorSpec
from benchmarks.kernels.formats.loader import load_problem
from benchmarks.kernels.reference import torch_dtype

HOPPER = GPUTarget("cuda", 90, 32)
CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"


def usage(cubin: bytes) -> dict[str, int]:
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(cubin)
        said = subprocess.run([CUOBJDUMP, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    return {word.lower(): int(number) for word, number in re.findall(r"(REG|STACK|LOCAL):(\d+)", said)}


def made(spec: TensorSpec, shape: tuple[int, ...] | None, axes: dict[str, int]) -> Any:
    if shape is None:
        return axes["vocabulary"]  # the one Python scalar in the set
    return torch.empty(shape, dtype=torch_dtype(spec.dtype), device="meta")


def main(folder: Path) -> None:
    problem = load_problem(folder)
    builds: dict[str, tuple[str, Any]] = {}
    compiling, asked = JITFunction.run, [""]

    def compile_only(self: Any, *args: Any, grid: Any, warmup: bool, **kwargs: Any) -> Any:
        build = compiling(self, *args, grid=grid, warmup=True, **kwargs)
        builds.setdefault(build.hash, (asked[0], build))
        return build

    JITFunction.run = compile_only
    driver.set_active(
        SimpleNamespace(
            get_current_target=lambda: HOPPER, get_current_device=lambda: 0, get_current_stream=lambda device: 0
        )
    )
    spec = importlib.util.spec_from_file_location("triton_kernel", folder / "triton_kernel.py")
    assert spec is not None and spec.loader is not None
    solution = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(solution)
    if hasattr(solution, "multiprocessors"):
        solution.multiprocessors = lambda device: 132  # of an H100 or H200
    definition = problem.definition
    for workload in problem.workloads:
        asked[0] = workload.uuid
        shapes = definition.shapes(workload.axes)
        axes = definition.resolve(workload.axes)
        solution.run(*(made(each, shapes.get(name), axes) for name, each in definition.inputs.items()))
    for uuid, build in builds.values():
        counts = {name: build.asm["ptx"].count(word) for name, word in (("wgmma", "wgmma.mma"), ("tma", "bulk.tensor"))}
        shared = build.metadata.shared
        print(json.dumps({"kernel": build.name, "for": uuid, "shared": shared, **usage(build.asm["cubin"]), **counts}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
