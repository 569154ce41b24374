"""One file of the merge page: its lines, in one column or two, with the threads below the lines they are about."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from functools import cached_property

from django.http import HttpRequest
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils.safestring import SafeString, mark_safe

from research.models import Membership, Role
from research.views.diffrows import Anchor, Hunk, parse
from research.views.difftext import FileDiff
from research.views.review_changes import Changes
from research.views.review_talk import Thread


@dataclass(frozen=True)
class Shown:
    """A hunk as it stands on this page."""

    hunk: Hunk
    html: SafeString


class FilePage:
    def __init__(self, changes: Changes, file: FileDiff, request: HttpRequest) -> None:
        self.changes, self.file, self.http = changes, file, request
        self.split = changes.split and file.coloured

    @property
    def url(self) -> str:
        """Of this fragment, shown alike."""
        place = reverse("request-diff", args=[self.changes.request.public_id, self.file.number])
        whole = "&whole=1" if self.whole else ""
        return f"{place}?{self.changes.query}{whole}"

    @property
    def whole(self) -> bool:
        return "whole" in self.changes.asked

    @property
    def is_viewed(self) -> bool:
        return self.file.number in self.changes.viewed

    @property
    def may_view(self) -> bool:
        return self.changes.against is None

    @cached_property
    def may_comment(self) -> bool:
        return Membership.role_of(self.changes.user, self.changes.request.project) >= Role.MEMBER

    @property
    def sides(self) -> str:
        """Lines of these sides can be commented by this person."""
        return " ".join(self.changes.sides(self.file)) if self.may_comment else ""

    @property
    def hunks(self) -> list[Shown]:
        below = {anchor: self._written(threads) for anchor, threads in self._by_line.items()}
        return [Shown(hunk, hunk.markup(self.split, below)) for hunk in self.file.hunks]

    @cached_property
    def threads(self) -> list[Thread]:
        return self.changes.talk.of(self.file.path)

    @cached_property
    def _by_line(self) -> dict[Anchor, list[Thread]]:
        """Threads whose line is among those shown."""
        if self.file.large and not self.whole:
            return {}
        lines = set().union(*(hunk.anchors for hunk in self.file.hunks))
        found: dict[Anchor, list[Thread]] = {}
        for thread in self.threads:
            if thread.anchor in lines and thread.comment.side in self.changes.sides(self.file):
                found.setdefault(thread.anchor, []).append(thread)
        return found

    @property
    def above(self) -> SafeString:
        """Threads of the whole file, and of lines that are not shown here."""
        shown = {thread.comment.pk for threads in self._by_line.values() for thread in threads}
        return mark_safe(self._written(row for row in self.threads if row.comment.pk not in shown))  # noqa: S308

    def _written(self, threads: Iterable[Thread]) -> str:
        context = {"changes": self.changes, "may_comment": self.may_comment, "home": "closest [data-diff]"}
        parts = (
            render_to_string("review/_thread.html", {**context, "thread": thread}, self.http) for thread in threads
        )
        return "".join(parts)

    def text_at(self, side: str, line: int) -> str | None:
        """The line itself; None where it is not part of what is shown or cannot be commented."""
        if side not in self.changes.sides(self.file):
            return None
        rows = (row for hunk in parse(self.file.text) for row in hunk.lines)
        number = "old" if side == "old" else "new"
        return next((row.text for row in rows if getattr(row, number) == line and _is_on(row.kind, side)), None)


def _is_on(kind: str, side: str) -> bool:
    """A line that both sides have is commented on the new one."""
    return kind == "removed" if side == "old" else kind != "removed"
