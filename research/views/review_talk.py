"""Comments on the merge page: each thread at the line where it is now, or among the outdated ones.

A comment is bound to a line of the patch set that it was made on. In a later one the line is followed through the diff
of the two commits on its side; where it was changed or removed, the thread is outdated and shown with its quote.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

from django.utils.safestring import SafeString, mark_safe

from research.models import Comment, MergeRequest
from research.repository import GitError, Repository
from research.views.diffrows import Anchor, parse, visible
from research.views.difftext import FileDiff, files_of


@dataclass(frozen=True)
class Thread:
    comment: Comment
    replies: list[Comment]
    line: int | None  # where it is in the patch set that is shown
    is_here: bool  # its file, and its line if it has one, are in it
    patch_set: int  # the number of the one it was made on

    @property
    def anchor(self) -> Anchor | None:
        return (self.comment.side, self.line) if self.line is not None else None

    @property
    def quote(self) -> SafeString:
        """The line as it was; a candidate wrote it."""
        return mark_safe(visible(self.comment.quote))  # noqa: S308  it escapes

    @property
    def is_outdated(self) -> bool:
        return not self.is_here

    @property
    def is_open(self) -> bool:
        return self.comment.resolved_at is None


class Talk:
    """What was said of these patch sets (oldest first), placed in the last of them; `paths` are the files shown."""

    def __init__(self, patch_sets: Sequence[MergeRequest], paths: Sequence[str]) -> None:
        self.patch_sets, self.paths = patch_sets, set(paths)

    @cached_property
    def threads(self) -> list[Thread]:
        rows = Comment.objects.filter(request__in=self.patch_sets).select_related("author", "resolved_by")
        replies: dict[int, list[Comment]] = {}
        comments = list(rows.order_by("pk"))
        for row in comments:
            if row.parent_id is not None:
                replies.setdefault(row.parent_id, []).append(row)
        return [self._placed(row, replies.get(row.pk, [])) for row in comments if row.parent_id is None]

    def _placed(self, comment: Comment, replies: list[Comment]) -> Thread:
        number = next(at for at, row in enumerate(self.patch_sets, 1) if row.pk == comment.request_id)
        line = self._line_now(comment, self.patch_sets[number - 1])
        is_here = comment.path in self.paths and (comment.line is None) == (line is None) or not comment.path
        return Thread(comment, replies, line if is_here else None, is_here, number)

    def _line_now(self, comment: Comment, then: MergeRequest) -> int | None:
        now = self.patch_sets[-1]
        if comment.line is None or then.pk == now.pk:
            return comment.line
        commits = (then.commit, now.commit) if comment.side == Comment.Side.NEW else (then.base, now.base)
        files = files_between(now.project.repository_path, *commits)
        return None if files is None else followed(files.get(comment.path), comment.line)

    def of(self, path: str) -> list[Thread]:
        """The threads that stand in a file."""
        return [row for row in self.threads if row.is_here and row.comment.path == path]

    @cached_property
    def general(self) -> list[Thread]:
        """Threads of the whole change."""
        return [row for row in self.threads if not row.comment.path]

    @cached_property
    def outdated(self) -> list[Thread]:
        return [row for row in self.threads if row.is_outdated]

    @cached_property
    def elsewhere(self) -> list[Thread]:
        """Unresolved ones that stand in the diff below."""
        return [row for row in self.threads if row.is_open and row.is_here and row.comment.path]

    @property
    def unresolved(self) -> int:
        return sum(row.is_open for row in self.threads)

    def is_open_in(self, path: str) -> bool:
        return any(row.is_open for row in self.of(path))


def followed(file: FileDiff | None, line: int) -> int | None:
    """The line of the old file in the new one; None where it was changed or removed. `file` None: nothing changed."""
    if file is None:
        return line
    if file.binary or file.change == "deleted":
        return None
    shift = 0
    for hunk in parse(file.text):
        olds = [row for row in hunk.lines if row.old is not None]
        same = next((row for row in olds if row.old == line), None)
        if same is not None:
            return same.new
        if hunk.old > line:
            break
        shift += len([row for row in hunk.lines if row.new is not None]) - len(olds)
    return line + shift


@lru_cache(maxsize=256)
def files_between(path: Path, old: str, new: str) -> dict[str, FileDiff] | None:
    """The files that differ between two commits, by path; None where git does not know one of them."""
    try:
        return {file.path: file for file in files_of(Repository(path).diff(old, new).patch)}
    except GitError:
        return None
