"""Out of memory: tried once more with half the rows a pass, shown as such; a second failure is final."""

from __future__ import annotations

import pytest

from research.loop.retry import RETRIED, rows_a_pass
from research.models import Experiment, Idea, Thread, Trial, Verdict
from tests.cast import World, constants, focus, go, step

pytestmark = pytest.mark.django_db
START = {"train.py": b"DEVICE_ROWS = 8  # rows of one pass\n", "model.py": b"DELTA = 1.0\nDEVICE_ROWSY = 4\n"}


@pytest.fixture
def small(thread: Thread, world: World) -> World:
    """A start that takes eight rows at once; ALPHA fits only with four, DELTA never."""
    from tests.cast import repository_of

    project = thread.project
    files = repository_of(project).files(project.start_commit)
    files["train.py"] = files["train.py"].replace(b"ALPHA = 1.0", b"DEVICE_ROWS = 8\nALPHA = 1.0")
    commit = repository_of(project).commit_files(files, project.start_commit, "Rows", project.created)
    repository_of(project).keep("refs/heads/main", commit)
    thread.project.move_champion(project.start_commit, commit)
    thread.advance_head(thread.head, commit)

    def failure(trial: Trial) -> str:
        found = constants(trial.project, trial.commit)
        too_large = found["DELTA"] != 1 or (found["ALPHA"] != 1 and rows(trial.commit) > 4)
        return "out_of_memory" if too_large else ""

    def rows(commit: str) -> int:
        found = rows_a_pass(repository_of(project).files(commit))
        return found[2] if found else 0

    world.failure = failure
    return world


def retried() -> list[Idea]:
    return [idea for idea in Idea.objects.order_by("pk") if RETRIED in idea.tags]


def test_the_constant_is_found_in_whatever_file_it_stands() -> None:
    assert rows_a_pass(dict(START)) == ("train.py", "DEVICE_ROWS", 8)
    assert rows_a_pass({"train.py": b"DEVICE_BATCH = 1\n"}) is None
    assert rows_a_pass({"train.py": b"ROWS = 8\n", "notes.txt": b"DEVICE_ROWS = 8"}) is None


def test_it_fits_with_half_the_rows_and_is_judged_as_any_other(small: World, thread: Thread) -> None:
    thread.refresh_from_db()
    focus(thread, "alpha")
    first = small.until_verdict(thread)
    assert first.kind == "invalid" and "out_of_memory" in first.reason
    assert [step(thread), step(thread)] == ["learn", "retry"]
    (idea,) = retried()
    assert idea.title == "another ALPHA, DEVICE_ROWS 4" and "DEVICE_ROWS 8 became 4" in idea.plan and idea.trusted
    assert idea.candidate.diff.files == [{"path": "train.py", "added": 2, "removed": 2}]
    second = small.until_verdict(thread)
    assert second.kind == "improved" and second.experiment.candidate == idea.candidate
    assert Verdict.objects.get(pk=first.pk).kind == "invalid", "the first one keeps its verdict"


def test_a_second_failure_is_final(small: World, thread: Thread) -> None:
    thread.refresh_from_db()
    focus(thread, "delta")
    assert small.until_verdict(thread).kind == "invalid"
    assert small.until_verdict(thread).kind == "invalid"
    focus(thread, "nothing at all")
    go(thread)
    assert Experiment.objects.filter(candidate__isnull=False).count() == 2
    assert len(retried()) == 1


def test_without_such_a_constant_nothing_is_tried_again(thread: Thread, world: World) -> None:
    world.failure = lambda trial: "out_of_memory" if trial.arm == "candidate" else ""
    focus(thread, "alpha")
    assert world.until_verdict(thread).kind == "invalid"
    focus(thread, "nothing at all")
    go(thread)
    assert retried() == []
