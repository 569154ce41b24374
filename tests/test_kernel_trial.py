"""A trial of the kernel lane in a real sandbox: what is right is timed, what is wrong has no score."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.kernels.cells import cells
from tests.kernel_trials import ADD, SCALE, Trials, trials

pytestmark = pytest.mark.torch

FAST = "def run(x, gain):\n    return x * gain\n"


@pytest.fixture(scope="module")
def lane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Trials]:
    with trials(tmp_path_factory.mktemp("kernels") / "data") as lane:
        yield lane


def test_the_start_is_as_fast_as_its_own_reference(lane: Trials) -> None:
    outcome = lane.run(problems=(ADD, SCALE))
    assert outcome.failure is None, outcome.failure
    assert outcome.score is not None and 0.35 < outcome.score < 3  # in 30 ms
    assert {name: set(found) for name, found in cells(outcome.metrics).items()} == {
        ADD: {"64x128"}, SCALE: {"40x64", "64x33"},
    }  # fmt: skip
    assert all(cell.bound_ms and cell.bound_ms < cell.latency_ms for cell in cells(outcome.metrics)[SCALE].values())
    assert {name: len(values) for name, values in lane.points.items()} == {
        f"latency_ms {place}": 6 for place in (f"{ADD}/64x128", f"{SCALE}/40x64", f"{SCALE}/64x33")
    }
    assert outcome.hashes["judge"] and outcome.seconds["timed_cpu"] > 0 and not outcome.observations


def test_a_faster_solution_scores_lower_and_a_person_is_asked_to_look(lane: Trials) -> None:
    outcome = lane.run({SCALE: FAST})
    assert outcome.failure is None and outcome.score is not None and outcome.score < 0.5, outcome
    many = "def run(x, gain):\n    for _ in range(40):\n        out = x * gain\n    return out\n"
    slower = lane.run({SCALE: many})
    assert slower.score is not None and outcome.score < slower.score < 1
    faster = [seen.evidence for seen in outcome.observations if seen.kind == "much_faster"]
    times = cells(outcome.metrics)[SCALE].values()
    assert sum(map(len, faster)) == sum(cell.latency_ms * 10 < cell.reference_ms for cell in times)


def test_inputs_depend_on_the_seed_and_on_nothing_else(lane: Trials) -> None:
    tell = "import sys\n\n\ndef run(x, gain):\n    print(float(x.sum()), file=sys.stderr)\n    return x * gain\n"
    one, again, other = (lane.run({SCALE: tell}, seed=seed).log.splitlines()[:4] for seed in (1, 1, 2))
    assert one == again and len(set(one)) == 4 and not set(one) & set(other)


@pytest.mark.parametrize(
    ("text", "kind", "words"),
    [
        ("def run(x, gain):\n    return x + gain\n", "bad_output", "0.0.*% of the elements match"),
        ("import torch\n\n\ndef run(x, gain):\n    return torch.zeros_like(x)\n", "bad_output", "out: is all zero"),
        ("def run(x, gain):\n    return (x * gain).T\n", "bad_output", "out has the shape"),
        (
            "def run(x, gain):\n    return (x * gain).double()\n",
            "bad_output",
            "out is torch.float64, not",
        ),
        ("def run(x, gain):\n    return x * gain, gain\n", "bad_output", "2 outputs; the problem has 1: out"),
        ("def run(x, gain):\n    return {'y': x}\n", "bad_output", "the output out is missing"),
        ("def run(x, gain):\n    return [list(x)]\n", "bad_output", "out is a list, not a tensor"),
        ("def run(x, gain):\n    return x.mul_(gain)\n", "bad_output", "it writes to its inputs"),
        (
            "def run(x, gain):\n    raise ValueError('no more')\n",
            "crash",
            "scale_rows/40x64: it ended in 'call': ValueError: no more$",
        ),
        ("import os\n\n\ndef run(x, gain):\n    os._exit(0)\n", "crash", "it ended in 'call'"),
        ("def run(x, gain)\n", "crash", "scale_rows: it ended in 'load': SyntaxError"),
        ("import nothing_of_this_name\n", "crash", "ModuleNotFoundError"),
        ("speed = 1\n", "bad_output", "solution.py has no function run"),
    ],
)
def test_what_is_wrong_has_no_score_and_says_why(lane: Trials, text: str, kind: str, words: str) -> None:
    outcome = lane.run({SCALE: text})
    assert outcome.score is None and outcome.failure is not None
    assert outcome.failure.kind == kind
    assert re.search(words, outcome.failure.message), outcome.failure.message
    assert "\n" not in outcome.failure.message


def test_a_solution_that_is_wrong_at_one_size_alone_fails(lane: Trials) -> None:
    outcome = lane.run({SCALE: "def run(x, gain):\n    return x * gain if x.shape[1] == 64 else x\n"})
    assert outcome.failure is not None and outcome.failure.message.startswith("scale_rows/64x33")


def test_a_solution_for_the_listed_sizes_alone_is_found_when_it_is_to_be_confirmed(lane: Trials) -> None:
    listed = "def run(x, gain):\n    return x * gain if tuple(x.shape) in ((40, 64), (64, 33)) else x.clone()\n"
    screened, confirmed = (lane.run({SCALE: listed}, confirming=confirming) for confirming in (False, True))
    assert screened.failure is None and "other_size" not in [seen.kind for seen in screened.observations]
    (found,) = [seen for seen in confirmed.observations if seen.kind == "other_size"]
    assert found.severity == "structural" and "scale_rows/hidden-" in found.evidence[0]
    honest = lane.run({SCALE: "def run(x, gain):\n    return x * gain\n"}, confirming=True)
    assert honest.failure is None and "other_size" not in [seen.kind for seen in honest.observations]
    ends = listed.replace("x.clone()", "exit(3)")
    gone = lane.run({SCALE: ends}, confirming=True)
    assert gone.score is not None and "other_size" in [seen.kind for seen in gone.observations]


def test_cpp_is_compiled_before_the_clock_and_kept_for_the_commit(lane: Trials, tmp_path: Path) -> None:
    source = """
extern "C" void scale(const float *x, const float *gain, float *out, long rows, long width) {
  for (long r = 0; r < rows; ++r)
    for (long c = 0; c < width; ++c) out[r * width + c] = x[r * width + c] * gain[c];
}
"""
    text = f'''
import torch
from harness import compile_cpp

LIBRARY = compile_cpp(r"""{source}""")


def run(x, gain):
    out = torch.empty_like(x)
    LIBRARY.scale(x, gain, out, *x.shape)
    return out
'''
    first, second = lane.run({SCALE: text}, caches=tmp_path), lane.run({SCALE: text}, caches=tmp_path)
    assert first.failure is None and second.failure is None, (first.failure, second.failure)
    assert first.score is not None and first.score < 0.8
    assert first.hashes["cache"] == second.hashes["cache"] != "empty"
    broken = lane.run({SCALE: text.replace("long rows", "lung rows")})
    assert (
        broken.failure is not None and "g++ refused the source" in broken.log and "it ended" in broken.failure.message
    )


def test_problems_that_are_not_there_are_one_clear_line(lane: Trials) -> None:
    for problems, words in (((), "no problem was named"), (("nothing",), "have no problem nothing")):
        outcome = lane.run(problems=problems)
        assert outcome.failure is not None and outcome.failure.kind == "no_data" and words in outcome.failure.message
