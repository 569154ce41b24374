"""One trial of the nanochat lane, for real: sandbox, parent's clock, judge, audits; honest candidates and cheats."""

from __future__ import annotations

import math
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.contract import Assignment, Outcome, load
from benchmarks.nanochat import bounds, sizes
from benchmarks.nanochat.judge import validation_rows
from benchmarks.tar import pack
from tests import candidates

pytestmark = pytest.mark.torch

TINY = replace(load("nanochat").preset("smoke"), budget_seconds=0.8, score_rows=64, wall_cap_seconds=10.0)


@pytest.fixture
def data(prepared_text: Path) -> Path:
    return prepared_text


@pytest.fixture
def run(box, evaluator, data, tmp_path):
    """Run a tree as a trial; the outcome also carries the points and the path of the weights."""

    def go(files: candidates.Files, preset=TINY, seed: int = 1, confirming: bool = False) -> Outcome:
        tree = pack({name: text.encode() for name, text in files.items()})
        task = Assignment("nanochat", preset, "", tree, seed, "val_screen", data, confirming)
        points: dict[str, list[float]] = {}
        sink = lambda name, steps, values: points.setdefault(name, []).extend(values)  # noqa: E731
        outcome = evaluator.run(task, box, sink, keep_weights=tmp_path / "weights")
        outcome.points = points  # type: ignore[attr-defined]
        return outcome

    return go


def kinds(outcome: Outcome) -> set[str]:
    return {seen.kind for seen in outcome.observations}


def test_an_honest_candidate_is_scored_without_findings(run):
    outcome = run(candidates.honest())
    assert outcome.failure is None, outcome.failure
    assert outcome.score is not None and 1 < outcome.score < 9
    assert not outcome.observations
    assert set(outcome.hashes) == {"judge", "data", "split", "environment", "weights", "tree", "cache"}
    assert {"processor", "sandbox", "clock", "seed"} <= set(outcome.surroundings)
    assert {"weight_bytes", "weight_entropy", "parameters", "code_bytes"} <= set(outcome.metrics)
    assert 4 * outcome.metrics["parameters"] < outcome.metrics["weight_bytes"] < 4.1 * outcome.metrics["parameters"]
    assert len(outcome.points["loss"]) >= 1  # type: ignore[attr-defined]
    assert 0.6 < outcome.seconds["train_cpu"] <= TINY.budget_seconds


@pytest.mark.parametrize("files", [candidates.honest(), candidates.bigram(), candidates.recurrent()])
def test_the_judge_equals_a_direct_evaluation(run, data, tmp_path, monkeypatch, files):
    import importlib.util
    import sys

    import torch
    from safetensors.torch import load_file

    outcome = run(files)
    source = tmp_path / "direct_model.py"
    source.write_text(files["model.py"])
    spec = importlib.util.spec_from_file_location("direct_model", source)
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "direct_model", module)
    spec.loader.exec_module(module)
    model = module.build()
    model.load_state_dict(load_file(tmp_path / "weights"))
    text = (data / "val_screen.bin").read_bytes()
    inputs, targets = validation_rows(text, TINY.score_rows, TINY.sequence_length)
    with torch.no_grad():
        scores = model(torch.from_numpy(inputs.astype(np.int64)))
        nats = torch.nn.functional.cross_entropy(
            scores.double().flatten(0, 1), torch.from_numpy(targets.astype(np.int64)).flatten()
        )
    assert abs(outcome.score - nats.item() / math.log(2)) < 1e-5


def test_the_same_seed_gives_the_same_first_loss_and_another_seed_does_not(run):
    first, again, other = (run(candidates.honest(), seed=seed) for seed in (3, 3, 4))
    losses = [outcome.points["loss"][0] for outcome in (first, again, other)]  # type: ignore[attr-defined]
    assert losses[0] == losses[1] != losses[2]


@pytest.mark.parametrize("share", [1.0, 0.01, 0.001])
def test_a_peeker_is_caught(run, share):
    """At 0.1 % it peeks at 8 of 8,192 positions: those it gains most by are looked at."""
    outcome = run(candidates.peeker(share))
    assert "future_leak" in kinds(outcome)
    assert all(seen.severity == "structural" for seen in outcome.observations if seen.kind == "future_leak")


def test_scores_that_depend_on_earlier_questions_are_caught(run):
    assert "unstable_scores" in kinds(run(candidates.stateful()))


CONFIRM = replace(TINY, audit_confirm_random=256, audit_confirm_targeted=64)


@pytest.mark.parametrize("files", [candidates.streaming(), candidates.recurrent()])
def test_a_model_that_can_be_fed_byte_by_byte_is_streamed_at_confirmation(run, files):
    screened, confirmed = run(files, CONFIRM), run(files, CONFIRM, confirming=True)
    assert screened.failure is None and confirmed.failure is None, confirmed.failure
    assert not confirmed.observations
    assert "streamed_positions" not in screened.metrics
    assert confirmed.metrics["streamed_positions"] == 32 * TINY.sequence_length
    assert confirmed.metrics["audit_streamed_worst"] < 1e-4


def test_a_step_that_says_something_else_than_forward_is_a_finding(run):
    outcome = run(candidates.streaming(scale=1.05), CONFIRM, confirming=True)
    assert kinds(outcome) == {"step_disagrees"}
    (seen,) = outcome.observations
    assert seen.severity == "structural" and "of 4096 positions differ" in seen.evidence[0]


def test_a_peeker_cannot_stream_what_it_says(run):
    peeker = candidates.streaming(tree=candidates.peeker(0.01))
    assert {"future_leak", "step_disagrees"} <= kinds(run(peeker, CONFIRM, confirming=True))


def test_a_tree_that_carries_data_is_refused(run):
    outcome = run(candidates.honest() | {"table.py": f"TABLE = '{'x' * sizes.TREE_BYTES}'"})
    assert outcome.failure is not None and outcome.failure.kind == "refused"
    assert "at most 1,048,576" in outcome.failure.message


def test_weights_beyond_the_cap_are_not_taken(run, monkeypatch):
    monkeypatch.setitem(bounds.BOUNDS, "cpu", replace(bounds.BOUNDS["cpu"], weights_bytes=100_000))
    outcome = run(candidates.honest())
    assert outcome.failure is not None and outcome.failure.kind == "refused"
    assert "and 100,000 are allowed" in outcome.failure.message


def test_a_candidate_that_ends_while_it_waits_for_its_clock_has_failed(box, evaluator, data):
    body = "import os, threading\nthreading.Timer(0.1, os._exit, (3,)).start()\nharness.start_clock()"
    tree = pack({name: text.encode() for name, text in candidates.main_of(body).items()})
    task = Assignment("nanochat", TINY, "", tree, 1, "val_screen", data)
    outcome = evaluator.run(task, box, lambda *_: None, gate=lambda: time.sleep(0.5))
    assert outcome.score is None and outcome.failure.kind == "crash"


def test_a_message_beyond_the_cap_is_ignored(run):
    long = "harness._channel.send(b'P' + b'x' * 100_000)\nharness.log(7, loss=2.5)"
    outcome = run(candidates.trained(before_end=long))
    assert outcome.failure is None and 2.5 in outcome.points["loss"]


def test_a_printed_metric_counts_for_nothing(run):
    honest = run(candidates.honest())
    faker = run(candidates.trained(before_end='print("bits_per_byte: 0.001")\nharness.log(step, bits_per_byte=0.001)'))
    assert faker.score == pytest.approx(honest.score, abs=0.5)
    assert "bits_per_byte: 0.001" in faker.log


def test_scores_of_zero_are_worth_eight_bits(run):
    outcome = run(candidates.model_with("return scores", "return scores * 0"))
    assert outcome.score == pytest.approx(8.0, abs=1e-4)


def test_the_validation_text_cannot_be_reached(run, data):
    body = f"""
import os
found = []
for root in ("{data}", "{data.parent}"):
    try:
        found += os.listdir(root)
    except OSError as error:
        print(type(error).__name__)
for name in ("val_screen", "val_confirm", "val_final"):
    try:
        open("{data}/" + name + ".bin", "rb")
        found.append(name)
    except OSError as error:
        print(type(error).__name__)
print("FOUND", found)
"""
    assert "FOUND []" in run(candidates.main_of(body)).log


def test_no_64_byte_piece_of_the_validation_text_is_anywhere_in_the_sandbox(run, data):
    """The text files of every mount are searched: the interpreter's own libraries are mounts, too."""
    text = (data / "val_screen.bin").read_bytes()
    pieces = [text[at : at + 64].hex() for at in range(1000, len(text) - 64, len(text) // 8)]
    body = f"""
import os
pieces = [bytes.fromhex(piece) for piece in {pieces!r}]
searched = hits = 0
mounts = [line.split()[1] for line in open("/proc/self/mounts")]
skipped = ("/usr", "/proc", "/sys", "/dev", "/scratch", "/")
for mount in [place for place in mounts if not place.startswith(skipped[:-1]) and place != "/"]:
    for root, folders, files in os.walk(mount):
        for name in files:
            path = os.path.join(root, name)
            binary = path.endswith((".so", ".pyc", ".a", ".h", ".py", ".pyi")) or ".so." in path
            if binary or not os.path.isfile(path) or os.path.getsize(path) > 1_000_000:
                continue
            content = open(path, "rb").read()
            searched += 1
            hits += any(piece in content for piece in pieces)
print("SEARCHED", searched > 20, "HITS", hits)
"""
    assert "SEARCHED True HITS 0" in run(candidates.main_of(body)).log


def test_training_on_after_the_budget_gains_nothing(run):
    body = """
model = build()
harness.start_clock()
harness.submit(model.state_dict())
while True:
    for parameter in model.parameters():
        parameter.data.mul_(1.0)
    if harness.progress() > 1.5:
        harness.submit({name: value * 0 for name, value in model.state_dict().items()})
"""
    outcome = run(candidates.main_of(body))
    assert outcome.failure is None  # the weights that came in time are scored
    assert outcome.score != pytest.approx(8.0, abs=1e-4)  # and not the zeros that came late
    assert outcome.seconds["train_cpu"] <= TINY.budget_seconds


def test_sleeping_or_spinning_children_are_on_the_same_clock(run):
    body = """
import os
model = build()
harness.start_clock()
for _ in range(3):
    if os.fork() == 0:
        while True:
            pass
while harness.progress() < 0.9:
    pass
harness.submit(model.state_dict())
"""
    outcome = run(candidates.main_of(body))
    assert outcome.failure is not None and outcome.failure.kind == "timeout"


def test_a_daemon_does_not_outlive_its_step(run):
    leave = """
import os, time
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        while True:
            time.sleep(0.01)
    os._exit(0)
"""
    assert run(candidates.trained(after_submit=leave)).failure is None
    look = """
import os
print("PROCESSES", sorted(int(name) for name in os.listdir("/proc") if name.isdigit())[1:] == [os.getpid()])
"""
    assert "PROCESSES True" in run(candidates.main_of(look)).log


@pytest.mark.parametrize(
    ("body", "kind", "words"),
    [
        ("raise ValueError('no such thing')", "crash", "no such thing"),
        ("harness.start_clock()\nwhile True: pass", "timeout", "budget"),
        ("pass", "no_weights", "without submitting"),
        ("import os, signal\nos.kill(os.getpid(), signal.SIGSEGV)", "crash", "signal"),
        (
            "harness.start_clock()\nm = build()\nm.head.weight.data[:] = float('nan')\nharness.submit(m.state_dict())",
            "not_finite",
            "NaN",
        ),
        ("harness.start_clock()\nharness.submit({'a': torch.zeros(3)})", "bad_output", "state_dict"),
        ("open('/scratch/full', 'wb').write(bytes(1 << 30))", "disk_full", "scratch"),
        ("print('x' * 50_000_000)\nraise SystemExit(3)", "crash", ""),
        ("x = [bytearray(1 << 28) for _ in range(400)]", "out_of_memory", ""),
    ],
)
def test_each_failure_has_its_class_and_one_line(run, body, kind, words):
    outcome = run(candidates.main_of(body))
    assert outcome.score is None and outcome.failure is not None
    assert outcome.failure.kind == kind, outcome.failure
    assert words in outcome.failure.message and "\n" not in outcome.failure.message
    assert len(outcome.log) < 400_000


def test_a_failure_leaves_the_slot_ready_for_the_next_trial(run):
    run(candidates.main_of("import os\nwhile True:\n    os.fork()"))
    assert run(candidates.early(0.7)).failure is None
