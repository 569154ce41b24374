"""Git: a bare repository a project, a branch a thread, a worktree a candidate. The only caller of git in the lab.

Every operation is safe to repeat: commits carry the date of the row they belong to, so the same content on the same
parent is the same hash; refs move by compare and swap; worktrees are thrown away and never trusted.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from unidiff.patch import PatchSet

MAIN = "refs/heads/main"
CONFLICT_LINES = 60  # of a conflict that are kept
AUTHOR = {"GIT_AUTHOR_NAME": "Recursive Lab", "GIT_AUTHOR_EMAIL": "lab@localhost"}
COMMITTER = {"GIT_COMMITTER_NAME": "Recursive Lab", "GIT_COMMITTER_EMAIL": "lab@localhost"}


class GitError(RuntimeError):
    """Git refused; the text is its own first line."""


class Conflict(Exception):
    """A three-way merge that does not come out clean. `files` names the paths, `lines` what stands against what."""

    def __init__(self, files: list[str], lines: list[str] | None = None) -> None:
        super().__init__(f"conflict in {', '.join(files)}")
        self.files = files
        self.lines = lines or []


@dataclass(frozen=True)
class Change:
    """A parsed diff between two commits."""

    patch: str
    files: list[dict[str, object]]  # path, added, removed
    added: int
    removed: int

    @property
    def paths(self) -> list[str]:
        return [str(file["path"]) for file in self.files]


class Repository:
    def __init__(self, path: Path) -> None:
        self.path = path

    @classmethod
    def create(cls, path: Path, files: Mapping[str, bytes], message: str, when: datetime) -> Repository:
        """Make the bare repository of a project with one commit on `main`. An unfinished earlier try is replaced."""
        repository = cls(path)
        if (path / "HEAD").exists() and repository.resolve(MAIN):
            return repository
        partial = path.with_suffix(".partial")
        shutil.rmtree(partial, ignore_errors=True)
        partial.parent.mkdir(parents=True, exist_ok=True)
        _git(["init", "--quiet", "--bare", "--template=", "--initial-branch=main", str(partial)])
        fresh = cls(partial)
        commit = fresh.commit_files(files, parent=None, message=message, when=when)
        fresh.git("update-ref", MAIN, commit)
        shutil.rmtree(path, ignore_errors=True)
        partial.rename(path)
        return repository

    def git(self, *args: str, **options: object) -> str:
        return _git(["--git-dir", str(self.path), *args], **options)  # type: ignore[arg-type]

    def resolve(self, name: str) -> str | None:
        """The commit a ref or abbreviation stands for, or None."""
        try:
            return self.git("rev-parse", "--verify", "--quiet", f"{name}^{{commit}}").strip()
        except GitError:
            return None

    def refs(self, *names: str) -> dict[str, str]:
        """Full name -> commit, of those refs that are there."""
        rows = self.git("for-each-ref", "--format=%(refname) %(objectname)", *names).splitlines()
        return {name: commit for name, _, commit in (row.partition(" ") for row in rows) if name in names}

    def root_commit(self) -> str:
        """The first commit of `main`: the project's start."""
        return self.git("rev-list", "--max-parents=0", MAIN).split()[-1]

    def tree_of(self, commit: str) -> str:
        return self.git("rev-parse", "--verify", f"{commit}^{{tree}}").strip()

    def entries(self, commit: str) -> dict[str, str]:
        """What lies at the top of a commit's tree: name -> git's hash of the file or of all in the folder."""
        listing = self.git("ls-tree", "-z", commit)
        rows = [line.split("\t", 1) for line in listing.split("\0") if line]
        return {name: about.split()[2] for about, name in rows}

    def files(self, commit: str) -> dict[str, bytes]:
        """All files of a commit: path -> content."""
        listing = self.git("ls-tree", "-r", "-z", commit)  # with --format git 2.39 quotes paths even under -z
        entries = [line.split("\t", 1) for line in listing.split("\0") if line]
        wanted = "".join(f"{about.split()[2]}\n" for about, _ in entries).encode()
        raw = _run(["git", "--git-dir", str(self.path), "cat-file", "--batch"], wanted)
        found, at = {}, 0
        for _, path in entries:
            end = raw.index(b"\n", at)
            size = int(raw[at:end].split()[2])
            found[path] = raw[end + 1 : end + 1 + size]
            at = end + 1 + size + 1
        return found

    def archive(self, commit: str) -> bytes:
        """The commit's files as an uncompressed tar: what a machine gets."""
        return _run(["git", "--git-dir", str(self.path), "archive", "--format=tar", commit])

    def bundle(self) -> bytes:
        """All refs and what they stand on, as one file."""
        return _run(["git", "--git-dir", str(self.path), "bundle", "create", "--quiet", "-", "--all"])

    @classmethod
    def from_bundle(cls, path: Path, bundle: bytes) -> Repository:
        """A new bare repository with every ref of a bundle; each object is checked. Raises GitError."""
        path.parent.mkdir(parents=True, exist_ok=True)
        shutil.rmtree(path, ignore_errors=True)
        _git(["init", "--quiet", "--bare", "--template=", "--initial-branch=main", str(path)])
        with tempfile.NamedTemporaryFile(suffix=".bundle") as file:
            file.write(bundle)
            file.flush()
            fetch = ["-c", "fetch.fsckObjects=true", "fetch", "--quiet", "--no-tags", "--no-write-fetch-head"]
            _git(["--git-dir", str(path), *fetch, file.name, "refs/*:refs/*"])
        return cls(path)

    def commit_files(self, files: Mapping[str, bytes], parent: str | None, message: str, when: datetime) -> str:
        """Commit exactly `files` on `parent`, from a throw-away worktree. The caller moves a ref to it."""
        with self.worktree(parent) as folder:
            for found in [place for place in folder.rglob("*") if place.is_file()]:
                if found.relative_to(folder).as_posix() not in files and found.name != ".git-index":
                    found.unlink()
            for path, content in files.items():
                target = folder / path
                if not target.resolve().is_relative_to(folder.resolve()):
                    raise GitError(f"{path!r} leads out of the tree")
                target.parent.mkdir(parents=True, exist_ok=True)
                target.write_bytes(content)
            return self.commit_worktree(folder, parent, message, when)

    def patched(self, commit: str, patch: bytes) -> dict[str, bytes | None]:
        """What a unified diff makes of a commit's files: path -> new content, None for a file that goes.

        Raises GitError where it does not apply, or makes anything but plain files.
        """
        before = self.files(commit)
        with self.worktree(commit) as folder:
            place = ["--git-dir", str(self.path), "--work-tree", str(folder)]
            _git([*place, "apply", "--whitespace=nowarn", "-"], stdin=patch, cwd=folder)
            after = {}
            for found in folder.rglob("*"):
                if found.is_symlink():
                    raise GitError(f"{found.relative_to(folder).as_posix()} is a symbolic link; send plain files")
                if found.is_file() and found.name != ".git-index":
                    after[found.relative_to(folder).as_posix()] = found.read_bytes()
        changed: dict[str, bytes | None] = {path: text for path, text in after.items() if before.get(path) != text}
        return changed | dict.fromkeys(before.keys() - after.keys())

    def commit_worktree(self, folder: Path, parent: str | None, message: str, when: datetime) -> str:
        """Commit all that stands in a worktree of this repository; symbolic links and submodules are refused."""
        index = {"GIT_INDEX_FILE": str(folder / ".git-index")}
        place = ["--git-dir", str(self.path), "--work-tree", str(folder)]
        excluded = [":/", ":!.git-index", ":!.git-index.lock"]
        _git([*place, "add", "--all", "--force", "--", *excluded], env=index, cwd=folder)
        modes = _git([*place, "ls-files", "--stage"], env=index, cwd=folder)
        if odd := [line.split("\t", 1)[1] for line in modes.splitlines() if not line.startswith("100")]:
            raise GitError(f"only plain files can be committed, not {', '.join(odd)}")
        tree = _git([*place, "write-tree"], env=index, cwd=folder).strip()
        return self._commit_tree(tree, [parent] if parent else [], message, when)

    @contextmanager
    def worktree(self, commit: str | None) -> Iterator[Path]:
        """A folder with the commit's files (empty for None), gone afterwards whatever happens."""
        root = self.path.parent.parent / "worktrees"
        root.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root) as name:
            folder = Path(name)
            if commit is not None:
                index = {"GIT_INDEX_FILE": str(folder / ".git-index")}
                place = ["--git-dir", str(self.path), "--work-tree", name]
                _git([*place, "read-tree", commit], env=index, cwd=folder)
                _git([*place, "checkout-index", "--all", "--force"], env=index, cwd=folder)
            yield folder

    def _commit_tree(self, tree: str, parents: list[str], message: str, when: datetime) -> str:
        stamp = f"{int(when.timestamp())} +0000"
        dates = {"GIT_AUTHOR_DATE": stamp, "GIT_COMMITTER_DATE": stamp}
        flags = [flag for parent in parents for flag in ("-p", parent)]
        return self.git("commit-tree", tree, *flags, "-F", "-", env=dates, stdin=message.encode()).strip()

    def keep(self, ref: str, commit: str) -> None:
        self.git("update-ref", ref, commit)

    def move(self, ref: str, old: str, new: str) -> bool:
        """Compare and swap of a ref. True where it stands on `new` afterwards."""
        try:
            self.git("update-ref", ref, new, old)
        except GitError:
            return self.resolve(ref) == new
        return True

    def is_ancestor(self, old: str, new: str) -> bool:
        try:
            self.git("merge-base", "--is-ancestor", old, new)
        except GitError:
            return False
        return True

    def since(self, old: str, new: str) -> list[str]:
        """The commits that `new` stands on and `old` does not, itself among them; through merges too."""
        return self.git("rev-list", new, f"^{old}").split()

    def diff(self, base: str, head: str, *paths: str) -> Change:
        """What changed between two commits; below these paths alone, where some are named."""
        plain = ("-c", "core.quotePath=false", "diff", "--no-color", "--no-ext-diff", "--no-renames", "--full-index")
        patch = self.git(*plain, base, head, "--", *paths)
        parsed = PatchSet(patch)
        files: list[dict[str, object]] = [
            {"path": file.path, "added": file.added, "removed": file.removed} for file in parsed
        ]
        return Change(patch, files, parsed.added, parsed.removed)

    def merge(self, ours: str, theirs: str, message: str, when: datetime) -> str:
        """Three-way merge without a worktree; the new commit has both parents. Raises Conflict."""
        return self._commit_tree(self.merged_tree(ours, theirs), [ours, theirs], message, when)

    def merged_tree(self, ours: str, theirs: str) -> str:
        """The tree that a three-way merge gives; no commit is made and no ref moves. Raises Conflict."""
        tree, conflicts = self._merge_tree(ours, theirs)
        if conflicts:
            raise Conflict(conflicts, self._conflicting_lines(tree, conflicts))
        return tree

    def rebased_tree(self, base: str, head: str, onto: str) -> tuple[str, list[str]]:
        """What `head` did to `base`, done to `onto`: the tree, and the files in which that conflicts.

        The three-way merge is told its base by two loose commits with `base` as their parent; no ref moves.
        """
        when = datetime(2000, 1, 1, tzinfo=UTC)  # the same each time: the same two commits
        ours, theirs = (self._commit_tree(self.tree_of(commit), [base], "rebase", when) for commit in (onto, head))
        return self._merge_tree(ours, theirs)

    def rebase(self, base: str, head: str, onto: str, message: str, when: datetime) -> str:
        """A commit on `onto` of what `head` did to `base`; with the two swapped it undoes that. Raises Conflict."""
        tree, conflicts = self.rebased_tree(base, head, onto)
        if conflicts:
            raise Conflict(conflicts, self._conflicting_lines(tree, conflicts))
        return self._commit_tree(tree, [onto], message, when)

    def _conflicting_lines(self, tree: str, files: list[str]) -> list[str]:
        """Each place of a conflict: path and line, then the lines of ours (<) and of theirs (>)."""
        found: list[str] = []
        for path in files:
            side, place, before = "", 0, len(found)  # the line in ours
            for line in self._text(tree, path).splitlines():
                if line.startswith("<<<<<<< "):
                    found.append(f"{path}, line {place + 1}")
                    side = "<"
                elif side and line == "=======":
                    side = ">"
                elif side and line.startswith(">>>>>>> "):
                    side = ""
                else:
                    place += side != ">"
                    found += [f"{side} {line}"] if side else []
            if len(found) == before:
                found.append(f"{path}: changed on one side, removed on the other")
        return found[:CONFLICT_LINES]

    def _text(self, tree: str, path: str) -> str:
        """A file of a tree; empty where it is not there."""
        try:
            return self.git("cat-file", "blob", f"{tree}:{path}")
        except GitError:
            return ""

    def _merge_tree(self, ours: str, theirs: str) -> tuple[str, list[str]]:
        options = ["--write-tree", "--name-only", "-z"]
        command = ["git", "--git-dir", str(self.path), "merge-tree", *options, ours, theirs]
        done = subprocess.run(command, capture_output=True, env=_environment({}), check=False, timeout=60)
        parts = done.stdout.decode("utf-8", errors="surrogateescape").split("\0")
        if done.returncode == 1 and "" in parts[1:]:  # git also says 1 for a commit it does not know
            return parts[0].strip(), sorted({part for part in parts[1 : parts.index("", 1)] if part})
        if done.returncode != 0:
            raise GitError(done.stderr.decode(errors="replace").strip() or "git merge-tree failed")
        return parts[0].strip(), []


@dataclass(frozen=True)
class Blob:
    """A file of a commit elsewhere: its mode, kind and size, before anything of it is read."""

    mode: str
    kind: str
    name: str
    size: int


class Foreign:
    """A repository of somebody else, only looked at: no checkout, no hooks, no fetch, none of its remotes is asked.

    Its own configuration is read by git, so all that could run a program or reach a network by it is switched off.
    """

    SAFE = {
        "GIT_NO_LAZY_FETCH": "1",
        "GIT_ALLOW_PROTOCOL": "none",
        "GIT_OPTIONAL_LOCKS": "0",
        "GIT_NO_REPLACE_OBJECTS": "1",
    }
    FIXED = ("-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "protocol.allow=never")

    def __init__(self, path: Path) -> None:
        folder = path / ".git"
        self.path = folder if folder.is_dir() and not folder.is_symlink() else path
        if not (self.path / "HEAD").is_file() or not (self.path / "objects").is_dir():
            raise GitError(f"{path} is no git repository")

    def commits(self, branch: str, most: int) -> list[str]:
        """The newest `most` commits of a branch, newest first."""
        name = branch or "HEAD"
        if name.startswith("-") or ".." in name:
            raise GitError(f"{name!r} is no branch")
        return self._git("rev-list", f"--max-count={most}", "--end-of-options", name, "--").split()

    def files(self, commit: str) -> dict[str, Blob]:
        """What lies in a commit, unread."""
        found = {}
        for line in self._git("ls-tree", "-r", "-l", "-z", commit).split("\0"):
            about, _, path = line.partition("\t")
            if path:
                mode, kind, name, size = about.split()
                found[path] = Blob(mode, kind, name, int(size) if size.isdigit() else 0)
        return found

    def read(self, blob: Blob) -> bytes:
        return self._run("cat-file", "blob", blob.name)

    def _git(self, *args: str) -> str:
        return self._run(*args).decode("utf-8", errors="surrogateescape")

    def _run(self, *args: str) -> bytes:
        return _run(["git", "--git-dir", str(self.path), *self.FIXED, *args], env=self.SAFE)


def _environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Git sees neither the user's configuration nor an enclosing repository."""
    clean = {key: value for key, value in os.environ.items() if not key.startswith("GIT_")}
    fixed = {"GIT_CONFIG_NOSYSTEM": "1", "GIT_CONFIG_GLOBAL": os.devnull, "GIT_TERMINAL_PROMPT": "0"}
    return clean | fixed | AUTHOR | COMMITTER | dict(extra)


def _git(args: list[str], env: Mapping[str, str] | None = None, stdin: bytes = b"", cwd: Path | None = None) -> str:
    return _run(["git", *args], stdin, env or {}, cwd).decode("utf-8", errors="surrogateescape")


def _run(
    command: list[str], stdin: bytes = b"", env: Mapping[str, str] | None = None, cwd: Path | None = None
) -> bytes:
    try:
        done = subprocess.run(
            command, input=stdin, capture_output=True, env=_environment(env or {}), cwd=cwd, check=False, timeout=60
        )  # fmt: skip
    except FileNotFoundError:
        raise GitError("git is not installed: apt-get install git") from None
    if done.returncode != 0:
        lines = done.stderr.decode(errors="replace").strip().splitlines()
        raise GitError(lines[0] if lines else f"git {command[3]} failed with {done.returncode}")
    return done.stdout
