"""What a person may hear of: looked up when a socket opens, asks for topics, and every 30 s while it is open."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from importlib import import_module
from types import SimpleNamespace

from django.conf import settings
from django.contrib.auth import get_user
from django.db.models import Max, Model

from research.models import Experiment, Membership, Project, Thread, Trial

GENERAL = frozenset({"lab", "review", "machines"})  # anybody's; their events are those of visible projects
KINDS: dict[str, type[Model]] = {"project": Project, "thread": Thread, "experiment": Experiment, "trial": Trial}


@dataclass(frozen=True, slots=True)
class Access:
    projects: frozenset[int]  # that the person may see
    newest: int  # of all projects: an event of a newer one makes the hub look again
    topics: dict[str, int]  # those of the asked ones that exist and are visible, with the pk of the row

    def hears(self, project: int | None) -> bool:
        return project is None or project in self.projects


def look(session_key: str | None, topics: Iterable[str]) -> Access | None:
    """None: nobody is signed in with this session (any more)."""
    store = import_module(settings.SESSION_ENGINE).SessionStore
    user = get_user(SimpleNamespace(session=store(session_key)))  # type: ignore[arg-type]
    if not user.is_authenticated or not user.is_active:
        return None
    visible = Membership.projects_of(user)
    newest = Project.objects.aggregate(newest=Max("pk"))["newest"] or 0
    ids: dict[str, set[str]] = defaultdict(set)
    found = {topic: 0 for topic in GENERAL.intersection(topics)}
    for topic in topics:
        kind, _, public_id = topic.partition(":")
        ids[kind].add(public_id)
    for kind in ids.keys() & KINDS.keys():
        owner = "pk" if kind == "project" else "project"
        rows = KINDS[kind]._default_manager.filter(public_id__in=ids[kind], **{f"{owner}__in": visible})
        found |= {f"{kind}:{public_id}": pk for public_id, pk in rows.values_list("public_id", "pk")}
    return Access(frozenset(visible.values_list("pk", flat=True)), newest, found)
