"""Lessons travel between labs as JSON lines: marked, bounded, with no power to refuse, and never twice."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command

from research.loop.memory import held_discards, view_of
from research.loop.recall import lessons_text, recall
from research.models import AuditEntry, Event, Lesson, Project, Thread
from tests.cast import begin

pytestmark = pytest.mark.django_db


def lesson(thread: Thread, text: str, kind: str = "harm", **fields: object) -> Lesson:
    return Lesson.objects.create(
        project=thread.project, thread=thread, kind=kind, text=text, base="0" * 40, tags=["shape"], recipe=["alpha"],
        techniques=[{"technique": "beta", "tunables": {"value": 2.0}}], **{"confidence": 0.9, **fields},
    )  # fmt: skip


@pytest.fixture
def exported(thread: Thread, tmp_path: Path) -> Path:
    assumption = {"preset": "quick", "recipe": [], "techniques": ["beta"]}
    lesson(thread, "Worse: wider waists", effect=-0.02, error=0.004, pairs=6, assumption=assumption)
    lesson(thread, "Rejected by rosa: unreadable", "rejected", confidence=1.0)
    lesson(thread, "It was wrong", retracted=True)
    call_command("lessons", "export", "question", "--out", tmp_path / "lessons.jsonl")
    return tmp_path / "lessons.jsonl"


@pytest.fixture
def elsewhere(exported: Path) -> Project:
    return begin("elsewhere")


def take_in(path: Path, *options: str) -> list[Lesson]:
    call_command("lessons", "import", path, "--project", "elsewhere", *options)
    return list(Lesson.objects.filter(project__name="elsewhere").order_by("pk"))


def test_what_counts_is_exported_and_taken_in_with_scope_and_half_its_confidence(
    exported: Path, elsewhere: Project
) -> None:
    worse, rejected = take_in(exported)
    assert (worse.imported_from, worse.thread, worse.effect, worse.pairs) == ("question", None, -0.02, 6)
    assert (worse.preset, worse.recipe, worse.tags, worse.confidence) == ("quick", ["alpha"], ["shape"], 0.45)
    assert rejected.kind == "rejected" and not rejected.is_dead_end
    assert Event.objects.filter(project=elsewhere, text="2 lessons imported from question").exists()
    assert AuditEntry.objects.get(action="import lessons").who == "console"


def test_what_is_imported_is_read_and_marked_but_neither_refuses_nor_counts_as_measured(
    exported: Path, elsewhere: Project
) -> None:
    take_in(exported)
    Lesson.objects.filter(project__name="question").delete()
    thread = elsewhere.threads.get()
    assert held_discards(elsewhere, thread.head) == [] and view_of(thread, 1).dead_ends == frozenset()
    assert list(view_of(thread, 1).lessons) == []
    assert "imported from question" in lessons_text(recall(elsewhere, "waists", thread.head), elsewhere)


def test_whoever_asks_takes_dead_ends_and_discards_over(exported: Path, elsewhere: Project) -> None:
    take_in(exported, "--binding")
    thread = elsewhere.threads.get()
    assert view_of(thread, 1).dead_ends == {"beta"}
    assert [row.text for row in held_discards(elsewhere, thread.head)] == ["Worse: wider waists"]


def test_importing_again_or_in_a_circle_adds_nothing(exported: Path, elsewhere: Project, tmp_path: Path) -> None:
    take_in(exported)
    assert len(take_in(exported)) == 2
    back = tmp_path / "back.jsonl"
    call_command("lessons", "export", "elsewhere", "--out", back)
    call_command("lessons", "import", back, "--project", "question")
    assert Lesson.objects.filter(project__name="question").count() == 3
    assert Event.objects.filter(text__contains="imported").count() == 1, "nothing new is no news"


@pytest.mark.parametrize(
    ("change", "why"),
    [
        ({"kind": "order"}, "a kind out of"),
        ({"text": "x" * 5_000}, "at most 4000"),
        ({"effect": float("nan")}, "finite"),
        ({"confidence": 3}, "between 0 and 1"),
        ({"techniques": [{"technique": "beta", "tunables": {"value": {}}}]}, "techniques"),
        ({"tags": "shape"}, "tags"),
        ({"assumption": {"preset": 7}}, "assumption"),
        ({"created": "yesterday"}, "moment"),
        ({"benchmark": "kernels"}, "benchmark 'kernels'"),
        ({"format": 2}, "format 2"),
        ({"more": 1}, "just these fields"),
        ({"pairs": True}, "whole number"),
        ({"tags": ["a\0b"]}, "no database"),
        ({"title": "\ud800"}, "no database"),
    ],
)
def test_a_line_that_is_no_lesson_stops_the_whole_file(
    exported: Path, elsewhere: Project, change: dict[str, Any], why: str
) -> None:
    good, other = exported.read_text().splitlines()
    exported.write_text("\n".join([good, json.dumps(json.loads(other) | change)]))
    with pytest.raises(CommandError, match=why) as stopped:
        take_in(exported)
    assert "nothing was imported" in str(stopped.value) and stopped.value.returncode == 2
    assert not Lesson.objects.filter(project=elsewhere).exists()


def test_a_wrong_name_or_place_is_one_clear_line(exported: Path, elsewhere: Project, tmp_path: Path) -> None:
    for arguments in (
        ("export", "nowhere", "--out", tmp_path / "out"),
        ("export", "question", "--out", tmp_path / "no" / "folder"),
        ("import", tmp_path / "missing", "--project", "elsewhere"),
    ):
        with pytest.raises(CommandError) as stopped:
            call_command("lessons", *arguments)
        assert stopped.value.returncode == 2 and "\n" not in str(stopped.value)
    (tmp_path / "binary").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CommandError, match="no UTF-8"):
        take_in(tmp_path / "binary")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["binary", "lessons.jsonl"]
