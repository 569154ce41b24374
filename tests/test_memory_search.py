"""Lessons are found by words: SQLite's index, what keeps it, and the way without it. PostgreSQL: tests/services."""

from __future__ import annotations

import logging

import pytest
from django.db import connection

from research.models import Lesson, Thread
from research.models.lesson_words import INDEX, install, is_installed, ranks, uninstall, words_of

pytestmark = pytest.mark.django_db


def lesson(thread: Thread, text: str, name: str = "beta", **fields: object) -> Lesson:
    return Lesson.objects.create(
        project=thread.project, thread=thread, kind="no_gain", text=text, base="0" * 40,
        techniques=[{"technique": name, "tunables": {}}], **fields,
    )  # fmt: skip


def found(text: str) -> set[str]:
    return set(Lesson.objects.search(text).values_list("text", flat=True))


@pytest.fixture
def three(thread: Thread) -> Thread:
    lesson(thread, "A longer warmup of the learning rate was worse", "warmup_steps", files=["train.py"])
    lesson(thread, "Wider layers cost too many steps", "width", tags=["architecture"])
    lesson(thread, "Nothing came of it", "gelu", title="a smoother activation", about="GELU instead of ReLU")
    return thread


WARMUP = "A longer warmup of the learning rate was worse"
WIDE, GELU = "Wider layers cost too many steps", "Nothing came of it"


def test_words_stems_beginnings_names_files_and_tags_are_found(three: Thread) -> None:
    assert found("learned warmup") == found("warmup_steps") == found("train.py") == {WARMUP}
    assert found("archit") == found("layer") == {WIDE} and found("smooth relu") == {GELU}
    assert found("warmup relu") == set() and found("  ") == {WARMUP, WIDE, GELU}


def test_what_people_type_is_never_syntax(three: Thread) -> None:
    for text in ('"', "warmup OR width", "NEAR(", "*", "text:warmup", "'; DROP TABLE research_lesson; --", "\0"):
        found(text), ranks(text, 5)
    assert found("warmup*") == {WARMUP} and found("warmup AND") == set()


def test_a_question_ranks_by_what_fits_best(three: Thread) -> None:
    by_fit = [Lesson.objects.get(pk=pk).text for pk in ranks("is a warmup of the rate worth its steps", 5)]
    assert by_fit == [WARMUP, WIDE] and ranks("", 5) == ranks("unheard", 5) == {}


def test_a_very_long_question_is_asked_by_its_longest_words() -> None:
    words = words_of("a of in " * 200 + " ".join(f"word{number}" for number in range(40, 64)))
    assert len(words) == 24 and "word42" in words and "of" not in words


def test_the_index_follows_every_change_of_a_row(three: Thread) -> None:
    Lesson.objects.filter(text=WIDE).update(text="Deeper layers")
    assert found("wider") == set() and found("deeper") == {"Deeper layers"}
    Lesson.objects.filter(text="Deeper layers").delete()
    assert found("deeper") == set()


def test_the_index_comes_back_after_a_table_was_rebuilt(three: Thread) -> None:
    """As Django does to alter a table of SQLite: its triggers are gone."""
    with connection.cursor() as cursor:
        for name in ("added", "gone", "changed"):
            cursor.execute(f"DROP TRIGGER {INDEX}_{name}")
    lesson(three, "Written meanwhile")
    assert found("meanwhile") == set()
    install()
    assert found("meanwhile") == {"Written meanwhile"} and found("warmup") == {WARMUP}


def test_without_the_index_like_finds_the_same_and_that_is_said_once(
    three: Thread, caplog: pytest.LogCaptureFixture
) -> None:
    uninstall()
    with caplog.at_level(logging.WARNING, "lab.memory"):
        assert not is_installed() and found("warmup rate") == {WARMUP} and found("train.py") == {WARMUP}
        assert [Lesson.objects.get(pk=pk).text for pk in ranks("warmup of the rate", 5)][0] == WARMUP
    assert len([record for record in caplog.records if "LIKE" in record.message]) == 1
