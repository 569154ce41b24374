"""Techniques for kernels on a GPU, as far as a CPU can tell: patterns, and Triton's interpreter at small sizes."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from benchmarks.catalogue import Catalogue
from benchmarks.edits import DoesNotApply
from benchmarks.kernels.catalogue import general
from benchmarks.kernels.catalogue.gpu import by_pattern, for_data, own, patterns, settings
from benchmarks.kernels.catalogue.gpu.patterns import Gated, Product, RowNorm
from benchmarks.kernels.families import family_of
from benchmarks.kernels.formats.axes import Const
from benchmarks.kernels.formats.loader import OWN, load_problem, load_problems
from benchmarks.kernels.formats.workload import Problem
from tests.kernel_play import problem
from tests.kernel_samples import write_problem
from tests.kernel_technique_play import NAMES, faults, prepared, starts
from tests.kernel_technique_play import own as own_problem

pytestmark = pytest.mark.torch
ROOT = Path(__file__).resolve().parent.parent

NORM = "wide = x.float(); y = wide * torch.rsqrt(wide.pow(2).mean(-1, keepdim=True) + {eps}) * w; return {out}"
ROWS, WIDE = ("a,b,n", "bfloat16"), {"n": 40}


def made(folder: Path, inputs: Sequence[str], body: str, dtype: str = "bfloat16", outputs: int = 1) -> Problem:
    """Inputs named x, r are (a, b, n), w is (n), eps a scalar, others (a, b, 2 n)."""
    axes = {"x": "a,b,n", "r": "a,b,n", "w": "n", "eps": "scalar"}
    specs = {name: (axes.get(name, "a,b,2 * n"), "float32" if name == "eps" else dtype) for name in inputs}
    found = {name: ("a,b,n", dtype) for name in ("y", "s")[:outputs]}
    sizes = [{"a": 2, "b": 3, "n": 40}, {"a": 1, "b": 1, "n": 9}]
    return problem(folder, specs, found, body, sizes, sources={"eps": {"type": "scalar", "value": 1e-3}})


NORMS: dict[str, tuple[Sequence[str], str, int, RowNorm]] = {
    "plain": ("xw", NORM.format(eps="1e-5", out="y.bfloat16()"), 1, RowNorm("x", "w", "1e-05")),
    "given_eps": (("x", "w", "eps"), NORM.format(eps="eps", out="y.to(x.dtype)"), 1, RowNorm("x", "w", "eps")),
    "before": ("xrw", f"x = x + r; {NORM.format(eps='1e-6', out='y.bfloat16()')}", 1,
               RowNorm("x", "w", "1e-06", "r", rounded=True)),
    "before_widened": ("rxw", f"x = x.float() + r.float(); {NORM.format(eps='1e-6', out='y.bfloat16()')}", 1,
                       RowNorm("r", "w", "1e-06", "x")),
    "sum_given_out": ("xrw", f"x = x + r; {NORM.format(eps='1e-6', out='y.bfloat16(), x')}", 2,
                      RowNorm("x", "w", "1e-06", "r", rounded=True, gives_sum=True)),
    "after": ("xrw", NORM.format(eps="1e-6", out="r + y.bfloat16()"), 1, RowNorm("x", "w", "1e-06", "r", after=True)),
}  # fmt: skip
NO_NORMS = {
    "centred": ("xw", "x = x - x.mean(-1, keepdim=True); " + NORM.format(eps="1e-5", out="y.bfloat16()"), 1),
    "one_plus": ("xw", "w = 1 + w; " + NORM.format(eps="1e-5", out="y.bfloat16()"), 1),
    "bent": ("xw", NORM.format(eps="1e-5", out="F.silu(y).bfloat16()"), 1),
    "no_eps": ("xw", "return (x * torch.rsqrt(x.float().pow(2).mean(-1, keepdim=True)) * w).bfloat16()", 1),
}
GATED = {
    "gate_first": ("z", "a, b = z.chunk(2, dim=-1); return F.silu(a) * b", Gated("z", "", "silu")),
    "gate_second": ("z", "a, b = z.chunk(2, -1); return F.gelu(b) * a", Gated("z", "", "gelu", gate_second=True)),
    "two": ("xr", "return x * F.gelu(r, approximate='tanh')", Gated("r", "x", "gelu_tanh")),
}
NO_GATED = {
    "three": ("z", "a, b, c = z.chunk(3, dim=-1); return F.silu(a) * b"),
    "rows": ("z", "a, b = z.chunk(2, dim=0); return F.silu(a) * b"),
    "twice": ("xr", "return F.silu(x) * r * r"),
    "itself": ("x", "return F.silu(x) * x"),
}


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    return for_data(prepared(tmp_path_factory.mktemp("data")))


def interpreted(folder: Path, cases: Sequence[tuple[Path, str, str, Sequence[dict[str, int]]]]) -> list[str]:
    """What the interpreter says of solutions: (folder of a problem, file of workloads, solution, sizes), ..."""
    rows = [dict(zip(("folder", "workloads", "solution", "sizes"), (str(where), *rest), strict=True))
            for where, *rest in cases]  # fmt: skip
    (folder / "cases.json").write_text(json.dumps(rows))
    command = [sys.executable, str(ROOT / "tests/interpreted/kernel_solutions.py"), str(folder / "cases.json")]
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT)}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=280)
    assert done.returncode == 0, done.stderr[-3000:]
    return done.stdout.splitlines()


def passed(lines: Sequence[str]) -> bool:
    return bool(lines) and all(line.startswith("PASSED") and "changed" not in line for line in lines)


def on_disk(about: Problem, folder: Path) -> Path:
    """The folder of a problem that `kernel_play` made, with its files."""
    definition = {
        "name": about.name, "reference": about.definition.reference,
        "axes": {name: {"type": "var"} for name in about.definition.axes},
        "inputs": {name: {"shape": spec.shape and list(spec.shape), "dtype": spec.dtype}
                   for name, spec in about.definition.inputs.items()},
        "outputs": {name: {"shape": list(spec.shape or ()), "dtype": spec.dtype}
                    for name, spec in about.definition.outputs.items()},
    }  # fmt: skip
    rows: list[dict[str, Any]] = [
        {"uuid": each.uuid, "axes": dict(each.axes), "tolerance": {"max_atol": 0.02, "max_rtol": 0.02},
         "inputs": {name: {"type": "scalar", "value": 1e-3} if spec.shape is None else {"type": "random"}
                    for name, spec in about.definition.inputs.items()}}
        for each in about.workloads
    ]  # fmt: skip
    return write_problem(folder / "disk" / about.name, definition, *rows)


def test_every_problem_of_our_own_has_its_triton_kernel_and_another_technique(catalogue: Catalogue) -> None:
    for name in NAMES:
        assert f"triton__{name}" in catalogue
        assert len([each for each in catalogue if each.endswith(f"__{name}")]) >= 2, name
    files = starts([own_problem(name) for name in NAMES])
    for name, technique in catalogue.items():
        about = own_problem(name.partition("__")[2])
        after = technique.apply(dict(files), technique.defaults())
        assert {path for path in files if files[path] != after[path]} == {f"{about.name}/solution.py"}
        assert technique.family == family_of(about.definition)
        compile(after[f"{about.name}/solution.py"], name, "exec")


def test_whole_kernels_exclude_each_other(catalogue: Catalogue) -> None:
    assert catalogue["triton__rms_norm"].excludes == ("triton_row_norm__rms_norm",)
    assert catalogue.clash("triton_row_norm__rms_norm", ["triton__rms_norm"]) == "triton__rms_norm"
    assert catalogue.clash("triton__geglu_tanh", ["triton__rms_norm", "in_place__geglu_tanh"]) is None


def test_every_tunable_of_a_triton_kernel_is_a_constant_of_its_file() -> None:
    for template in own.TEMPLATES:
        about = next(own_problem(name) for name in NAMES if template.fits(own_problem(name)))
        text = (OWN / about.name / "triton_kernel.py").read_text()
        plain = {tunable.name: tunable.default for tunable in template.tunables}
        assert template.rewrite("", about, plain) == text, "the defaults are those of the file"
        for tunable in template.tunables:
            changed = template.rewrite("", about, plain | {tunable.name: tunable.choices[-1]})
            assert f"{tunable.name.upper()} = {tunable.choices[-1]}" in changed
        with pytest.raises(DoesNotApply):
            template.rewrite(text, about, plain)


def test_a_problem_of_the_same_name_but_another_meaning_gets_no_kernel_of_ours(tmp_path: Path) -> None:
    other = made(tmp_path / "rms_norm", "xw", "return x * w")
    assert not any(template.fits(other) for template in own.TEMPLATES)


@pytest.mark.parametrize("name", list(NORMS))
def test_a_norm_of_rows_is_recognised(name: str, tmp_path: Path) -> None:
    inputs, body, outputs, wanted = NORMS[name]
    assert patterns.row_norm(made(tmp_path / name, inputs, body, outputs=outputs).definition) == wanted


@pytest.mark.parametrize("name", list(NO_NORMS))
def test_what_does_more_than_a_norm_is_none(name: str, tmp_path: Path) -> None:
    inputs, body, outputs = NO_NORMS[name]
    assert patterns.row_norm(made(tmp_path / name, inputs, body, outputs=outputs).definition) is None


@pytest.mark.parametrize("name", list(GATED))
def test_a_gated_activation_is_recognised(name: str, tmp_path: Path) -> None:
    inputs, body, wanted = GATED[name]
    assert patterns.gated(made(tmp_path / name, inputs, body).definition) == wanted


@pytest.mark.parametrize("name", list(NO_GATED))
def test_what_does_more_than_gating_is_none(name: str, tmp_path: Path) -> None:
    inputs, body = NO_GATED[name]
    assert patterns.gated(made(tmp_path / name, inputs, body).definition) is None


@pytest.mark.parametrize(
    ("body", "dtype", "right", "wanted"),
    [
        ("return x @ w.T", "float16", "c,k", Product("x", "w")),
        ("return torch.matmul(x, w.t())", "bfloat16", "c,k", Product("x", "w")),
        ("return F.linear(x, w)", "bfloat16", "c,k", Product("x", "w")),
        ("return 2 * (x @ w.T)", "bfloat16", "c,k", None),
        ("return (x @ w.T).relu()", "bfloat16", "c,k", None),
        ("return x @ w.T", "float32", "c,k", None),
        ("return x @ w", "bfloat16", "k,c", None),
    ],
)
def test_a_plain_product_is_recognised(
    body: str, dtype: str, right: str, wanted: Product | None, tmp_path: Path
) -> None:
    inputs, outputs = {"x": ("m,k", dtype), "w": (right, dtype)}, {"y": ("m,c", dtype)}
    about = problem(tmp_path / "product", inputs, outputs, body, [{"m": 3, "k": 8, "c": 5}])
    assert patterns.product(about.definition) == wanted


def test_kernels_by_pattern_pass_in_the_interpreter(tmp_path: Path) -> None:
    norms = [made(tmp_path / name, inputs, body, outputs=outputs) for name, (inputs, body, outputs, _) in NORMS.items()]
    gates = [made(tmp_path / name, inputs, body, "float32") for name, (inputs, body, _) in GATED.items()]
    inputs, outputs = {"x": ("m,k", "bfloat16"), "w": ("c,k", "bfloat16")}, {"y": ("m,c", "bfloat16")}
    sizes = [{"m": 3, "k": 24, "c": 70}, {"m": 40, "k": 1100, "c": 33}]
    product = problem(tmp_path / "product", inputs, outputs, "return x @ w.T", sizes)
    cases = []
    for about in (*norms, *gates, product):
        (template,) = (each for each in by_pattern.TEMPLATES if each.fits(about))
        solution = template.rewrite(about.definition.reference, about, {})
        cases.append((on_disk(about, tmp_path), "workload.jsonl", solution, []))
    lines = interpreted(tmp_path, cases)
    assert len(lines) == 2 * len(cases)
    assert passed(lines), "\n".join(lines)


@pytest.mark.slow
def test_triton_kernels_pass_in_the_interpreter_whatever_their_tunables(tmp_path: Path) -> None:
    cases = []
    for template in own.TEMPLATES:
        about = next(own_problem(name) for name in NAMES if template.fits(own_problem(name)))
        for tunable in template.tunables:
            for value in (tunable.choices[1], tunable.choices[-1]):
                plain = {each.name: each.default for each in template.tunables} | {tunable.name: value}
                cases.append((OWN / about.name, "workload.cpu.jsonl", template.rewrite("", about, plain), []))
    lines = interpreted(tmp_path, cases)
    assert passed(lines), "\n".join(line for line in lines if not passed([line]))


@pytest.mark.slow
def test_kernels_by_pattern_pass_on_official_problems(tmp_path: Path) -> None:
    folder = os.environ.get("KERNEL_PROBLEMS")
    if not folder:
        pytest.skip("KERNEL_PROBLEMS names no folder of the official problems")
    cases = []
    for about in load_problems(Path(folder)):
        for template in by_pattern.TEMPLATES:
            if template.fits(about) and about.folder is not None:
                fixed = [axis.value for axis in about.definition.axes.values() if isinstance(axis, Const)]
                few = {name: 3 if max(fixed) < 9000 else 1 for name in about.workloads[0].axes}
                cases.append((about.folder, "workload.jsonl", template.rewrite("", about, {}), [few]))
    assert len(cases) >= 15
    lines = interpreted(tmp_path, cases)
    assert passed(lines), "\n".join(line for line in lines if not passed([line]))


def test_tf32_is_for_matmuls_that_see_float32(tmp_path: Path) -> None:
    wide, narrow = ({"x": ("m,k", dtype), "w": ("c,k", dtype)} for dtype in ("float32", "bfloat16"))
    outputs, sizes = {"y": ("m,c", "float32")}, [{"m": 3, "k": 8, "c": 5}]
    about = problem(tmp_path / "wide", wide, outputs, "return x @ w.T", sizes, rtol=1e-5, atol=1e-5)
    assert settings.multiplies_float32(about)
    assert not settings.multiplies_float32(problem(tmp_path / "narrow", narrow, outputs, "return x @ w.T", sizes))
    assert not settings.multiplies_float32(problem(tmp_path / "sum", wide, outputs, "return x + w", sizes))
    widened = {
        "return x.float() @ w.float().T": True,
        "a = x.float(); b = a * 2; return torch.matmul(b, w.to(torch.float32).T)": True,
        "a = x.float().softmax(-1).to(torch.bfloat16); return (a @ w.T).float()": False,
        "return (x @ w.T).float()": False,
    }
    for number, (body, wanted) in enumerate(widened.items()):
        of = problem(tmp_path / f"widened_{number}", narrow, outputs, body, sizes)
        assert settings.multiplies_float32(of) is wanted, body
    source = settings.with_tf32(about.definition.reference, about, {})
    before = (torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32)
    try:
        assert faults(source, about) == []
        assert torch.backends.cuda.matmul.allow_tf32 and torch.backends.cudnn.allow_tf32
    finally:
        torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32 = before
    with pytest.raises(DoesNotApply):
        settings.with_tf32(source, about, {})


def test_a_compiled_solution_names_its_options_and_no_graphs() -> None:
    about = own_problem("rms_norm")
    tuned = next(each for each in settings.TEMPLATES if each.name == "compile_tuned")
    plain = {each.name: each.default for each in tuned.tunables}
    source = tuned.rewrite(about.definition.reference, about, plain)
    assert "'triton.cudagraphs': False" in source and re.search(r"'max_autotune': False", source)
    with pytest.raises(DoesNotApply):
        general.compile_template(("default",), 0).rewrite(source, about, {"mode": "default", "kernels": "x"})


def test_short_loops_are_compiled_and_long_ones_are_not(tmp_path: Path) -> None:
    tensor = ("n", "float32")

    def of(loop: str) -> bool:
        body = f"for each in {loop}: x = x + 1\n    return x"
        axes = {"n": {"type": "var"}, "heads": {"type": "const", "value": 8}, "many": {"type": "const", "value": 99}}
        about = problem(tmp_path / "loop", {"x": tensor}, {"y": tensor}, body, axes=axes)
        return general.can_compile(about)

    assert [of(loop) for loop in ("range(4)", "(1, 2)", "range(heads)")] == [True] * 3
    assert [of(loop) for loop in ("range(400)", "range(many)", "range(len(x))", "x")] == [False] * 4


def test_the_catalogue_of_a_data_folder_is_made_once(tmp_path: Path) -> None:
    data = prepared(tmp_path / "data")
    assert for_data(data) is for_data(data)
    assert load_problem(data / "problems" / "rms_norm").definition == own_problem("rms_norm").definition
