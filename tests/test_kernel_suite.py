"""`python -m benchmarks.kernels prepare | evaluate | suite`, as somebody without a lab uses them."""

from __future__ import annotations

import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import contract
from benchmarks.kernels import suite
from benchmarks.kernels.__main__ import main
from benchmarks.kernels.cells import CellTimes
from benchmarks.kernels.formats.solution import load_solution
from benchmarks.kernels.prepare import own_problems
from benchmarks.kernels.suite import Line
from tests.kernel_trials import ADD, SCALE, problem

FAST = "def run(x, gain):\n    return x * gain\n"


@pytest.fixture(autouse=True)
def shipped(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    monkeypatch.setattr(contract, "FOLDER", Path(contract.__file__).parent)
    monkeypatch.setenv("LAB_DATA", str(tmp_path / "data"))
    return tmp_path


@pytest.fixture
def problems(tmp_path: Path) -> Path:
    slow = "return torch.stack([row * gain for row in x])"
    for name, body in ((SCALE, slow), (ADD, "return x + gain")):
        folder = tmp_path / "problems" / name
        folder.mkdir(parents=True)
        for file, text in problem(name, body, ((40, 64),)).items():
            (folder / file).write_text(text)
    return tmp_path / "problems"


def said(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


@pytest.mark.torch
def test_a_solution_is_prepared_for_evaluated_and_the_suite_goes_on_where_it_was_cut_off(
    problems: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", "--preset", "smoke", "--problems", str(problems), "--json"]) == 0
    told = {"folder": "", "problems": 2, "workloads": 2, "left_out": {}}
    assert json.loads(said(capsys)[-1]) | {"folder": ""} == told

    solution = tmp_path / "fast.py"
    solution.write_text(FAST)
    assert main(["evaluate", SCALE, "--solution", str(solution), "--preset", "smoke", "--json"]) == 0
    line = json.loads(said(capsys)[-1])
    assert line["problem"] == SCALE and line["score"] < 1 and set(line["times"]) == {"40x64"}
    assert line["times"]["40x64"]["bound_ms"] > 0

    (tmp_path / "tree" / SCALE).mkdir(parents=True)
    (tmp_path / "tree" / SCALE / "solution.py").write_text(FAST)
    out = tmp_path / "out" / "lines.jsonl"
    asked = ["suite", "--tree", str(tmp_path / "tree"), "--preset", "smoke", "--out", str(out), "--json"]
    assert main([*asked, "--shard", "2/2"]) == 0
    first = said(capsys)
    assert [json.loads(row)["problem"] for row in first[:-1]] == [SCALE]
    with out.open("a") as file:
        file.write('{"problem": "cut o')
    assert main(asked) == 0
    second = said(capsys)
    assert second[0] == first[0]  # not done again
    assert [json.loads(row)["problem"] for row in second[:-1]] == [SCALE, ADD]
    whole = json.loads(second[-1])
    assert whole["problems"] == whole["passed"] == 2 and 0 < whole["relative_latency"] < 1.5
    assert 0 < whole["sol_score"] <= 1
    assert len(out.read_text().splitlines()) == 2


@pytest.mark.torch
@pytest.mark.slow
def test_a_wrong_solution_is_told_and_ends_with_1(
    problems: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["prepare", "--preset", "smoke", "--problems", str(problems)]) == 0
    (tmp_path / "wrong.py").write_text(FAST.replace("*", "+"))
    assert main(["evaluate", SCALE, "--solution", str(tmp_path / "wrong.py"), "--preset", "smoke"]) == 1
    assert "of the elements match" in said(capsys)[-1]


@pytest.mark.torch
def test_our_own_problems_have_sizes_for_a_cpu() -> None:
    found = own_problems("cpu")
    assert len(found) >= 15
    assert all(2 <= len(problem.workloads) <= 6 for problem, _ in found)


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["evaluate", SCALE], "kernels has no data yet: run `python -m benchmarks.kernels prepare`"),
        (["suite", "--preset", "huge"], "no preset 'huge'"),
        (["prepare", "--problems", "nowhere"], "nowhere: is not there"),
    ],
)
def test_what_is_missing_is_one_line(arguments: list[str], words: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments) == 2
    error = capsys.readouterr().err
    assert words in error and error.count("\n") == 1


@pytest.mark.torch
def test_bad_names_and_folders_are_one_line(problems: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["prepare", "--preset", "smoke", "--problems", str(problems)]) == 0
    for arguments, words in (
        (["evaluate", "nothing"], "nothing: is no prepared problem; choose of add_columns, scale_rows"),
        (["evaluate", SCALE, "--solution", "nothing.py"], "nothing.py: is not there"),
        (["suite", "--shard", "3/2"], "--shard: is '3/2'; write I/N"),
        (["suite", "--tree", str(tmp_path)], "holds no NAME/solution.py"),
    ):
        capsys.readouterr()
        assert main([*arguments, "--preset", "smoke"]) == 2
        error = capsys.readouterr().err
        assert words in error, error
    shutil.rmtree(tmp_path / "data" / "datasets" / "kernels")


@pytest.mark.torch
def test_what_no_device_of_the_preset_can_run_is_left_out_and_said(
    problems: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    four_bits = json.loads((problems / SCALE / "definition.json").read_text())
    four_bits["inputs"]["x"]["dtype"], four_bits["name"] = "float4_e2m1fn_x2", "in_four_bits"
    (problems / "in_four_bits").mkdir()
    (problems / "in_four_bits" / "definition.json").write_text(json.dumps(four_bits))
    shutil.copy(problems / SCALE / "workload.jsonl", problems / "in_four_bits")
    assert main(["prepare", "--preset", "smoke", "--problems", str(problems), "--json"]) == 0
    told = capsys.readouterr()
    row = json.loads(told.out)
    assert row["problems"] == 2 and "NVFP4" in row["left_out"]["in_four_bits"]
    assert "in_four_bits is left out: needs NVFP4" in told.err
    assert main(["prepare", "--preset", "smoke", "--problems", str(problems / "in_four_bits")]) == 2
    assert "holds no problem that a cpu device can run" in capsys.readouterr().err


@pytest.mark.torch
def test_an_exported_solution_stands_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folder = tmp_path / "tree" / SCALE
    folder.mkdir(parents=True)
    (folder / "solution.py").write_text(
        'import torch\nfrom harness import compile_cpp\n\nSOURCE = \'extern "C" void twice(const float *x, float *y, '
        "long n) { for (long i = 0; i < n; ++i) y[i] = 2 * x[i]; }'\nTWICE = compile_cpp(SOURCE).twice\n\n\n"
        "def run(x, gain):\n    out = torch.empty_like(x)\n    TWICE(x, out, x.numel())\n    return out\n"
    )
    assert main(["export", "--tree", str(tmp_path / "tree"), "--out", str(tmp_path / "out"), "--author", "me"]) == 0
    assert said(capsys)[-1].startswith("1 solutions are in")
    found = load_solution(tmp_path / "out" / SCALE / "solution.json")
    assert (found.definition, found.author, found.languages) == (SCALE, "me", ("pytorch",))
    for source in found.sources:
        (tmp_path / source.path).write_text(source.content)
    program = "import torch, solution; print(float(solution.run(torch.ones(2, 3), None).sum()))"
    done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True, check=True)
    assert done.stdout == "12.0\n"


def test_a_summary_counts_what_failed_and_mixes_no_versions(tmp_path: Path) -> None:
    times = {"a": CellTimes(1.0, 4.0, 1.0), "b": CellTimes(4.0, 4.0, 2.0)}
    good = Line("one", "k", 0.5, times=times)
    bad = Line("two", "k", None, "bad_output: no")
    assert good.sol == 0.75 and bad.sol == 0.0
    row = suite.summary([good, bad])
    assert (row["problems"], row["passed"], row["relative_latency"], row["sol_score"]) == (2, 1, 0.5, 0.375)
    assert suite.summary([Line("three", "k", 2.0, times={"a": CellTimes(1.0, 1.0)})])["sol_score"] is None
    path = tmp_path / "lines"
    for line in (good, bad, Line("one", "other", 9.0)):
        suite.append(path, line)
    assert suite.read_lines(path, "k") == {"one": good, "two": bad}
