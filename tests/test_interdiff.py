"""What a change itself became between two patch sets, in real git: what main brought is left out."""

from __future__ import annotations

from datetime import UTC, datetime
from pathlib import Path

import pytest
from django.utils.html import strip_tags

from research.repository import Repository
from research.views.interdiff import Change, Interdiff, interdiff

WHEN = datetime(2026, 1, 1, tzinfo=UTC)
START = "".join(f"line {number}\n" for number in range(1, 31))


class Play:
    """A repository in which commits are made of whole texts of one or two files."""

    def __init__(self, path: Path) -> None:
        self.repository = Repository.create(path / "repo.git", {"a.py": START.encode()}, "start", WHEN)
        self.start = self.repository.root_commit()

    def commit(self, parent: str, **texts: str) -> str:
        files = self.repository.files(parent) | {f"{name}.py": text.encode() for name, text in texts.items()}
        return self.repository.commit_files(files, parent, "change", WHEN)

    def change(self, base: str, head: str) -> Change:
        return Change(base, head, self.repository.diff(base, head).patch)

    def between(self, old: Change, new: Change) -> Interdiff:
        return interdiff(self.repository.path, old, new)


@pytest.fixture
def play(tmp_path: Path) -> Play:
    return Play(tmp_path / "data")


def changed(result: Interdiff) -> list[str]:
    return [line for file in result.files for line in file.text.split("\n") if line[:1] in "+-" and line]


def test_a_change_that_was_only_rebased_is_no_interdiff(play: Play) -> None:
    old = play.change(play.start, play.commit(play.start, a=START.replace("line 3\n", "mine\n")))
    main = play.commit(play.start, a=START.replace("line 28", "theirs"), b="new\n")
    again = play.commit(main, a=START.replace("line 28", "theirs").replace("line 3\n", "mine\n"))
    result = play.between(old, play.change(main, again))
    assert result.files == () and not result.why


def test_only_what_the_change_became_is_shown(play: Play) -> None:
    old = play.change(play.start, play.commit(play.start, a=START.replace("line 3\n", "mine\n")))
    main = play.commit(play.start, a=START.replace("line 28", "theirs"))
    again = play.commit(main, a=START.replace("line 28", "theirs").replace("line 3\n", "mine, smaller\n"), c="c\n")
    result = play.between(old, play.change(main, again))
    assert changed(result) == ["-mine", "+mine, smaller", "+c"]
    assert [(file.number, file.path, file.change) for file in result.files] == [
        (0, "a.py", "changed"),
        (1, "c.py", "new"),
    ]
    assert (result.added, result.removed) == (2, 1)


def test_on_the_same_base_it_is_the_difference_of_the_commits(play: Play) -> None:
    first = play.commit(play.start, a=START.replace("line 3\n", "mine\n"))
    second = play.commit(play.start, a=START.replace("line 4\n", "mine\n"))
    result = play.between(play.change(play.start, first), play.change(play.start, second))
    assert changed(result) == ["+line 3", "-line 4"]


def test_where_main_changed_the_same_lines_the_patches_are_compared(play: Play) -> None:
    mine = START.replace("line 3\n", "mine\n")
    old = play.change(play.start, play.commit(play.start, a=mine, b="same\n"))
    main = play.commit(play.start, a=START.replace("line 3\n", "theirs\n"))
    again = play.commit(main, a=START.replace("line 3\n", "both\n"), b="same\n")
    result = play.between(old, play.change(main, again))
    assert "main changed the same lines of a.py" in result.why and result.patches == {"a.py"}
    (file,) = result.files
    assert changed(result) == ["--line 3", "-+mine", "+-theirs", "++both"]
    assert not file.coloured and "+mine" in [strip_tags(row.code) for row in file.hunks[0].rows]


def test_a_commit_that_git_lost_is_compared_by_its_stored_patch(play: Play) -> None:
    head = play.commit(play.start, a=START.replace("line 3\n", "mine\n"))
    patch = play.repository.diff(play.start, head).patch
    lost = Change("0" * 40, "1" * 40, patch)
    result = play.between(lost, play.change(play.start, head))
    assert result.files == () and "the two patches are compared" in result.why


def test_comparing_moves_no_ref(play: Play) -> None:
    old = play.change(play.start, play.commit(play.start, a=START.replace("line 3\n", "mine\n")))
    main = play.commit(play.start, a=START.replace("line 28", "theirs"))
    before = play.repository.git("for-each-ref")
    assert play.repository.rebased_tree(old.base, old.head, main) == play.repository.rebased_tree(
        old.base, old.head, main
    )
    assert play.repository.git("for-each-ref") == before
