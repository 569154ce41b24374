"""Techniques for kernels on a CPU: each applies to the reference, gives what it gives, and changes one file."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from benchmarks.catalogue import Catalogue
from benchmarks.edits import DoesNotApply
from benchmarks.kernels.catalogue import general, rewrites
from benchmarks.kernels.catalogue.cpu import TEMPLATES, cpp, for_data
from benchmarks.kernels.catalogue.template import technique_name
from benchmarks.kernels.families import Family, family_of
from tests.kernel_play import problem
from tests.kernel_technique_play import NAMES, faults, own, prepared, solution, starts

pytestmark = pytest.mark.torch

REWRITES = [(each, name) for each in (*rewrites.BOTH, *rewrites.CPU) for name in NAMES if each.fits(own(name))]
FURTHER = {  # sizes around the edges of vectors, tiles and blocks
    "add_rms_norm": [{"rows": 3, "width": width} for width in (1, 7, 17, 255)],
    "causal_conv1d": [{"batch": 2, "length": length, "channels": 9} for length in (1, 2, 3, 5)],
    "cross_entropy": [{"tokens": 3, "vocabulary": vocabulary} for vocabulary in (1, 7, 17)],
    "embedding_gradient": [{"tokens": 1, "vocabulary": 1, "width": 1}, {"tokens": 50, "vocabulary": 900, "width": 17}],
    "fp8_block_gemm": [{"rows": 5, "inner": 128, "columns": 384}],
    "geglu_tanh": [{"rows": 3, "width": width} for width in (1, 7, 17)],
    "gemm_bias_gelu": [{"rows": 2, "inner": 8, "columns": 16}, {"rows": 7, "inner": 24, "columns": 8}],
    "gqa_decode": [{"batch": 1, "length": length, "kv_heads": 1, "group": 3, "width": 24} for length in (2, 63, 65)],
    "gqa_prefill": [{"batch": 1, "length": length, "kv_heads": 2, "group": 1, "width": 24} for length in (3, 15, 17)],
    "moe_gating": [{"tokens": 3, "group_size": size} for size in (2, 3, 13)],
    "rms_norm": [{"rows": 3, "width": width} for width in (1, 7, 17, 255)],
    "rms_norm_backward": [{"rows": 3, "width": width} for width in (1, 7, 17, 255)],
    "rope": [{"batch": 2, "length": 3, "heads": 3, "kv_heads": 1, "half": half} for half in (1, 5, 17)],
    "silu_backward": [{"rows": 3, "columns": columns} for columns in (5, 17)],
    "skinny_gemm": [{"rows": 2, "inner": 7, "columns": 5}, {"rows": 1, "inner": 9, "columns": 1}],
    "softcapped_softmax": [{"rows": 3, "width": width} for width in (1, 7, 17)],
    "swiglu_gate_up": [{"rows": 2, "inner": 8, "columns": 16}, {"rows": 7, "inner": 24, "columns": 8}],
    "wkv_decay": [{"batch": 3, "length": 2, "channels": 5}, {"batch": 1, "length": 40, "channels": 1}],
}


@pytest.fixture(scope="module")
def catalogue(tmp_path_factory: pytest.TempPathFactory) -> Catalogue:
    return for_data(prepared(tmp_path_factory.mktemp("data")))


def test_every_problem_has_a_kernel_in_cpp_and_at_least_one_other_technique(catalogue: Catalogue) -> None:
    for name in NAMES:
        assert f"cpp__{name}" in catalogue
        assert len([each for each in catalogue if each.endswith(f"__{name}")]) >= 2, name
        assert (f"compile__{name}" in catalogue) == (name != "wkv_decay")
        assert FURTHER[name]


def test_a_technique_is_named_after_its_problem_and_changes_its_solution_alone(catalogue: Catalogue) -> None:
    files = starts([own(name) for name in NAMES])
    for name, technique in catalogue.items():
        assert re.fullmatch(r"[a-z0-9_]+__[a-z0-9_]+", name)
        about = own(name.partition("__")[2])
        assert technique.family == family_of(about.definition)
        assert technique.hypothesis.endswith(".") and technique.source
        after = technique.apply(dict(files), technique.defaults())
        assert {path for path in files if files[path] != after[path]} == {f"{about.name}/solution.py"}
        assert after.keys() == files.keys()
        with pytest.raises(DoesNotApply):
            technique.apply(dict(after), technique.defaults())
        with pytest.raises(DoesNotApply, match="there is no"):
            technique.apply({}, technique.defaults())


@pytest.mark.parametrize("name", NAMES)
def test_a_kernel_in_cpp_passes_at_every_size(name: str, catalogue: Catalogue) -> None:
    technique = catalogue[f"cpp__{name}"]
    after = technique.apply(starts([own(name)]), technique.defaults())
    assert '#include "' not in after[f"{name}/solution.py"], "it is one file"
    assert faults(after[f"{name}/solution.py"], own(name), *FURTHER[name]) == []


@pytest.mark.slow
@pytest.mark.parametrize("template", [each for each in cpp.TEMPLATES if each.tunables], ids=lambda each: each.title)
def test_a_kernel_in_cpp_passes_whatever_its_tunables(template: cpp.Template) -> None:
    name = next(each for each in NAMES if template.fits(own(each)))
    plain = {tunable.name: tunable.default for tunable in template.tunables}
    for tunable in template.tunables:
        for choice in tunable.choices:
            source = template.rewrite("", own(name), plain | {tunable.name: choice})
            assert faults(source, own(name), *FURTHER[name]) == [], (tunable.name, choice)


@pytest.mark.parametrize(("template", "name"), REWRITES, ids=lambda each: getattr(each, "name", each))
def test_a_rewrite_gives_what_the_reference_gives(template: rewrites.Template, name: str) -> None:
    about = own(name)
    assert faults(template.rewrite(about.definition.reference, about, {}), about, *FURTHER[name]) == []


def test_the_sizes_that_are_timed_pass_too() -> None:
    for name in ("embedding_gradient", "gqa_decode", "moe_gating", "softcapped_softmax", "wkv_decay"):
        assert faults(cpp.solution(name), own(name, "workload.cpu_timed.jsonl")) == []


def test_exponentials_are_right_where_they_can_be() -> None:
    """By the gradient of SiLU, which is 1/2 at 0, goes to 1, and to 0."""
    run = solution(cpp.solution("silu_backward")).run
    x = torch.linspace(-200, 200, 4001)[None]
    wanted = torch.ops.aten.silu_backward(torch.ones_like(x, dtype=torch.float64), x.double())
    assert (run(torch.ones_like(x), x) - wanted).abs().max() < 1e-6


def test_bfloat16_is_rounded_to_the_nearest_even() -> None:
    run = solution(cpp.solution("add_rms_norm")).run
    x = torch.randn(64, 999).bfloat16()
    residual = (torch.randn(64, 999) * 2.0 ** torch.arange(-32, 32)[:, None]).bfloat16()
    assert torch.equal(run(x, residual, x[0])[1], x + residual)


def test_an_id_beyond_the_table_is_an_error_and_no_write_outside_of_it() -> None:
    run = solution(cpp.solution("embedding_gradient")).run
    for ids in ([5], [-1]):
        with pytest.raises(IndexError):
            run(torch.ones(1, 8).bfloat16(), torch.tensor(ids), 5)
        with pytest.raises(IndexError):
            solution(cpp.solution("cross_entropy")).run(torch.ones(1, 5).bfloat16(), torch.tensor(ids))


def test_strided_inputs_are_read_as_what_they_are() -> None:
    run = solution(cpp.solution("geglu_tanh")).run
    x = torch.randn(12, 6).T
    torch.testing.assert_close(run(x), run(x.contiguous()))


def test_a_whole_kernel_goes_over_a_rewrite_but_nothing_over_a_kernel(catalogue: Catalogue) -> None:
    files = starts([own("rms_norm")])
    steps = [catalogue[name] for name in ("in_place__rms_norm", "compile__rms_norm", "cpp__rms_norm")]
    after = files
    for step in steps:
        after = step.apply(dict(after), step.defaults())
        if step.name != "cpp__rms_norm":
            assert catalogue.clash("cpp__rms_norm", [step.name]) is None
    assert after == steps[2].apply(dict(files), steps[2].defaults())
    for step in steps:
        with pytest.raises(DoesNotApply):
            step.apply(dict(after), step.defaults())


def test_only_what_python_does_not_steer_is_compiled(tmp_path: Path) -> None:
    assert not general.can_compile(own("wkv_decay")), "a loop over time"
    assert general.can_compile(own("rms_norm"))
    tensor = ("n", "float32")
    counting = problem(tmp_path / "counting", {"x": tensor}, {"y": tensor}, "return x * x.sum().item()")
    assert not general.can_compile(counting)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
@pytest.mark.parametrize("kernels", list(general.DYNAMIC))
def test_a_compiled_reference_passes(kernels: str) -> None:
    template = general.compile_template(("default",), 0.1)
    about = own("softcapped_softmax")
    source = template.rewrite(about.definition.reference, about, {"mode": "default", "kernels": kernels})
    assert faults(source, about) == []


def test_float64_in_between_becomes_float32(tmp_path: Path) -> None:
    inputs, outputs = {"x": ("n", "float32")}, {"y": ("n", "float32")}
    wide = problem(tmp_path / "wide", inputs, outputs, "return (x.double() * x.to(torch.float64)).float()")
    wanted = problem(tmp_path / "wanted", {"x": ("n", "float64")}, outputs, "return x.double().float()")
    assert general.wants_no_float64(wide) and not general.wants_no_float64(wanted)
    source = general.without_float64(wide.definition.reference, wide, {})
    assert "return (x.float() * x.to(torch.float32)).float()" in source
    assert faults(source, wide) == []
    with pytest.raises(DoesNotApply):
        general.without_float64(source, wide, {})


def test_templates_that_bring_a_whole_file_exclude_each_other_on_a_problem() -> None:
    one, *_ = cpp.TEMPLATES
    other = cpp.Template("other", "Other", "Other.", "own", one.fits, one.rewrite, whole=True)
    about = next(own(name) for name in NAMES if one.fits(own(name)))
    assert one.of(about, Family.OTHER, [one, other, *TEMPLATES[-1:]]).excludes == (technique_name(other, about),)
    assert TEMPLATES[-1].of(about, Family.OTHER, [one, other]).excludes == ()
