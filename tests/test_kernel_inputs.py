"""Inputs by name, outputs compared with the official quirks, and the list of problems."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")
pytestmark = pytest.mark.torch

from benchmarks.kernels import listing  # noqa: E402
from benchmarks.kernels.compare import compare  # noqa: E402
from benchmarks.kernels.formats.definition import parse_definition  # noqa: E402
from benchmarks.kernels.formats.fields import FormatError  # noqa: E402
from benchmarks.kernels.formats.loader import load_problem  # noqa: E402
from benchmarks.kernels.formats.trace import Status  # noqa: E402
from benchmarks.kernels.formats.workload import Tolerance, parse_workload  # noqa: E402
from benchmarks.kernels.inputs import RULES, Drawn, draw, make_inputs, packed_fp4  # noqa: E402
from benchmarks.kernels.reference import Reference, ReferenceFailed  # noqa: E402
from tests.kernel_samples import DEFINITION, WORKLOAD, changed, write_problem  # noqa: E402

CPU = torch.device("cpu")
DEFINED = parse_definition(DEFINITION, "d")
PLAIN = parse_workload(WORKLOAD, DEFINED, "w")


def drawn(name: str, shape: tuple[int, ...] = (64, 64), description: str = "", dtype: Any = None) -> Any:
    torch.manual_seed(0)
    return draw(Drawn(name, shape, dtype or torch.float32, CPU, description))


def rule(name: str, shape: tuple[int, ...] = (4, 8), description: str = "") -> int:
    """Which rule draws the tensor; the number of rules where none does."""
    of = Drawn(name, shape, torch.float32, CPU, description)
    return next((number for number, (matches, _) in enumerate(RULES) if matches(of)), len(RULES))


@pytest.mark.parametrize(
    ("name", "shape", "description", "number"),
    [
        ("norm_weight", (8,), "", 0), ("q_norm_weight", (8,), "", 0), ("input_layernorm_weight", (8,), "", 0),
        ("norm2_weight", (8,), "", 0), ("rmsnorm1_weight", (8,), "", 0), ("norm_weights", (8,), "", 9),
        ("norm_bias", (8,), "", 1), ("layernorm_bias", (8,), "", 1), ("bias", (8,), "", 9),
        ("attention_mask", (2, 8, 8), "", 2), ("mask", (8, 8), "Causal attention mask", 2),
        ("attention_mask", (4, 8), "", 3), ("x_mask", (8,), "", 3), ("pad_mask", (8,), "Binary", 3),
        ("pad_mask", (8,), "", 9),
        ("cos", (8,), "", 4), ("sin_cached", (8,), "", 4), ("cosine", (8,), "", 9),
        ("rstd", (8,), "", 5), ("running_var", (8,), "", 5), ("std1", (8,), "", 5), ("x_variance", (8,), "", 5),
        ("A_log", (8,), "", 6), ("g", (8,), "", 6), ("a", (8,), "", 9),
        ("routing_weights", (4, 8), "", 7), ("p", (8,), "Output of the softmax", 7),
        ("weight", (4, 8), "", 8), ("q_proj", (4, 8), "", 8), ("w_weight2", (4, 8), "", 8), ("weight", (8,), "", 9),
        ("hidden", (4, 8), "", 9),
    ],
)  # fmt: skip
def test_the_first_official_rule_that_matches_draws(
    name: str, shape: tuple[int, ...], description: str, number: int
) -> None:
    assert len(RULES) == 9 and rule(name, shape, description) == number


def test_the_rules_draw_what_a_reference_can_work_with() -> None:
    assert bool((drawn("norm_weight") == 1).all()) and not bool(drawn("norm_bias").any())
    mask = drawn("causal_mask", (2, 5, 5))
    assert mask[1, 0, 1] == torch.finfo(torch.float32).min and mask[1, 4, 0] == 0 and mask[0, 2, 2] == 0
    assert set(drawn("x_mask").unique().tolist()) == {0.0, 1.0}
    assert drawn("rstd").min() >= 0.1 and drawn("sin").abs().max() <= 1 and drawn("cos").min() >= -1
    assert drawn("A_log").min() >= -5 and drawn("A_log").max() <= -1 and drawn("g").max() <= 0
    assert bool((drawn("A_cumsum").diff() <= 0).all()) and drawn("A").max() < 0
    assert torch.allclose(drawn("attn_weights").sum(-1), torch.ones(64))
    assert float(drawn("q_proj").std()) == pytest.approx(1 / 8, rel=0.05)
    assert float(drawn("hidden").std()) == pytest.approx(1, rel=0.05)


def test_dtypes_without_rules_draw_by_dtype() -> None:
    eight = drawn("norm_weight", dtype=torch.float8_e4m3fn)
    assert eight.dtype is torch.float8_e4m3fn and 1 < eight.float().abs().max() <= 2
    whole = drawn("weight", (100, 100), dtype=torch.int64)
    assert whole.dtype is torch.int64 and whole.min() == -1024 and whole.max() == 1023
    assert drawn("x", dtype=torch.int8).min() < -100 and drawn("x", dtype=torch.bool).float().mean() > 0.4


def test_fp4_packs_the_nearest_magnitudes_ties_to_even_codes() -> None:
    values = torch.tensor([0.0, 0.25, 0.26, 0.75, 1.0, 1.25, 1.75, 2.5, 2.6, 3.5, 5.0, 5.1, -0.3, -0.75, -5.0, -9.0])
    packed = packed_fp4(values)
    codes = [code for byte in packed.tolist() for code in (byte & 15, byte >> 4)]
    assert codes == [0, 0, 1, 2, 2, 2, 4, 4, 5, 6, 6, 7, 9, 10, 14, 15]


def test_inputs_come_in_order_and_repeat_with_their_seed_alone() -> None:
    state = torch.get_rng_state()
    one, same, other = (make_inputs(DEFINED, PLAIN, seed) for seed in (1, 1, 2))
    assert torch.equal(torch.get_rng_state(), state)
    assert list(one) == ["x", "weight", "eps"] and one["eps"] == 1e-5
    assert torch.equal(one["x"], same["x"]) and not torch.equal(one["x"], other["x"])
    outputs = Reference(DEFINED, "cpu").run(one)
    assert [tuple(value.shape) for value in outputs.values()] == [(5, 6), (5,)] and list(outputs) == ["y", "scale"]


CUSTOM = changed(WORKLOAD, "inputs", {name: {"type": "custom"} for name in ("x", "weight", "eps")})


def test_a_custom_generator_gets_axes_and_its_inputs_are_checked() -> None:
    workload = parse_workload(CUSTOM, DEFINED, "w")
    made = make_inputs(DEFINED, workload, 3)
    assert list(made) == ["x", "weight", "eps"] and made["eps"] == 0.5 and made["x"].shape == (5, 6)
    assert torch.equal(made["x"], make_inputs(DEFINED, workload, 3)["x"])
    for old, new, message in (
        ('"eps": 0.5', '"eps": "no"', "eps is a str; make it a Python scalar"),
        (', "eps": 0.5', "", "makes no eps"),
        ("torch.randn(rows, 6", "torch.randn(rows, 7", r"x is \(5, 7\); the definition says \(5, 6\)"),
        ('return {"x"', 'return 1 / 0, {"x"', "make: ZeroDivisionError: division by zero"),
    ):
        source = DEFINITION["reference"].replace(old, new)
        assert source != DEFINITION["reference"]
        with pytest.raises(ReferenceFailed, match=message):
            make_inputs(parse_definition(changed(DEFINITION, "reference", source), "d"), workload, 3)


def test_a_reference_that_fails_says_so_in_one_line() -> None:
    for old, new, message in (
        ("import torch", "import torch, nothing", "reference: ModuleNotFoundError: No module named 'nothing'"),
        ("import torch", "import torch\nreturn 1", "reference: SyntaxError: 'return' outside function"),
        ("return x * scale * weight,", "return", "returned 1 outputs; return"),
        ("return x * scale", "return x @ scale", "run: RuntimeError"),
    ):
        source = DEFINITION["reference"].replace(old, new)
        definition = parse_definition(changed(DEFINITION, "reference", source), "d")
        with pytest.raises(ReferenceFailed, match=message) as error:
            Reference(definition, "cpu").run(make_inputs(DEFINED, PLAIN, 1))
        assert "\n" not in str(error.value)


def test_a_reference_that_names_cuda_runs_on_the_cpu() -> None:
    source = DEFINITION["reference"].replace("device=device", "device='cuda:0'")
    definition = parse_definition(changed(DEFINITION, "reference", source), "d")
    assert make_inputs(definition, parse_workload(CUSTOM, definition, "w"), 3)["x"].device == CPU


def test_blobs_are_found_below_their_folder_alone_and_must_fit(tmp_path: Path) -> None:
    from safetensors.torch import save_file

    raw = changed(WORKLOAD, "inputs.x", {"type": "safetensors", "path": "far/blobs/a.safetensors", "tensor_key": "x"})
    workload = parse_workload(raw, DEFINED, "w")
    with pytest.raises(FormatError, match=r"x: the file far/blobs/a.safetensors is not below .*; fetch"):
        make_inputs(DEFINED, workload, 1, blobs=tmp_path)
    (tmp_path / "blobs").mkdir()
    file = tmp_path / "blobs" / "a.safetensors"
    save_file({"x": torch.full((5, 6), 7.0)}, file)
    assert make_inputs(DEFINED, workload, 1, blobs=tmp_path)["x"].unique().tolist() == [7.0]
    save_file({"x": torch.ones(5, 7)}, file)
    with pytest.raises(FormatError, match=r"not torch.float32 \(5, 6\)"):
        make_inputs(DEFINED, workload, 1, blobs=tmp_path)
    save_file({"z": torch.ones(5, 6)}, file)
    with pytest.raises(FormatError, match="holds no 'x'"):
        make_inputs(DEFINED, workload, 1, blobs=tmp_path)
    file.write_bytes(b"\xff" * 100)
    with pytest.raises(FormatError, match="no safetensors file"):
        make_inputs(DEFINED, workload, 1, blobs=tmp_path)
    file.rename(tmp_path.parent / "outside.safetensors")
    file.symlink_to(tmp_path.parent / "outside.safetensors")
    with pytest.raises(FormatError, match="is not below"):
        make_inputs(DEFINED, workload, 1, blobs=tmp_path)


def verdict(got: Any, want: Any, **tolerance: Any) -> Any:
    as_tensor = [value if isinstance(value, torch.Tensor) else torch.tensor(value) for value in (got, want)]
    return compare({"y": as_tensor[0]}, {"y": as_tensor[1]}, Tolerance(**tolerance))


def test_shape_and_dtype_are_exact() -> None:
    assert verdict(torch.ones(2, 1), torch.ones(2)).status is Status.INCORRECT_SHAPE
    assert verdict(torch.ones(2).half(), torch.ones(2)).status is Status.INCORRECT_DTYPE
    assert compare({}, {"y": torch.ones(2)}, Tolerance()).status is Status.INCORRECT_SHAPE


def test_an_element_passes_within_atol_plus_rtol_of_the_reference() -> None:
    assert verdict([1.0, 100.0], [1.0, 101.0]).status is Status.PASSED
    failed = verdict([1.0, 100.0], [1.0, 101.1])
    assert failed.status is Status.INCORRECT_NUMERICAL and failed.reason.startswith("y: 50.0000% of the elements match")
    assert failed.correctness.max_absolute_error == pytest.approx(1.1, rel=1e-4)
    assert failed.correctness.max_relative_error == pytest.approx(1.1 / 101.1, rel=1e-4)


def test_one_percent_may_be_wrong_by_any_amount_without_a_cap() -> None:
    want = torch.ones(100)
    got = want.clone()
    got[7] = 1e6
    assert verdict(got, want).status is Status.PASSED
    assert "the cap is 10" in verdict(got, want, max_error_cap=10.0).reason
    got[8] = 1e6
    assert verdict(got, want).status is Status.INCORRECT_NUMERICAL


def test_what_is_not_finite_fails_even_where_both_sides_have_it() -> None:
    nan, inf = math.nan, math.inf
    for value in (nan, inf, -inf):
        assert verdict([1.0, value], [1.0, value]).status is Status.INCORRECT_NUMERICAL
    assert (
        verdict([nan, inf], [1.0, 1.0]).correctness.has_nan and not verdict([nan, inf], [1.0, 1.0]).correctness.has_inf
    )
    assert verdict([1.0], [inf]).correctness.has_inf
    allowed = {"allow_negative_inf": True}
    assert verdict([1.0, -inf], [1.0, -inf], **allowed).status is Status.PASSED
    assert verdict([-inf, -inf], [1.0, -inf], **allowed).status is Status.INCORRECT_NUMERICAL
    assert verdict([1.0, inf], [1.0, inf], **allowed).status is Status.INCORRECT_NUMERICAL
    assert verdict([-inf, 0.0], [-inf, 1e-3], **allowed).status is Status.PASSED


def test_zeros_fail_however_wide_the_tolerance() -> None:
    failed = verdict([0.0, 0.0], [3.0, 4.0], max_atol=100.0)
    assert failed.status is Status.INCORRECT_NUMERICAL and failed.correctness.max_absolute_error == 5.0
    assert verdict([0.0, 0.0], [0.0, 0.0]).status is Status.PASSED


def test_integers_beyond_24_bits_collide_and_nothing_passes() -> None:
    assert verdict([2**24 + 1], [2**24], max_rtol=0.0).status is Status.PASSED
    assert verdict([5], [6]).status is Status.INCORRECT_NUMERICAL
    assert verdict(torch.zeros(0), torch.zeros(0)).status is Status.PASSED


def test_errors_that_overflow_fail_and_still_fit_a_trace() -> None:
    big = torch.finfo(torch.float32).max
    failed = verdict([big], [-big], max_rtol=10.0)
    assert failed.status is Status.INCORRECT_NUMERICAL and math.isfinite(failed.correctness.max_absolute_error)


def test_the_list_says_what_can_run_where_and_why_not(tmp_path: Path) -> None:
    large = changed(WORKLOAD, "axes.rows", 1 << 32)
    large["uuid"] = "large"
    blob = changed(WORKLOAD, "inputs.x", {"type": "safetensors", "path": "a.safetensors", "tensor_key": "x"})
    fp4 = changed(DEFINITION, "inputs.x.dtype", "float4_e2m1fn_x2")
    write_problem(tmp_path / "1", DEFINITION, WORKLOAD, large)
    write_problem(tmp_path / "221", changed(DEFINITION, "name", "blobs"), blob)
    write_problem(tmp_path / "180", changed(fp4, "name", "small"), WORKLOAD)
    found = [load_problem(tmp_path / name) for name in ("1", "180", "221")]
    first, second, third = listing.rows(found, cpu_bytes=1 << 30)
    assert first.cpu.workloads == 1 and "1 need up to" in first.cpu.reason and first.h200.workloads == 1
    assert "needs NVFP4" in second.h200.reason and second.cpu.workloads == 0
    assert third.h200 == listing.Fit(0, "1 lack their safetensors files")
    command = [sys.executable, "-m", "benchmarks.kernels", "--list", "--problems", str(tmp_path)]
    told = subprocess.run([*command, "--json"], capture_output=True, text=True, check=True).stdout.splitlines()
    assert json.loads(told[-1]) == {"problems": ["scaled_rows", "small", "blobs"]} and len(told) == 4
    assert json.loads(told[0])["h200"]["workloads"] == 1
    table = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    assert "3 problems, 4 workloads" in table.splitlines()[-1] and "needs NVFP4, which no H200 has" in table
    (tmp_path / "1" / "definition.json").write_text("{")
    broken = subprocess.run(command, capture_output=True, text=True, check=False)
    assert broken.returncode == 2 and broken.stderr.startswith("error: ") and broken.stderr.count("\n") == 1
