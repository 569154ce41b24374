"""One trial of the token lane, for real, on a CPU: shared memory, judge in torch, audits; honest ones and cheats."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.contract import Outcome
from benchmarks.gpu import device_failure
from benchmarks.nanochat import bounds, evaluate
from benchmarks.nanochat.judge import windows
from benchmarks.nanochat.tokens import tokenizer
from runners.sandbox import Sandbox, SandboxBroken
from tests import token_play as play

pytestmark = pytest.mark.torch
Run = Callable[..., Outcome]


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokens") / "data"
    play.write_data(folder)
    return folder


@pytest.fixture
def run(box: Sandbox, evaluator: evaluate.Evaluator, data: Path, tmp_path: Path) -> Run:
    def go(files: play.Files, **more: object) -> Outcome:
        task = play.task(files, data, **more)
        return evaluator.run(task, box, lambda name, steps, values: None, keep_weights=tmp_path / "weights")

    return go


def kinds(outcome: Outcome) -> set[str]:
    return {seen.kind for seen in outcome.observations}


def direct(data: Path, weights: Path) -> float:
    """Bits per byte of the table, worked out here."""
    import torch
    from safetensors.torch import load_file

    table = load_file(weights)["scores.weight"].double()
    raw = np.fromfile(data / "val_screen.bin", dtype="<u2")
    inputs, targets = windows(raw, play.TINY.score_rows, play.TINY.sequence_length, "tokens")
    scores = table[torch.from_numpy(inputs.astype(np.int64)).flatten()]
    wanted = torch.from_numpy(targets.astype(np.int64)).flatten()
    nats = torch.nn.functional.cross_entropy(scores, wanted, reduction="none").numpy()
    sizes = np.load(data / "token_bytes.npy")[targets].astype(np.int64).ravel()
    return float(nats[sizes > 0].sum() / math.log(2) / sizes.sum())


def test_the_judge_equals_a_direct_evaluation_and_finds_nothing_in_an_honest_candidate(
    run: Run, data: Path, tmp_path: Path
) -> None:
    outcome = run(play.table(), keep_losses=tmp_path / "losses.npy")
    assert outcome.failure is None, (outcome.failure, outcome.log)
    assert outcome.score == pytest.approx(direct(data, tmp_path / "weights"), abs=1e-6)
    assert not outcome.observations
    assert outcome.metrics["audit_random_worst"] < 1e-5 and outcome.metrics["parameters"] == play.VOCABULARY**2
    assert np.load(tmp_path / "losses.npy").shape == (play.TINY.score_rows, play.TINY.sequence_length)
    again = run(play.table(), reference=tmp_path / "losses.npy")
    assert again.score == outcome.score and again.hashes["weights"] == outcome.hashes["weights"]


@pytest.mark.parametrize("share", [1.0, 0.01, 0.001])
def test_a_peeker_is_caught(run: Run, share: float) -> None:
    """At 0.1 % it peeks at 2 of 1,920 positions: those it gains most by are looked at."""
    outcome = run(play.table(play.peeker(share)))
    assert outcome.failure is None, (outcome.failure, outcome.log)
    assert "future_leak" in kinds(outcome)


def test_a_peep_below_the_tolerance_shows_in_the_mean(run: Run) -> None:
    faint = f"scores = scores.bfloat16()\n{play.peeker(1.0, boost=0.04)}"
    outcome = run(play.table(faint), preset=replace(play.TINY, audit_random=256))
    (seen,) = outcome.observations
    assert seen.kind == "future_leak" and "random: 0 of 256 positions differ" in seen.evidence[0]
    assert "lost on average" in seen.evidence[0]


def test_an_honest_model_in_bfloat16_raises_no_alarm(run: Run) -> None:
    outcome = run(play.table("scores = scores.bfloat16()"))
    assert outcome.failure is None and not outcome.observations, outcome


def test_scores_that_depend_on_earlier_questions_are_caught(run: Run) -> None:
    assert "unstable_scores" in kinds(run(play.table(play.STATEFUL)))


def test_a_model_that_can_step_is_streamed_at_confirmation(run: Run) -> None:
    honest, other = (run(play.table(step=play.STEP.format(scale=scale)), confirming=True) for scale in (1.0, 1.1))
    assert honest.metrics["streamed_positions"] == 8 * play.TINY.sequence_length and not honest.observations
    assert kinds(other) == {"step_disagrees"}


@pytest.mark.parametrize(
    ("change", "kind", "words"),
    [
        ("scores[..., 7] = float('nan')", "not_finite", "NaN"),
        ("scores = scores[..., :-1]", "bad_output", "is wanted"),
        ("raise MemoryError('no room')", "bad_output", "no room"),
        ("import os\nos._exit(0)", "bad_output", "ended before"),
    ],
)
def test_what_cannot_be_judged_has_its_class(run: Run, change: str, kind: str, words: str) -> None:
    outcome = run(play.table(change))
    assert outcome.score is None and outcome.failure is not None
    assert (outcome.failure.kind, words in outcome.failure.message) == (kind, True), outcome.failure


def test_a_candidate_that_shrinks_the_shared_memory_does_not_reach_the_judge(run: Run) -> None:
    shrink = """
import os
for fd in range(3, 64):
    try:
        os.ftruncate(fd, 4096)
    except OSError:
        pass
"""
    assert run(play.table(shrink)).failure is None


def test_what_lies_in_the_buffers_of_another_process_is_gone(run: Run) -> None:
    """The score's answers would let an auditing process repeat them."""
    look = """
import gc
import torch
held = [it for it in gc.get_objects() if torch.is_tensor(it) and it.dtype == torch.uint8 and it.numel() > 1_000_000]
assert held and (self.calls or all(bool((it == 255).all()) for it in held)), "something is left"
self.calls += 1
"""
    outcome = run(play.table(look))
    assert outcome.failure is None, outcome.failure


def test_weights_that_are_sealed_are_taken_as_they_are_and_others_are_copied(run: Run, tmp_path: Path) -> None:
    from safetensors.torch import load_file

    rewrite = """
import os, socket
from safetensors.torch import save
memory = os.memfd_create("weights")
content = save(model.state_dict())
os.write(memory, content)
socket.send_fds(harness._channel, [b"W"], [memory])
harness._channel.recv(1)
os.pwrite(memory, bytes(len(content)), 0)
harness.submit = lambda state: None
"""
    assert run(play.table(before_end=rewrite)).failure is None
    assert load_file(tmp_path / "weights")["scores.weight"].abs().sum() > 0
    write = """
harness._channel, real = None, harness._channel
sealed = harness.Reserved(model.state_dict()).seal()
import os
try:
    os.pwrite(sealed, b"x", 0)
except PermissionError:
    print("SEALED")
harness._channel = real
"""
    assert "SEALED" in run(play.table(before_end=write)).log


def test_a_model_writes_a_little_where_the_data_have_a_tokenizer(run: Run, data: Path) -> None:
    assert run(play.table(), wants_sample=True).sample == ""
    tokenizer.train(["It was a dark night."], tokenizer.SMALLEST).save(str(data / tokenizer.TOKENIZER))
    outcome = run(play.table(), wants_sample=True)
    (data / tokenizer.TOKENIZER).unlink()
    assert outcome.failure is None and outcome.sample.startswith("It was a"), outcome
    assert len(outcome.sample) > 20 and outcome.seconds["sample_wall"] < 2


def test_on_a_stopwatch_sleep_counts_too(run: Run) -> None:
    lazy = play.table(before_end="import time\ntime.sleep(1.5)")
    outcome = run(lazy, preset=replace(play.TINY, clock="wall", budget_seconds=0.8))
    assert outcome.failure is not None and outcome.failure.kind == "timeout", outcome.failure


def test_a_warm_up_longer_than_compiling_takes_asks_for_a_reader(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    asks = replace(bounds.BOUNDS["cpu"], warm_up_asks=0.001, cached_warm_up_asks=0.001)
    monkeypatch.setitem(bounds.BOUNDS, "cpu", asks)
    outcome = run(play.table())
    assert [(seen.kind, seen.severity) for seen in outcome.observations] == [("long_warm_up", "review")]


def test_a_file_of_the_data_that_is_gone_is_one_line(run: Run, data: Path) -> None:
    moved = (data / "val_screen.bin").rename(data / "away")
    outcome = run(play.table())
    moved.rename(data / "val_screen.bin")
    assert outcome.failure is not None and outcome.failure.kind == "no_data"
    assert "lack val_screen.bin" in outcome.failure.message and "prepare --preset gpu-tiny" in outcome.failure.message


@pytest.mark.parametrize(
    ("line", "kind", "asked"),
    [
        ("torch.OutOfMemoryError: CUDA out of memory. Tried to allocate 2.50 GiB. GPU 0 has", "out_of_memory", 2.5),
        ("RuntimeError: CUDA error: out of memory", "out_of_memory", None),
        ("torch.AcceleratorError: CUDA error: CUDA-capable device(s) is/are busy or unavailable", "busy_device", None),
        ("RuntimeError: No CUDA GPUs are available", "no_device", None),
        ("RuntimeError: CUDA error: an illegal memory access was encountered", None, None),
    ],
)
def test_what_the_cuda_runtime_says_has_its_class(line: str, kind: str | None, asked: float | None) -> None:
    failed = device_failure(f"Traceback\n{line}\n  a hint")
    assert (failed.failure.kind if failed else None) == kind
    if failed and asked:
        assert failed.metrics == {"out_of_memory_bytes": asked * 2**30}


def test_a_trial_for_a_gpu_in_a_sandbox_without_one_is_the_machine_s_fault(run: Run) -> None:
    with pytest.raises(SandboxBroken, match="needs an NVIDIA GPU"):
        run(play.table(), preset=replace(play.TINY, device="cuda"))


def test_data_that_do_not_fit_the_preset_are_refused(run: Run) -> None:
    outcome = run(play.table(), preset=replace(play.TINY, vocabulary=1024))
    assert outcome.failure is not None and "prepare them again" in outcome.failure.message
