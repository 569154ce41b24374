"""The only caller of git, on real repositories."""

from __future__ import annotations

import io
import os
import subprocess
import tarfile
from datetime import UTC, datetime
from pathlib import Path

import pytest

from research.repository import MAIN, Conflict, GitError, Repository

WHEN = datetime(2026, 8, 1, 12, 0, tzinfo=UTC)
NUMBERS = "".join(f"line {number}\n" for number in range(20)).encode()
START = {"train.py": b"A = 1\n" + NUMBERS + b"B = 1\n", "sub/model.py": b"C = 1\n", "benchmark.toml": b"x = 1\n"}


@pytest.fixture
def repository(tmp_path: Path) -> Repository:
    return Repository.create(tmp_path / "repositories" / "one.git", START, "Start", WHEN)


def child(repository: Repository, changes: dict[str, bytes], parent: str | None = None) -> str:
    base = parent or repository.root_commit()
    return repository.commit_files(repository.files(base) | changes, base, "Change", WHEN)


def test_creating_twice_gives_the_same_repository(repository: Repository) -> None:
    root = repository.resolve(MAIN)
    again = Repository.create(repository.path, {"other.py": b""}, "Other", WHEN)
    assert again.resolve(MAIN) == root == again.root_commit()


def test_a_half_made_repository_is_replaced(tmp_path: Path, repository: Repository) -> None:
    path = tmp_path / "repositories" / "two.git"
    subprocess.run(["git", "init", "--quiet", "--bare", path], check=True)  # no commit yet
    partial = path.with_suffix(".partial")
    partial.mkdir()
    (partial / "HEAD").write_text("half")
    made = Repository.create(path, START, "Start", WHEN)
    assert made.root_commit() == repository.root_commit(), "the same start is the same commit everywhere"
    assert not partial.exists()


def test_same_content_parent_and_date_are_the_same_commit(repository: Repository) -> None:
    first, second = (child(repository, {"train.py": b"A = 2\n"}) for _ in range(2))
    assert first == second
    assert child(repository, {"train.py": b"A = 3\n"}) != first
    assert repository.tree_of(first) != repository.tree_of(repository.root_commit())


def test_files_and_archive_give_back_what_was_committed(repository: Repository) -> None:
    odd = {"a b/ü.py": b"x = '\xc3\xbc'\r\n", "empty.py": b"", "blob.bin": bytes(range(256))}
    commit = child(repository, odd)
    assert repository.files(commit) == START | odd
    with tarfile.open(fileobj=io.BytesIO(repository.archive(commit))) as tar:
        unpacked = {member.name: tar.extractfile(member).read() for member in tar if member.isfile()}  # type: ignore[union-attr]
    assert unpacked == START | odd


def test_a_file_that_is_left_out_is_gone(repository: Repository) -> None:
    root = repository.root_commit()
    commit = repository.commit_files({"train.py": b""}, None, "Only one", WHEN)
    assert list(repository.files(commit)) == ["train.py"] and root != commit


def test_a_diff_is_parsed(repository: Repository) -> None:
    changes = {
        "train.py": START["train.py"].replace(b"A = 1\n", b"A = 2\nAA = 3\n"),
        "new file ü.py": b"one\ntwo\n",
        "empty.py": b"",
        "benchmark.toml": b"\0\1",
    }
    change = repository.diff(repository.root_commit(), child(repository, changes))
    assert {str(file["path"]): (file["added"], file["removed"]) for file in change.files} == {
        "train.py": (2, 1), "new file ü.py": (2, 0), "empty.py": (0, 0), "benchmark.toml": (0, 0)
    }  # fmt: skip
    assert (change.added, change.removed) == (4, 1)
    assert "-A = 1\n+A = 2\n+AA = 3\n" in change.patch
    assert repository.diff(repository.root_commit(), repository.root_commit()).files == []


def test_a_diff_can_be_of_some_paths_alone(repository: Repository) -> None:
    commit = child(repository, {"train.py": b"A = 2\n", "sub/model.py": b"C = 2\n"})
    change = repository.diff(repository.root_commit(), commit, "sub")
    assert change.paths == ["sub/model.py"] and "A = 2" not in change.patch


def test_lines_that_look_like_a_diff_do_not_confuse_it(repository: Repository) -> None:
    text = b"-- a/x\n++ b/x\n--- a/x\n+++ b/x\n@@ -1 +1 @@\n"
    change = repository.diff(repository.root_commit(), child(repository, {"train.py": text + START["train.py"]}))
    assert change.paths == ["train.py"] and change.added == 5


def test_only_plain_files_are_committed(repository: Repository, tmp_path: Path) -> None:
    root = repository.root_commit()
    with repository.worktree(root) as folder:
        (folder / "link.py").symlink_to("/etc/passwd")
        with pytest.raises(GitError, match="only plain files can be committed, not link.py"):
            repository.commit_worktree(folder, root, "Link", WHEN)
    with repository.worktree(root) as folder:
        subprocess.run(["git", "init", "--quiet", folder / "inner"], check=True)
        (folder / "inner" / "file").write_text("x")
        env = {**os.environ, "GIT_AUTHOR_NAME": "x", "GIT_AUTHOR_EMAIL": "x", "GIT_COMMITTER_NAME": "x",
               "GIT_COMMITTER_EMAIL": "x"}  # fmt: skip
        subprocess.run(["git", "-C", folder / "inner", "add", "."], check=True)
        subprocess.run(["git", "-C", folder / "inner", "commit", "--quiet", "-m", "x"], check=True, env=env)
        with pytest.raises(GitError, match="not inner"):
            repository.commit_worktree(folder, root, "Submodule", WHEN)


@pytest.mark.parametrize("path", ["../evil.py", "sub/../../evil.py", "/tmp/evil-of-the-lab.py"])
def test_a_path_that_leads_out_of_the_tree_is_refused(repository: Repository, tmp_path: Path, path: str) -> None:
    with pytest.raises(GitError, match="leads out of the tree"):
        child(repository, {path: b"evil"})
    assert not list(tmp_path.rglob("evil*")) and not Path("/tmp/evil-of-the-lab.py").exists()


def test_worktrees_are_gone_whatever_happens(repository: Repository, tmp_path: Path) -> None:
    with pytest.raises(ZeroDivisionError), repository.worktree(repository.root_commit()) as folder:
        assert (folder / "sub" / "model.py").read_bytes() == b"C = 1\n"
        raise ZeroDivisionError
    assert list((tmp_path / "worktrees").iterdir()) == []


def test_a_three_way_merge_has_both_changes_and_both_parents(repository: Repository) -> None:
    ours = child(repository, {"train.py": START["train.py"].replace(b"A = 1", b"A = 2")})
    theirs = child(repository, {"train.py": START["train.py"].replace(b"B = 1", b"B = 2"), "new.py": b"D = 1\n"})
    merged = repository.merge(ours, theirs, "Merge", WHEN)
    files = repository.files(merged)
    assert b"A = 2\n" in files["train.py"] and b"B = 2\n" in files["train.py"] and "new.py" in files
    assert repository.git("show", "-s", "--format=%P", merged).split() == [ours, theirs]
    assert merged == repository.merge(ours, theirs, "Merge", WHEN)
    assert repository.is_ancestor(ours, merged) and not repository.is_ancestor(merged, ours)


def test_a_conflict_names_its_files_and_no_others(repository: Repository) -> None:
    ours = child(repository, {
        "train.py": b"A = 2\n" + NUMBERS, "sub/model.py": b"C = 2\n", "new one.py": b"1\n", "mine.py": b"\n",
        "benchmark.toml": b"x = 2\n",
    })  # fmt: skip
    theirs = child(repository, {
        "train.py": b"A = 3\n" + NUMBERS, "sub/model.py": b"C = 3\n", "new one.py": b"2\n", "yours.py": b"\n",
        "benchmark.toml": b"x = 2\n",
    })  # fmt: skip
    with pytest.raises(Conflict) as conflict:
        repository.merge(ours, theirs, "Merge", WHEN)
    assert conflict.value.files == ["new one.py", "sub/model.py", "train.py"]
    assert conflict.value.lines == [
        "new one.py, line 1", "< 1", "> 2",
        "sub/model.py, line 1", "< C = 2", "> C = 3",
        "train.py, line 1", "< A = 2", "> A = 3",
    ]  # fmt: skip


def test_a_change_against_a_removal_is_a_conflict(repository: Repository) -> None:
    root = repository.root_commit()
    kept = {path: content for path, content in START.items() if path != "train.py"}
    with repository.worktree(root) as folder:
        (folder / "train.py").unlink()
        removed = repository.commit_worktree(folder, root, "Remove", WHEN)
    assert repository.files(removed) == kept
    changed = child(repository, {"train.py": b"A = 9\n"})
    with pytest.raises(Conflict) as conflict:
        repository.merge(removed, changed, "Merge", WHEN)
    assert conflict.value.files == ["train.py"]
    assert conflict.value.lines == ["train.py: changed on one side, removed on the other"]


def test_what_was_done_on_one_commit_is_done_on_another_or_undone(repository: Repository) -> None:
    root = repository.root_commit()
    first = child(repository, {"train.py": b"A = 2\n" + NUMBERS})
    both = repository.commit_files(repository.files(first) | {"sub/model.py": b"C = 2\n"}, first, "Both", WHEN)
    moved = repository.rebase(first, both, root, "Move", WHEN)
    assert repository.files(moved) == repository.files(root) | {"sub/model.py": b"C = 2\n"}
    assert moved == repository.rebase(first, both, root, "Move", WHEN), "again is the same commit"
    undone = repository.rebase(first, root, both, "Undo", WHEN)
    assert repository.files(undone) == repository.files(moved)
    assert repository.resolve(f"{undone}^") == both
    other = repository.commit_files(repository.files(both) | {"train.py": b"A = 3\n" + NUMBERS}, both, "Other", WHEN)
    with pytest.raises(Conflict) as conflict:
        repository.rebase(first, root, other, "Undo", WHEN)
    assert conflict.value.lines == ["train.py, line 1", "< A = 3", "> A = 1"]


def test_merging_an_unknown_commit_is_an_error_of_git(repository: Repository) -> None:
    with pytest.raises(GitError):
        repository.merge(repository.root_commit(), "0" * 40, "Merge", WHEN)


def test_a_ref_moves_only_from_where_it_was_seen(repository: Repository) -> None:
    root = repository.root_commit()
    first, second = child(repository, {"train.py": b"1\n"}), child(repository, {"train.py": b"2\n"})
    assert repository.move(MAIN, root, first)
    assert repository.move(MAIN, root, first), "it stands there already"
    assert not repository.move(MAIN, root, second)
    assert repository.resolve(MAIN) == first
    assert repository.resolve("refs/heads/unknown") is None


def test_git_sees_no_configuration_of_the_user(
    repository: Repository, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    expected = child(repository, {"train.py": b"A = 2\r\n"})
    patch = repository.diff(repository.root_commit(), expected).patch
    home = tmp_path / "home"
    home.mkdir()
    (home / "ignore").write_text("*.py\n")
    (home / ".gitconfig").write_text(
        "[user]\nname = Somebody\n[core]\nautocrlf = input\nexcludesFile = ~/ignore\n[commit]\ngpgSign = true\n"
        "[diff]\nnoprefix = true\nexternal = /bin/false\n[color]\nui = always\n"
    )
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("GIT_AUTHOR_NAME", "Somebody")
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("GIT_CONFIG_COUNT", "1")
    monkeypatch.setenv("GIT_CONFIG_KEY_0", "core.autocrlf")
    monkeypatch.setenv("GIT_CONFIG_VALUE_0", "input")
    assert child(repository, {"train.py": b"A = 2\r\n"}) == expected
    assert repository.diff(repository.root_commit(), expected).patch == patch


def test_missing_git_is_one_clear_line(repository: Repository, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "")
    with pytest.raises(GitError, match="git is not installed"):
        repository.git("status")
