"""The diff of the merge page: patch sets, the comparison that is shown, its files, and what this person has viewed."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from urllib.parse import urlencode

from django.contrib.auth.models import AbstractUser
from django.http import Http404

from research.models import MergeRequest, Preferences, Viewed
from research.views.difftext import FileDiff, files_of
from research.views.gain import Gain, gain_of
from research.views.interdiff import Change, Interdiff, interdiff
from research.views.review_talk import Talk

OPEN_LINES = 400  # files are shown unfolded until so many changed lines
BOTH_SIDES, NEW_SIDE = ("old", "new"), ("new",)


@dataclass(frozen=True)
class PatchSet:
    number: int
    request: MergeRequest

    @property
    def gain(self) -> Gain | None:
        return gain_of(self.request.verdict)

    @property
    def change(self) -> Change:
        diff = self.request.candidate.diff
        return Change(diff.base, diff.head, diff.patch)


class Changes:
    """What one request changes, as one person looks at it: against its base, or against an earlier patch set."""

    def __init__(self, request: MergeRequest, user: AbstractUser, asked: Mapping[str, str]) -> None:
        self.request, self.user, self.asked = request, user, asked

    # Patch sets

    @cached_property
    def patch_sets(self) -> list[PatchSet]:
        return [PatchSet(number, row) for number, row in enumerate(self.request.patch_sets(), 1)]

    @cached_property
    def this(self) -> PatchSet:
        return next(row for row in self.patch_sets if row.request == self.request)

    @property
    def earlier(self) -> list[PatchSet]:
        return self.patch_sets[: self.this.number - 1]

    @property
    def newest(self) -> PatchSet:
        return self.patch_sets[-1]

    @cached_property
    def against(self) -> PatchSet | None:
        """The earlier patch set that `?from=` names; None: the base."""
        number = self.asked.get("from", "") or "0"
        if not number.isdecimal() or int(number[:6]) > len(self.earlier):
            raise Http404("there is no such earlier patch set")
        return self.earlier[int(number) - 1] if int(number) else None

    @cached_property
    def interdiff(self) -> Interdiff | None:
        if self.against is None:
            return None
        return interdiff(self.request.project.repository_path, self.against.change, self.this.change)

    # How it is shown

    @cached_property
    def split(self) -> bool:
        """Side by side: as the address says, else as this person likes it."""
        asked = self.asked.get("split", "")
        return asked == "1" if asked in ("0", "1") else Preferences.of(self.user).split_diff

    @property
    def query(self) -> str:
        """What the address of a file needs to be shown alike."""
        chosen = {"from": self.against.number} if self.against else {}
        return urlencode(chosen | {"split": int(self.split)})

    @cached_property
    def files(self) -> list[FileDiff]:
        if self.interdiff is not None:
            return list(self.interdiff.files)
        return files_of(self.request.candidate.diff.patch)

    @property
    def added(self) -> int:
        return sum(file.added for file in self.files)

    @property
    def removed(self) -> int:
        return sum(file.removed for file in self.files)

    def file(self, number: int) -> FileDiff:
        if number >= len(self.files):
            raise Http404("the change has no such file")
        return self.files[number]

    def sides(self, file: FileDiff) -> tuple[str, ...]:
        """Of which sides a line can be commented: of an interdiff, the old one is no commit."""
        if not file.coloured:
            return ()
        return NEW_SIDE if self.against else BOTH_SIDES

    # What was viewed

    @cached_property
    def viewed(self) -> set[int]:
        """Numbers of the files whose change this person has marked as viewed. An interdiff is not marked."""
        if self.against is not None:
            return set()
        mine = Viewed.objects.filter(user=self.user.pk, project=self.request.project_id)
        keys = set(mine.filter(path__in=[file.path for file in self.files]).values_list("path", "content"))
        return {file.number for file in self.files if (file.path, file.content) in keys}

    def mark(self, number: int, viewed: bool) -> None:
        file = self.file(number)
        Viewed.mark(self.user, self.request.project, file.path, file.content, viewed)  # type: ignore[arg-type]
        self.__dict__.pop("viewed", None)

    @cached_property
    def unfolded(self) -> set[int]:
        """The numbers of the files that are open at first: small ones not viewed yet, and those with open comments."""
        found = {file.number for file in self.files if self.talk.is_open_in(file.path)}
        lines = 0
        for file in self.files:
            if not file.large and file.number not in self.viewed and lines + file.changed <= OPEN_LINES:
                lines += file.changed
                found.add(file.number)
        return found

    # What was said

    @cached_property
    def talk(self) -> Talk:
        return Talk([row.request for row in self.patch_sets[: self.this.number]], [file.path for file in self.files])
