"""Candidate: one immutable commit that implements an idea on a named parent; and its Diff."""

from __future__ import annotations

from collections.abc import Collection
from typing import NamedTuple

from django.db import models
from django.utils import timezone

from research.models.idea import Idea
from research.models.ids import new_id
from research.models.project import Project
from research.models.thread import Thread


class Branch(NamedTuple):
    """What a combination of threads brings together: each as it stands on `main`."""

    label: str
    commit: str


class Candidate(models.Model):
    public_id = models.CharField(max_length=16, unique=True, default=new_id, editable=False)
    project = models.ForeignKey(Project, models.CASCADE, related_name="candidates")
    thread = models.ForeignKey(Thread, models.CASCADE, related_name="candidates")
    idea = models.OneToOneField(Idea, models.CASCADE, related_name="candidate")
    parent = models.CharField(max_length=40)
    commit = models.CharField(max_length=40, db_index=True)
    tree = models.CharField(max_length=40, db_index=True, help_text="git's hash of the content alone")
    recipe = models.JSONField(default=list, help_text="all techniques from the start to here, in order")
    branches = models.JSONField(
        default=list, help_text='what a combination of threads merges: [["label", "commit as it stands on main"]]'
    )
    trusted = models.BooleanField(default=False, help_text="all its code, what it stands on too, ships with the lab")
    carried_from = models.ForeignKey(
        "self", models.CASCADE, null=True, blank=True, related_name="carried",
        help_text="whose change and verdict it is, where a moved main changed nothing of what that was measured on",
    )  # fmt: skip
    created = models.DateTimeField(default=timezone.now)

    def __str__(self) -> str:
        return f"{self.commit[:10]} {self.idea.hypothesis}"

    @classmethod
    def all_trusted(cls, project: Project, commits: Collection[str]) -> bool:
        """Whether the code of these commits ships with the lab. What is no candidate's is only trusted while all is."""
        mine = cls.objects.filter(project=project)
        if not mine.filter(trusted=False).exists():
            return True
        known = set(mine.filter(trusted=True, commit__in=commits).values_list("commit", flat=True))
        return set(commits) <= known | {project.start_commit}

    @property
    def parts(self) -> list[Branch]:
        """What it combines; empty where it is no combination of threads."""
        return [Branch(label, commit) for label, commit in self.branches]

    def part_keys(self) -> list[str]:
        """The keys of the experiments that measure its parts beside it."""
        return [f"parent-{self.public_id}-{number}" for number in range(len(self.branches))]

    @property
    def ref(self) -> str:
        return f"refs/candidates/{self.public_id}"


class Diff(models.Model):
    """The stored, parsed change of a candidate against its parent."""

    candidate = models.OneToOneField(Candidate, models.CASCADE, related_name="diff")
    base = models.CharField(max_length=40)
    head = models.CharField(max_length=40)
    patch = models.TextField()
    files = models.JSONField(help_text='[{"path", "added", "removed"}]')
    added = models.PositiveIntegerField()
    removed = models.PositiveIntegerField()

    def __str__(self) -> str:
        return f"{self.base[:10]}..{self.head[:10]} +{self.added} -{self.removed}"
