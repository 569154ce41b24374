"""Bytes and operations of problems whose cost is known by hand."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.kernels.bounds import Precision, Work
from benchmarks.kernels.cost import Cost, CostError, cost
from tests.kernel_play import double, problem

pytestmark = pytest.mark.torch


def of(*args: object, **more: object) -> Cost:
    made = problem(*args, **more)  # type: ignore[arg-type]
    return cost(made.definition, made.workloads[0])


def test_an_elementwise_problem_reads_and_writes_once(tmp_path: Path) -> None:
    made = double(tmp_path / "p", 2)
    assert [cost(made.definition, each).work for each in made.workloads] == [Work(32, {}), Work(64, {})]


def test_a_matmul_counts_half_its_flops_at_the_declared_precision(tmp_path: Path) -> None:
    tensors = {"a": ("m,k", "bfloat16"), "b": ("k,n", "bfloat16")}
    found = of(tmp_path / "p", tensors, {"c": ("m,n", "bfloat16")}, "return (a.float() @ b.float()).to(a.dtype)",
               [{"m": 2, "k": 3, "n": 5}])  # fmt: skip
    assert found.work == Work(2 * (6 + 15 + 10), {Precision.BF16: 30})


@pytest.mark.parametrize(
    ("rtol", "atol", "expected"),
    [(1e-5, 1e-5, Precision.FP32), (1e-2, 1e-5, Precision.TF32), (1e-5, 1e-3, Precision.TF32)],
)
def test_float32_keeps_its_digits_where_the_tolerance_forbids_tf32(
    tmp_path: Path, rtol: float, atol: float, expected: Precision
) -> None:
    tensors = {"a": ("n,n", "float32"), "b": ("n,n", "float32")}
    found = of(tmp_path / "p", tensors, {"c": ("n,n", "float32")}, "return a @ b", rtol=rtol, atol=atol)
    assert found.work.macs == {expected: 64}


def test_fp8_that_is_dequantised_is_still_priced_as_fp8(tmp_path: Path) -> None:
    tensors = {"a": ("n,n", "float8_e4m3fn"), "s": ("n", "float32"), "b": ("n,n", "float8_e4m3fn")}
    body = "return ((a.float() * s) @ b.float()).bfloat16()"
    found = of(tmp_path / "p", tensors, {"c": ("n,n", "bfloat16")}, body)
    assert found.work == Work(16 + 16 + 16 + 32, {Precision.FP8: 64})


def test_a_reference_that_quantises_itself_is_priced_as_fp8(tmp_path: Path) -> None:
    tensors = {"a": ("n,n", "bfloat16"), "b": ("n,n", "bfloat16")}
    body = "return (a.to(torch.float8_e4m3fn).float() @ b.to(torch.float8_e4m3fn).float()).bfloat16()"
    assert of(tmp_path / "p", tensors, {"c": ("n,n", "bfloat16")}, body).work == Work(96, {Precision.FP8: 64})


def test_causal_attention_is_half_of_full_attention(tmp_path: Path) -> None:
    tensors = {name: ("b,h,s,d", "float32") for name in "qkv"}
    sizes = [{"b": 1, "h": 2, "s": 16, "d": 8}]
    for causal, macs in ((False, 2 * 2 * 16 * 16 * 8), (True, 2 * 16 * 16 * 8)):
        body = f"return F.scaled_dot_product_attention(q, k, v, is_causal={causal})"
        found = of(tmp_path / str(causal), tensors, {"o": ("b,h,s,d", "float32")}, body, sizes)
        assert found.work.macs == {Precision.TF32: macs}


def test_a_grouped_convolution_is_not_priced_dense(tmp_path: Path) -> None:
    tensors = {"x": ("b,c,n", "float32"), "w": ("c,one,k", "float32")}
    body = "return F.conv1d(x, w, groups=x.shape[1], padding='same')"
    found = of(tmp_path / "p", tensors, {"y": ("b,c,n", "float32")}, body, [{"b": 2, "c": 4, "n": 8, "one": 1, "k": 3}])
    assert sum(found.work.macs.values()) == 2 * 4 * 8 * 3


def test_an_input_that_is_never_read_costs_nothing(tmp_path: Path) -> None:
    tensors = {"x": ("n", "float32"), "unused": ("n", "float32"), "form": ("n", "float32")}
    found = of(tmp_path / "p", tensors, {"y": ("n", "float32")}, "return 2 * x + torch.zeros_like(form)")
    assert (found.work.bytes, found.declared_bytes, found.unread) == (32, 64, ("unused", "form"))


def test_a_gather_reads_the_rows_that_it_gives_out(tmp_path: Path) -> None:
    tensors = {"table": ("rows,h", "float32"), "ids": ("n", "int64")}
    sizes = [{"rows": 1000, "h": 4, "n": 3}]
    for number, body in enumerate(("F.embedding(ids, table)", "table[ids]", "table.float()[ids] * 2",
                                   "table.bfloat16().index_select(0, ids).float()")):  # fmt: skip
        found = of(tmp_path / str(number), tensors, {"y": ("n,h", "float32")}, f"return {body}", sizes)
        assert found.work.bytes == 3 * 4 * 4 + 3 * 8 + 3 * 4 * 4
    all_rows = of(
        tmp_path / "many", tensors, {"y": ("n,h", "float32")}, "return table[ids]", [{"rows": 2, "h": 4, "n": 9}]
    )
    assert all_rows.work.bytes == 2 * 4 * 4 + 9 * 8 + 9 * 4 * 4  # no more than the table


def test_a_slice_reads_its_part_and_parts_that_repeat_count_once(tmp_path: Path) -> None:
    tensors = {"x": ("n,n", "float32")}
    sizes = [{"n": 4}]
    part = of(tmp_path / "part", tensors, {"y": ("n", "float32")}, "return x[0] * 2 + x[0] + x[1]", sizes)
    assert part.work.bytes == 2 * 16 + 16
    whole = of(tmp_path / "whole", tensors, {"y": ("n,n", "float32")}, "return x + x.t() + x.exp()", sizes)
    assert whole.work.bytes == 64 + 64
    spread = of(tmp_path / "spread", tensors, {"y": ("n,n", "float32")}, "return x[:1].expand(4, 4) * 2", sizes)
    assert spread.work.bytes == 16 + 64


def test_a_cache_that_is_written_in_place_costs_the_slots_that_are_touched(tmp_path: Path) -> None:
    tensors = {"cache": ("rows,h", "float32"), "new": ("n,h", "float32"), "slots": ("n", "int64")}
    sizes = [{"rows": 100, "h": 4, "n": 2}]
    out = {"updated": ("rows,h", "float32")}
    placed = of(tmp_path / "placed", tensors, out, "cache[slots] = new\n    return cache", sizes)
    assert placed.work.bytes == 32 + 16 + 32  # new rows and their slots in, the rows out
    copied = of(tmp_path / "copied", tensors, out, "c = cache.clone()\n    c[slots] = new\n    return c", sizes)
    assert copied.work.bytes == 1600 + 32 + 16 + 1600


def test_scalars_come_from_the_workload_or_the_generator(tmp_path: Path) -> None:
    tensors = {"x": ("n", "float32"), "wide": ("scalar", "bool")}
    body = "return torch.mm(x[None], x[:, None])[0] if wide else x * 2"
    given = of(tmp_path / "given", tensors, {"y": ("n", "float32")}, body,
               sources={"wide": {"type": "scalar", "value": False}})  # fmt: skip
    assert given.work.macs == {}
    generator = "def get_inputs(axes, device):\n    return {'x': torch.randn(axes['n']), 'wide': True}\n"
    made = of(tmp_path / "made", tensors, {"y": ("n", "float32")}, body,
              sources={name: {"type": "custom"} for name in tensors}, custom_inputs_entrypoint="get_inputs",
              before=generator)  # fmt: skip
    assert sum(made.work.macs.values()) == 4


def test_a_long_loop_is_followed_only_so_far(tmp_path: Path) -> None:
    tensors = {"x": ("n,h", "float32"), "w": ("h,h", "float32"), "unused": ("n", "float32")}
    body = "y = x[:1]\n    for i in range(len(x)): y = (y + x[i:i+1]) @ w\n    return y"
    for steps, cut_off in ((100, False), (5000, True)):
        found = of(tmp_path / str(steps), tensors, {"y": ("one,h", "float32")}, body, [{"n": steps, "h": 2, "one": 1}])
        assert found.cut_off is cut_off
        assert found.work.bytes == steps * 2 * 4 + 16 + 8
        assert found.unread == ("unused",)
        assert (sum(found.work.macs.values()) == 4 * steps) is not cut_off


def test_outputs_may_be_given_by_name(tmp_path: Path) -> None:
    outputs = {"a": ("n", "float32"), "b": ("n", "float32")}
    found = of(tmp_path / "p", {"x": ("n", "float32")}, outputs, "return {'b': x, 'a': x.mul_(2)}")
    assert found.work.bytes == 16 + 16 + 16


@pytest.mark.parametrize("body", ["return x * x.sum().item()", "return x[x > 0]", "return missing"])
def test_a_reference_that_cannot_run_without_data_says_so(tmp_path: Path, body: str) -> None:
    with pytest.raises(CostError, match="cannot be found without data: p: run: ") as refused:
        of(tmp_path / "p", {"x": ("n", "float32")}, {"y": ("n", "float32")}, body)
    assert "\n" not in str(refused.value)
