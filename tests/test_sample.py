"""What a trained model writes: drawn by the judge after the score, within bounds, as plain text."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from benchmarks.contract import Assignment, Outcome, load
from benchmarks.nanochat import evaluate, judge
from benchmarks.nanochat.judge import readable
from benchmarks.tar import pack
from research.models import Project, Result
from runners.lab import Lab
from runners.sandbox import Sandbox
from tests import candidates
from tests.cast import World, focus, go

TINY = replace(load("nanochat").preset("smoke"), budget_seconds=0.8, score_rows=64, wall_cap_seconds=10.0)


@pytest.fixture
def run(box: Sandbox, evaluator: evaluate.Evaluator, prepared_text: Path) -> Callable[..., Outcome]:
    def go(files: candidates.Files, wants_sample: bool = True) -> Outcome:
        tree = pack({name: text.encode() for name, text in files.items()})
        task = Assignment("nanochat", TINY, "", tree, 1, "val_screen", prepared_text, wants_sample=wants_sample)
        return evaluator.run(task, box, lambda name, steps, values: None)

    return go


@pytest.mark.torch
def test_a_trained_model_writes_a_little(run: Callable[..., Outcome]) -> None:
    outcome = run(candidates.honest())
    assert outcome.failure is None, outcome.failure
    assert outcome.sample.startswith("It was a ") and 80 < len(outcome.sample) <= 169
    assert outcome.seconds["sample_wall"] < judge.SAMPLE_SECONDS
    assert outcome.score and outcome.score < 8 and not outcome.observations


@pytest.mark.torch
def test_nothing_is_written_where_nobody_asked(run: Callable[..., Outcome]) -> None:
    outcome = run(candidates.honest(), wants_sample=False)
    assert outcome.failure is None and outcome.sample == "" and "sample_wall" not in outcome.seconds


@pytest.mark.torch
@pytest.mark.parametrize(
    "trick", ["__import__('time').sleep(60)", "raise SystemExit", "scores = scores + float('nan')"]
)
def test_a_model_that_cannot_write_keeps_its_score(run: Callable[..., Outcome], trick: str) -> None:
    """It behaves until it is asked to go on from the prompt."""
    begins = f"bytes(tokens[0, : {len(judge.PROMPT)}].tolist()) == {judge.PROMPT!r}"
    lines = f"if len(tokens) == 1 and {begins}:\n    {trick}"
    files = candidates.honest()
    model = candidates.before(files["model.py"], "return scores", lines, "Transformer.forward")
    outcome = run(files | {"model.py": model})
    assert outcome.failure is None, outcome.failure
    assert outcome.score is not None and outcome.sample == ""
    assert outcome.seconds["sample_wall"] < judge.SAMPLE_SECONDS + 0.5


def test_what_is_written_holds_no_control_characters() -> None:
    assert readable(b"a\x00\x1b[31mb\x07\r\nc\x7f\xc2\x9b") == "a[31mb\nc"
    assert readable("\u202eevil\u200b \u00e9".encode()) == "evil \u00e9"
    assert readable(b"cut \xe2\x82") == "cut \ufffd"
    assert readable(np.arange(256, dtype=np.uint8).tobytes()).isprintable() is False  # its line break stays
    assert all(letter == "\n" or letter.isprintable() for letter in readable(bytes(range(256))))


@pytest.mark.django_db
def test_only_the_first_scored_trial_of_a_commit_is_asked_to_write(
    toy: None, world: World, project: Project, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("runners.lab.close_old_connections", lambda: None)  # it would end the test's transaction
    thread = project.threads.get()
    focus(thread, "alpha")
    go(thread)
    lab = Lab("quick", world.machine.machine_class, 2, {})
    first = lab.claim()
    assert [work.task.wants_sample for work in first] == [True, True]
    for work in first:
        assert lab.finish(work, Outcome(score=1.0, sample="It was a test"))
    assert set(Result.objects.values_list("sample", flat=True)) == {"It was a test"}
    thread.experiments.get().plan("extend", 1)
    assert [work.task.wants_sample for work in lab.claim()] == [False, False]
