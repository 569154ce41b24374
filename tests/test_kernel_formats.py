"""Files of kernel problems: the official layout is read, everything else is refused with one line."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from benchmarks.kernels.formats.axes import evaluate
from benchmarks.kernels.formats.definition import parse_definition
from benchmarks.kernels.formats.fields import FormatError, inner_path, parse_json
from benchmarks.kernels.formats.loader import COLLECTIONS, load_parquet, load_problem, load_problems
from benchmarks.kernels.formats.solution import load_solution, parse_solution
from benchmarks.kernels.formats.trace import (
    Correctness,
    Environment,
    Evaluation,
    Performance,
    Status,
    Trace,
    parse_trace,
)  # fmt: skip
from benchmarks.kernels.formats.workload import Tolerance, parse_workload
from tests.kernel_samples import DEFINITION, SOLUTION, WORKLOAD, changed, write_problem

HOSTILE = st.sampled_from(
    [None, True, -1, 0, 1.5, 10**400, 1e308, "", "a", "../x", "9**9**9", "__import__('os')", "\ud800", [], {}, [[]],
     {"a": {}}]
)  # fmt: skip
JSON = st.recursive(
    HOSTILE, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3)
)


def places(value: Any, at: str = "") -> list[str]:
    """Every dotted path into a JSON value."""
    items = value.items() if isinstance(value, dict) else []
    found = []
    for key, inner in items:
        path = f"{at}.{key}" if at else key
        found += [path, *places(inner, path)]
    return found


def one_line(error: pytest.ExceptionInfo[FormatError] | FormatError) -> bool:
    text = str(getattr(error, "value", error))
    return "\n" not in text and len(text) < 1000 and ": " in text and "; " in text


def test_a_problem_is_read_with_its_axes_and_shapes(tmp_path: Path) -> None:
    problem = load_problem(write_problem(tmp_path / "13"))
    definition, (workload,) = problem.definition, problem.workloads
    assert (problem.id, problem.collection, problem.name) == (13, "L1", "scaled_rows")
    assert definition.resolve(workload.axes) == {"rows": 5, "half": 3, "width": 6}
    assert definition.shapes(workload.axes) == {"x": (5, 6), "weight": (6,), "y": (5, 6), "scale": (5,)}
    assert definition.declared_bytes(workload.axes) == 4 * (30 + 6 + 30 + 5)
    assert list(definition.inputs) == ["x", "weight", "eps"] and definition.inputs["eps"].shape is None
    assert workload.tolerance == Tolerance(1e-3, 0.02, 0.99, None, False)


def test_axes_that_only_a_generator_reads_are_kept() -> None:
    definition = parse_definition(DEFINITION, "d")
    assert parse_workload(changed(WORKLOAD, "axes.kind", 0) | {}, definition, "w").axes == {"rows": 5, "kind": 0}
    assert definition.resolve({"rows": 2, "kind": 1}) == {"rows": 2, "half": 3, "width": 6, "kind": 1}


def test_the_misspelled_ratio_is_ignored_as_officially_unless_asked_for() -> None:
    definition = parse_definition(DEFINITION, "d")
    raw = changed(WORKLOAD, "tolerance.required_match_ratio", 0.98)
    assert parse_workload(raw, definition, "w").tolerance.required_matched_ratio == 0.99
    assert parse_workload(raw, definition, "w", True).tolerance.required_matched_ratio == 0.98


def test_a_workload_without_tolerance_has_the_defaults() -> None:
    definition = parse_definition(DEFINITION, "d")
    assert parse_workload(changed(WORKLOAD, "tolerance"), definition, "w").tolerance == Tolerance()


@pytest.mark.parametrize(
    ("expression", "value"),
    [("a * 2 - 1", 13), ("(a + 1) // 3 ** 2", 0), ("a / 7", 1), ("2 ** a % 100", 28), ("-a + +9", 2), ("1", 1),
     ("(a + 2 * 1 - 3) // 2 + 1", 4)],
)  # fmt: skip
def test_expressions_are_whole_numbers_over_axes(expression: str, value: int) -> None:
    assert evaluate(expression, {"a": 7}, "here") == value


@pytest.mark.parametrize(
    ("expression", "message"),
    [("9**9**9", "cannot be used"), ("a / 2", "gives '7/2'; it must give a whole"), ("a - 8", "gives '-1'"),
     ("b", "no axis 'b'"), ("a // 0", "division by zero"), ("f(a)", "Call is not allowed"), ("a.real", "Attribute"),
     ("'x' * 9", "Constant"), ("1e3", "Constant"), ("a << 60", "LShift is not allowed"), ("a if a else 1", "IfExp"),
     ("2 ** 60", "beyond"), ("0 ** -1", "cannot be used"), ("a +", "no expression"), ("(" * 150 + "a" + ")" * 150, "."),
     ("1" + "+1" * 150, "nested too deep"), ("9" * 300, "beyond"), ("a" * 500, "longer than")],
)  # fmt: skip
def test_hostile_expressions_are_refused(expression: str, message: str) -> None:
    if message == ".":  # Python's own parser decides how deep parentheses go; the value is right or refused
        try:
            assert evaluate(expression, {"a": 7}, "here") == 7
        except FormatError as error:
            assert one_line(error)
        return
    with pytest.raises(FormatError, match=message.replace("'7/2'", "'7/2'")) as error:
        evaluate(expression, {"a": 7}, "here")
    assert one_line(error)


@pytest.mark.parametrize(
    ("path", "new", "message"),
    [
        ("name", None, "name: is None"),
        ("name", "../x", "name: is '../x'"),
        ("axes.rows.type", "fixed", "axes.rows.type: is 'fixed'; it must be const, var or expr"),
        ("axes.half.value", 3.0, "whole number"),
        ("axes.half.value", 1 << 60, "whole number"),
        ("axes.width.expression", "half * rest", r"axes.width: uses \['rest'\]"),
        ("inputs.x.shape", ["rows", "wide"], r"uses \['wide'\]"),
        ("inputs.x.dtype", "float31", "dtype: is 'float31'; it must be one of"),
        ("inputs.rows", {"shape": None, "dtype": "int32"}, "'rows' is also the name of an axis"),
        ("outputs", {}, "outputs: is empty"),
        ("reference", "def run(:", "does not parse"),
        ("reference", "x = 1", "no top-level function run"),
        ("reference", "def run(x, eps, weight): ...", "it must take the inputs"),
        ("custom_inputs_entrypoint", "other", "defines no function 'other'"),
    ],
)
def test_a_definition_that_breaks_the_layout_is_refused(path: str, new: Any, message: str) -> None:
    with pytest.raises(FormatError, match=message) as error:
        parse_definition(changed(DEFINITION, path, new), "definition.json")
    assert one_line(error)


def test_axes_in_a_circle_are_refused() -> None:
    raw = changed(DEFINITION, "axes.other", {"type": "expr", "expression": "width"})
    definition = parse_definition(changed(raw, "axes.width.expression", "other"), "d")
    with pytest.raises(FormatError, match="depend on each other in a circle"):
        definition.resolve({"rows": 1})


@pytest.mark.parametrize(
    ("path", "new", "message"),
    [
        ("axes.rows", None, "the workload gives no 'rows'"),
        ("axes.half", 4, "'half' is fixed by the definition"),
        ("axes.rows", -1, "whole number"),
        ("inputs.x", None, "are not both here and in the definition"),
        ("inputs.x.type", "file", "must be random, scalar, safetensors or custom"),
        ("inputs.x.type", "custom", "custom inputs beside others"),
        ("inputs.x", {"type": "safetensors", "path": "../../etc/passwd", "tensor_key": "x"}, "stay in its folder"),
        ("inputs.x", {"type": "safetensors", "path": "/etc/passwd", "tensor_key": "x"}, "stay in its folder"),
        ("inputs.eps.value", "1", "a number or a truth value"),
        ("tolerance.max_atol", -1, "a number from 0"),
        ("tolerance.required_matched_ratio", 2, "a number from 0 to 1"),
        ("uuid", None, "uuid"),
    ],
)
def test_a_workload_that_breaks_the_layout_is_refused(path: str, new: Any, message: str) -> None:
    with pytest.raises(FormatError, match=message) as error:
        parse_workload(changed(WORKLOAD, path, new), parse_definition(DEFINITION, "d"), "workload.jsonl:1")
    assert one_line(error)


@pytest.mark.parametrize(
    ("path", "new", "message"),
    [
        ("sources.0.path", "../kernel.py", "stay in its folder"),
        ("sources.0.path", "C:\\kernel.py", "stay in its folder"),
        ("sources.0.path", "other.py", "'kernel.py' is not among the sources"),
        ("spec.languages", ["triton", "cuda_cpp"], "choose from"),
        ("spec.languages", ["cuda_cpp"], "must end with .cu or .cpp"),
        ("spec.entry_point", "kernel.py", "file::function"),
        ("spec.binding", "tvm", "must be torch"),
        ("spec.target_hardware", ["TPU"], "choose from"),
        ("sources", [], "give 1 to"),
        ("sources", [{"path": "kernel.py"}, {"path": "./kernel.py"}], "appears twice"),
    ],
)
def test_a_solution_that_breaks_the_layout_is_refused(path: str, new: Any, message: str) -> None:
    with pytest.raises(FormatError, match=message) as error:
        parse_solution(changed(SOLUTION, path, new), "solution.json")
    assert one_line(error)


def test_a_solution_survives_the_round_and_takes_sources_from_files(tmp_path: Path) -> None:
    solution = parse_solution(SOLUTION, "s")
    assert parse_solution(solution.to_json(), "s") == solution
    assert solution.destination_passing_style and solution.entry_function == "run" and solution.is_python
    (tmp_path / "kernel.py").write_text(SOLUTION["sources"][0]["content"])
    (tmp_path / "solution.json").write_text(json.dumps(changed(SOLUTION, "sources.0.content", "")))
    assert load_solution(tmp_path / "solution.json") == solution
    assert load_solution(tmp_path / "solution.json").content_hash() == solution.content_hash()
    assert parse_solution(changed(SOLUTION, "sources.0.content", "x"), "s").content_hash() != solution.content_hash()


def test_a_source_that_links_out_of_its_folder_is_refused(tmp_path: Path) -> None:
    (tmp_path / "secret").write_text("key")
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "kernel.py").symlink_to(tmp_path / "secret")
    (tmp_path / "in" / "solution.json").write_text(json.dumps(changed(SOLUTION, "sources.0.content", "")))
    with pytest.raises(FormatError, match="lies outside its folder"):
        load_solution(tmp_path / "in" / "solution.json")


PASSED = Evaluation(Status.PASSED, Environment("H200", {"torch": "2.9"}), "2026-01-02T03:04:05",
                    correctness=Correctness(0.1, 0.2), performance=Performance(0.5, 1.0, 2.0))  # fmt: skip


def test_a_trace_survives_the_round_in_strict_json() -> None:
    for evaluation in (PASSED, Evaluation(Status.TIMEOUT, Environment("cpu"), "t", "300 s"), None):
        trace = Trace("scaled_rows", "mine", WORKLOAD, evaluation)
        assert parse_trace(trace.to_line(), "trace") == trace
        assert "\n" not in trace.to_line()
    endless = Evaluation(Status.INCORRECT_NUMERICAL, Environment("cpu"), "t", correctness=Correctness(float("nan")))
    with pytest.raises(ValueError, match="JSON"):
        Trace("d", "s", {}, endless).to_line()


def test_a_trace_carries_what_its_status_asks_for() -> None:
    with pytest.raises(FormatError, match="PASSED with correctness None"):
        Evaluation(Status.PASSED, Environment("cpu"), "t", performance=Performance(1.0))
    with pytest.raises(FormatError, match="TIMEOUT with performance"):
        Evaluation(Status.TIMEOUT, Environment("cpu"), "t", performance=Performance(1.0))
    line = json.loads(Trace("d", "s", {}, PASSED).to_line())
    line["evaluation"]["status"] = "FINE"
    with pytest.raises(FormatError, match="status: is 'FINE'; it must be one of PASSED"):
        parse_trace(json.dumps(line), "trace")


@pytest.mark.parametrize(
    ("text", "message"),
    [('{"a": NaN}', "NaN is no JSON"), ('{"a": 1e999}', "too large"), ('{"a": 1, "a": 2}', "appears twice"),
     ('{"a": ', "no valid JSON"), ("[" * 100_000, "nested too deep"), ("9" * 10_000, "no valid JSON")],
)  # fmt: skip
def test_json_that_is_not_strict_is_refused(text: str, message: str) -> None:
    with pytest.raises(FormatError, match=message) as error:
        parse_json(text, "file")
    assert one_line(error)


@settings(max_examples=300, deadline=None)
@given(st.data())
def test_mutated_files_are_read_or_refused_with_one_line(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from(["definition", "workload", "solution", "trace"]))
    line = json.loads(Trace("d", "s", WORKLOAD, PASSED).to_line())
    raw = {"definition": DEFINITION, "workload": WORKLOAD, "solution": SOLUTION, "trace": line}[kind]
    value = changed(raw, data.draw(st.sampled_from(places(raw))), data.draw(JSON))
    try:
        if kind == "definition":
            parse_definition(value, "file").resolve({"rows": 3})
        elif kind == "workload":
            parse_workload(value, parse_definition(DEFINITION, "d"), "file")
        elif kind == "solution":
            parse_solution(value, "file")
        else:
            parse_trace(json.dumps(value), "file")
    except FormatError as error:
        assert one_line(error)


@settings(max_examples=200, deadline=None)
@given(st.integers(0, 400))
def test_truncated_files_are_refused_with_one_line(length: int) -> None:
    with pytest.raises(FormatError) as error:
        parse_definition(parse_json(json.dumps(DEFINITION)[:length], "file"), "file")
    assert one_line(error)


@settings(max_examples=200, deadline=None)
@given(st.text(alphabet="./\\aC: \0", max_size=12))
def test_a_path_that_is_accepted_stays_inside(path: str) -> None:
    try:
        inside = inner_path(path, "path")
    except FormatError:
        return
    root = Path("/root/of/it")
    assert Path(root, inside).is_relative_to(root) and ".." not in Path(inside).parts


def test_a_folder_without_problems_and_damaged_files_have_one_line_each(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for path, message in ((tmp_path / "empty", "holds no problem"), (tmp_path / "none", "is not there")):
        with pytest.raises(FormatError, match=message) as error:
            load_problems(path)
        assert one_line(error)
    folder = write_problem(tmp_path / "one")
    (folder / "workload.jsonl").write_bytes(b"\xff\xfe")
    with pytest.raises(FormatError, match="not UTF-8"):
        load_problems(tmp_path)
    (folder / "workload.jsonl").write_text(json.dumps(WORKLOAD) + "\n" + json.dumps(WORKLOAD))
    with pytest.raises(FormatError, match="same uuid"):
        load_problems(tmp_path)
    (folder / "workload.jsonl").unlink()
    with pytest.raises(FormatError, match="cannot be read"):
        load_problems(tmp_path)


def test_a_whole_collection_gives_ids_by_position(tmp_path: Path) -> None:
    for number in range(len(COLLECTIONS["FlashInfer-Bench"])):
        definition = changed(DEFINITION, "name", f"{number:03}_rows")
        write_problem(tmp_path / "FlashInfer-Bench" / f"{number:03}_rows", definition)
    problems = load_problems(tmp_path)
    assert [problem.id for problem in problems] == list(range(210, 236))
    (tmp_path / "FlashInfer-Bench" / "003_rows" / "definition.json").unlink()
    assert {problem.id for problem in load_problems(tmp_path)} == {None}


def test_parquet_rows_hold_the_same_problems(tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    row = {key: json.dumps(value) if isinstance(value, dict) else value for key, value in DEFINITION.items()}
    rows = [row | {"workloads": json.dumps([WORKLOAD]), "hf_id": ""}]
    parquet.write_table(pa.Table.from_pylist(rows), tmp_path / "L1.parquet")
    (problem,) = load_parquet(tmp_path / "L1.parquet")
    plain = load_problem(write_problem(tmp_path / "folder"))
    assert (problem.definition, problem.workloads) == (plain.definition, plain.workloads)
    assert problem.collection == "L1" and problem.definition.hf_id is None
    (tmp_path / "bad.parquet").write_bytes(b"PAR1 no")
    with pytest.raises(FormatError, match="no parquet file"):
        load_parquet(tmp_path / "bad.parquet")


def test_reading_problems_needs_no_torch() -> None:
    import subprocess

    code = "import sys, benchmarks.kernels.__main__; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
