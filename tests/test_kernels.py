"""The GPU lane's kernels agree with their naive ways, stand alone and compile for Hopper without a GPU."""

from __future__ import annotations

import ast
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
KERNELS = sorted(path for path in (ROOT / "benchmarks/nanochat/kernels").glob("*.py") if path.stem != "__init__")


@pytest.fixture
def alone(tmp_path: Path) -> dict[str, str]:
    """The environment of a process that finds copies of the kernels and nothing of the lab."""
    for path in KERNELS:
        shutil.copy(path, tmp_path)
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    return os.environ | {
        "PYTHONPATH": str(tmp_path),
        "OMP_NUM_THREADS": "1",
        "TRITON_CACHE_DIR": str(tmp_path / "cache"),
    }


@pytest.mark.parametrize("path", KERNELS, ids=lambda path: path.stem)
def test_a_kernel_file_imports_torch_and_triton_only(path: Path) -> None:
    roots = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            roots |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            roots.add((node.module or "").split(".")[0])
    assert roots - sys.stdlib_module_names == {"torch", "triton"}


@pytest.mark.torch
def test_kernels_do_in_the_interpreter_what_the_naive_ways_do(alone: dict[str, str]) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "--noconftest", "-p", "no:django", "-p", "no:cacheprovider"]
    command += ["-c", f"{alone['PYTHONPATH']}/pytest.ini", str(ROOT / "tests/interpreted/kernels.py")]
    environment = alone | {"TRITON_INTERPRET": "1"}
    done = subprocess.run(command, env=environment, cwd=alone["PYTHONPATH"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]
