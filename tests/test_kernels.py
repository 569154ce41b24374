"""The GPU lane's kernels agree with their naive ways, stand alone and compile for Hopper without a GPU."""

from __future__ import annotations

import ast
import importlib.util
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from runners import cuda

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
@pytest.mark.parametrize(
    "chosen",
    ["not compile or values", pytest.param("compile and not values", marks=pytest.mark.slow)],
    ids=["plain", "compiled"],
)
def test_kernels_do_in_the_interpreter_what_the_naive_ways_do(alone: dict[str, str], chosen: str) -> None:
    command = [sys.executable, "-m", "pytest", "-q", "--noconftest", "-p", "no:django", "-p", "no:cacheprovider"]
    command += ["-c", f"{alone['PYTHONPATH']}/pytest.ini", str(ROOT / "tests/interpreted/kernels.py"), "-k", chosen]
    environment = alone | {"TRITON_INTERPRET": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, env=environment, cwd=alone["PYTHONPATH"], capture_output=True, text=True)
    assert done.returncode == 0, done.stdout[-8000:] + done.stderr[-2000:]


@pytest.mark.torch
def test_without_triton_the_naive_ways_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    import torch

    for name in ("triton", "triton.language"):
        monkeypatch.setitem(sys.modules, name, None)
    found = {}
    for path in KERNELS:
        spec = importlib.util.spec_from_file_location(f"without_triton_{path.stem}", path)
        assert spec and spec.loader
        found[path.stem] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(found[path.stem])
    loss, mlp, ngrams, updates = (
        found[name] for name in ("softcap_cross_entropy", "relu_squared", "ngram_values", "row_update")
    )

    x, into, out = torch.randn(2, 3, 8), torch.randn(16, 8), torch.randn(8, 16)
    assert torch.equal(mlp.relu_squared_mlp(x, into, out), mlp.naive_relu_squared_mlp(x, into, out))
    assert loss.linear_softcap_cross_entropy(x[0], into, torch.tensor([1, 2, -1])).isfinite()
    table = ngrams.NgramTable(0, 2, 8, heads=2, rows=7, dtype=torch.float32)
    before, tokens = table.table.clone(), torch.arange(6).view(2, 3)
    table.open(6)
    table(tokens, x, torch.zeros(2, 3, 2)).sum().backward()
    optimizer = updates.RowRMSProp([table], 0.1)
    optimizer.collect(tokens)
    optimizer.step()
    assert not torch.equal(table.table, before)


@pytest.mark.torch
@pytest.mark.slow
def test_kernels_compile_for_hopper_without_spilling(alone: dict[str, str]) -> None:
    command = [sys.executable, str(ROOT / "tests/interpreted/hopper.py")]
    done = subprocess.run(command, env=alone, cwd=alone["PYTHONPATH"], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    for name, built in json.loads(done.stdout).items():
        assert built["shared"] <= 232_448, name  # bytes that a program may take on a multiprocessor
        assert built["local"] == 0 and built["stack"] <= 16, name
        if name.startswith(("forward", "backward")):
            assert built["wgmma"] and built["tma"], name


@pytest.mark.torch
@pytest.mark.slow
def test_the_program_that_measures_them_plays_without_a_gpu() -> None:
    command = [sys.executable, "-m", "tests.gpu.kernels", "--only", "mlp", "ngram_step", "--tune"]
    done = subprocess.run(command, env=os.environ | {"TRITON_INTERPRET": "1"}, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-4000:]
    found = json.loads(done.stdout.splitlines()[-1])
    assert found["sound"] and "ms" not in str(found["mlp"])
    if not cuda.nodes():
        done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
        assert done.returncode == 2 and done.stderr.startswith("no CUDA device")
