"""What the audit page shows: entries that the address's filters leave, in words, with links to what they are about.

Words are made here, of any entry: one that this module knows nothing of is shown by its action and its details.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cached_property
from typing import Any
from urllib.parse import urlencode

from django.db.models import QuerySet
from django.http import QueryDict
from django.urls import reverse
from django.utils.dateparse import parse_date, parse_datetime

from research.models import AuditEntry, Experiment, MergeRequest, Project, Role, Thread
from research.templatetags.lab import duration

A_PAGE = 50
DID = {
    "start": "began", "add thread": "added", "steer": "steered", "pause": "paused", "resume": "resumed",
    "finish": "finished", "budget": "set the budget of", "merge": "merged", "reject": "rejected",
    "request changes": "requested changes of", "more seeds": "asked for more pairs of",
    "stop an experiment": "stopped",
    "retract a lesson": "retracted", "restore a lesson": "restored", "member": "changed the role of",
    "say": "said something to", "ask to try": "asked something of", "withdraw": "took back a word to",
    "withdraw a change": "took back a change handed in to",
    "raise a budget": "raised the budget of", "import autoresearch": "imported a search into",
    "propose a technique": "proposed a technique from", "approve a technique": "approved a technique from",
    "reject a technique": "rejected a technique from", "return a technique": "asked for changes of a technique from",
    "retract a technique": "took out a technique from",
    "import lessons": "imported lessons into",
    "sign-in link": "made a sign-in link for", "sign in": "signed in", "sign out": "signed out",
    "failed sign-in": "failed to sign in as", "single person": "switched single-person mode",
    "administer": "changed in the admin", "roll back": "rolled back", "ablate": "asked for an ablation of",
    "comment": "commented on", "reply": "replied on", "resolve a comment": "resolved a comment on",
    "reopen a comment": "reopened a comment on", "override a finding": "overrode a finding of",
    "reinstate a finding": "reinstated a finding of", "override isolation": "switched the isolation override of",
    "replay": "replayed a session of", "prompt": "changed a prompt of",
    "criteria": "set the limits of", "device price": "set the price of device time of",
}  # fmt: skip
ALONE = {"sign in", "sign out", "failed sign-in", "single person", "administer"}  # about nothing that has a page
ABOUT = ("thread", "session", "experiment", "request", "lesson", "machine", "user")
NAMES = {
    "max_trials": "trials", "max_device_seconds": "device time", "max_wall_seconds": "time of search",
    "max_money": "money", "max_tokens": "tokens", "before": "was", "address": "from", "on": "", "did": "", "what": "",
    "how": "",
}  # fmt: skip
ROLES = {0: "no role", **{role.value: str(role.label) for role in Role}}
DECISIONS = {"merge", "reject", "request changes", "roll back"}
QUOTED = {"reason", "note", "text"}
INNER = ("comment", "finding")  # ids that tell nobody anything


@dataclass(frozen=True)
class Link:
    text: str
    href: str = ""


@dataclass(frozen=True)
class EntryRow:
    entry: AuditEntry
    about: list[Link]
    href: str  # of the project

    @property
    def did(self) -> str:
        return DID.get(self.entry.action, self.entry.action)

    @property
    def details(self) -> list[tuple[str, str]]:
        """(name, words) of each detail that is no link already; a reason or note goes without its name."""
        found = [(NAMES.get(name, name.replace("_", " ")), _words(name, value)) for name, value in self._rest()]
        return [("" if name in QUOTED else name, words) for name, words in found if words]

    def _rest(self) -> Iterator[tuple[str, Any]]:
        for name, value in self.entry.detail.items():
            if name not in (*ABOUT, *INNER) and not (name == "commit" and self.entry.action in DECISIONS):
                yield name, value


class AuditBoard:
    """`project` None: the whole lab."""

    def __init__(self, project: Project | None, asked: QueryDict) -> None:
        self.project = project
        names = ("person", "action", "project", "since", "until", "before")
        self.asked = {name: asked.get(name, "").replace("\0", "").strip()[:200] for name in names}

    @property
    def scope(self) -> QuerySet[AuditEntry]:
        return AuditEntry.objects.filter(project=self.project) if self.project else AuditEntry.objects.all()

    @property
    def people(self) -> list[str]:
        return sorted(set(self.scope.values_list("who", flat=True).distinct()), key=str.lower)

    @property
    def actions(self) -> list[str]:
        return sorted(set(self.scope.values_list("action", flat=True).distinct()))

    @property
    def projects(self) -> list[str]:
        return sorted(set(self.scope.exclude(place="").values_list("place", flat=True).distinct()))

    @cached_property
    def moments(self) -> dict[str, datetime | None]:
        """Of `since` and `until`: a day, or a moment. The day of `until` is meant whole."""
        return {"since": _moment(self.asked["since"]), "until": _moment(self.asked["until"], whole_day=True)}

    @property
    def misread(self) -> list[str]:
        return [name for name, moment in self.moments.items() if self.asked[name] and moment is None]

    @property
    def chosen(self) -> QuerySet[AuditEntry]:
        """What the filters leave, newest first."""
        rows, asked = self.scope, self.asked
        if asked["person"]:
            rows = rows.filter(who=asked["person"])
        if asked["action"]:
            rows = rows.filter(action=asked["action"])
        if asked["project"]:
            rows = rows.filter(place=asked["project"])
        if since := self.moments["since"]:
            rows = rows.filter(at__gte=since)
        if until := self.moments["until"]:
            rows = rows.filter(at__lt=until)
        return rows.select_related("project").order_by("-pk")

    @cached_property
    def _found(self) -> list[AuditEntry]:
        rows, before = self.chosen, self.asked["before"]
        if before.isdecimal():
            rows = rows.filter(pk__lt=int(before[:15]))
        return list(rows[: A_PAGE + 1])

    @cached_property
    def rows(self) -> list[EntryRow]:
        return rows_of(self._found[:A_PAGE])

    def all(self) -> Iterator[EntryRow]:
        """Every entry that the filters leave, a piece at a time."""
        piece: list[AuditEntry] = []
        for entry in self.chosen.iterator(chunk_size=500):
            piece.append(entry)
            if len(piece) == 500:
                yield from rows_of(piece)
                piece = []
        yield from rows_of(piece)

    @property
    def older(self) -> int | None:
        """The cursor of the next page."""
        return self._found[A_PAGE - 1].pk if len(self._found) > A_PAGE else None

    @property
    def is_newest(self) -> bool:
        """The top of the list, which lives."""
        return not self.asked["before"]

    @property
    def have(self) -> str:
        """Changes with what the page shows: a browser that has it is not sent it again."""
        return str(self._found[0].pk) if self._found else "0"

    @property
    def is_filtered(self) -> bool:
        return any(value for name, value in self.asked.items() if name != "before")

    @property
    def query(self) -> str:
        """The filters as an address, without the cursor."""
        return urlencode({name: value for name, value in self.asked.items() if value and name != "before"})

    @property
    def newest_hash(self) -> str:
        return AuditEntry.objects.newest_hash()


@dataclass(frozen=True)
class Ids:
    """Public ids by project and number (of requests: commit), for links."""

    threads: dict[tuple[int | None, object], str]
    experiments: dict[tuple[int | None, object], str]
    requests: dict[tuple[int | None, object], str]


def rows_of(entries: Iterable[AuditEntry]) -> list[EntryRow]:
    """Rows with their links: three queries, however many entries."""
    entries = list(entries)
    decisions = [entry for entry in entries if entry.action in DECISIONS]
    ids = Ids(
        _ids(Thread, "number", "thread", entries),
        _ids(Experiment, "number", "experiment", entries),
        _ids(MergeRequest, "commit", "commit", decisions),
    )
    return [EntryRow(entry, _about(entry, ids), _project(entry)) for entry in entries]


def _ids(model: Any, field: str, name: str, entries: list[AuditEntry]) -> dict[tuple[int | None, object], str]:
    kind = int if field == "number" else str
    wanted = {entry.detail[name] for entry in entries if isinstance(entry.detail.get(name), kind)}
    if not wanted:
        return {}
    projects = {entry.project_id for entry in entries} - {None}
    rows = model.objects.filter(**{"project__in": projects, f"{field}__in": wanted})
    return {(project, key): id for project, key, id in rows.values_list("project", field, "public_id")}


def _about(entry: AuditEntry, ids: Ids) -> list[Link]:
    found = [link for name in ABOUT if (link := _link(entry, name, ids))]
    if not found and entry.place and entry.action not in ALONE:
        return [Link("the project", _project(entry))]
    return found


def _link(entry: AuditEntry, name: str, ids: Ids) -> Link | None:
    value = entry.detail.get(name)
    if name == "request":
        value = value or ids.requests.get((entry.project_id, entry.detail.get("commit")))
    if value in (None, ""):
        return None
    if name == "request":
        commit = str(entry.detail.get("commit", value))
        return Link(f"request {commit[:8]}", reverse("merge-request", args=[value]) if str(value).isalnum() else "")
    if name in ("thread", "experiment"):
        numbered = ids.threads if name == "thread" else ids.experiments
        id = value if isinstance(value, str) and value.isalnum() else numbered.get((entry.project_id, value))
        return Link(name if id == value else f"{name} {value}", reverse(name, args=[id]) if id else "")
    if name == "session":
        return Link("session", reverse("session", args=[value]) if str(value).isalnum() else "")
    if name == "lesson":
        return Link(f"lesson {value}", f"{reverse('lessons')}?id={value}")
    if name == "machine":
        return Link(f"machine {value}", reverse("machines"))
    return Link(str(value))


def _project(entry: AuditEntry) -> str:
    return reverse("project", args=[entry.project.name]) if entry.project else ""


def _words(name: str, value: object) -> str:
    """A detail as somebody would say it; empty where it says nothing."""
    if name.startswith("max_"):
        return "no limit" if value is None else _amount(name, value)
    if value in (None, "", [], {}):
        return ""
    if name in ("role", "before") and isinstance(value, int):
        return ROLES.get(value, str(value))
    if name in QUOTED:
        return f"“{value}”"
    if name == "commit":
        return str(value)[:8]
    if isinstance(value, bool):
        return ("on" if value else "off") if name == "on" else ("yes" if value else "no")
    if isinstance(value, list):
        return ", ".join(str(each) for each in value)
    if isinstance(value, dict):
        return ", ".join(f"{key} {each}" for key, each in value.items())
    return f"{value:g}" if isinstance(value, float) else str(value)


def _amount(name: str, value: object) -> str:
    return duration(value) if name.endswith("_seconds") and isinstance(value, int | float) else f"{value}"


def _moment(text: str, whole_day: bool = False) -> datetime | None:
    try:
        moment = None if len(text) == 10 else parse_datetime(text)
        day = parse_date(text)
    except ValueError:
        return None
    if day is not None:
        moment = datetime(day.year, day.month, day.day, tzinfo=UTC) + timedelta(days=whole_day)
    if moment is None:
        return None
    return moment if moment.tzinfo else moment.replace(tzinfo=UTC)
