"""The frame around every page: what the header shows, for this person."""

from __future__ import annotations

from functools import cached_property

from django.http import HttpRequest

from research.models import Event, Machine, Membership, MergeRequest, Preferences, Project


class Shell:
    """Looked up when the template asks, so that fragments cost nothing."""

    def __init__(self, request: HttpRequest) -> None:
        self.request = request

    @cached_property
    def seq(self) -> int:
        """The newest event this page was rendered with: where its live path begins."""
        return Event.objects.head()

    @cached_property
    def preferences(self) -> Preferences | None:
        user = self.request.user
        return Preferences.of(user) if user.is_authenticated else None

    @property
    def theme(self) -> str:
        return self.preferences.theme if self.preferences else Preferences.Theme.SYSTEM

    @property
    def shortcuts(self) -> bool:
        return self.preferences.shortcuts if self.preferences else True

    @cached_property
    def projects(self) -> list[Project]:
        return list(Membership.projects_of(self.request.user).order_by("-pk")[:20])  # type: ignore[arg-type]

    @cached_property
    def unfenced(self) -> list[Machine]:
        """Machines that run code from outside the lab although nothing holds it back."""
        return list(Machine.objects.unfenced().order_by("name"))

    @cached_property
    def waiting(self) -> int:
        """Merge requests that wait for a person."""
        seen = Membership.projects_of(self.request.user)  # type: ignore[arg-type]
        return MergeRequest.objects.open().filter(project__in=seen).count()


def context(request: HttpRequest) -> dict[str, Shell]:
    return {"shell": Shell(request)}
