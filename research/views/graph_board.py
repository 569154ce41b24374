"""The rows of a project as a graph: one node an idea, one on `main` for the start and for every merge.

All ideas are read in one query of plain columns (places depend on all of them); words only for what is in the window.
"""

from __future__ import annotations

from datetime import datetime
from functools import cached_property
from typing import NamedTuple
from urllib.parse import urlencode

from django.http import QueryDict
from django.urls import reverse
from django.utils.safestring import SafeString, mark_safe

from research.drawing import idea_graph
from research.drawing.idea_graph import Mark, Window
from research.drawing.lanes import Lanes, Node, lay_out
from research.models import Candidate, Experiment, Idea, MergeRequest, Project, Thread
from research.templatetags.lab import percent

MOST, USUAL = 500, 120  # columns in a window
WORDS = {
    "start": "start", "main": "landed on main", "merged": "merged", "improved": "improved, waits for review",
    "stale": "improved, but main moved", "rejected": "rejected", "no_difference": "no difference",
    "inconclusive": "inconclusive", "worse": "worse", "failed": "failed or invalid", "running": "being measured",
    "waiting": "waits to be measured", "proposed": "proposed", "refused": "refused",
}  # fmt: skip
MERGED, OPEN = ("merged",), ("improved", "running", "waiting", "proposed")
GROUPS = ("merged", "open", "dead")
LENS = ((-0.02, "lose-2"), (-0.005, "lose-1"), (0.005, "same"), (0.02, "win-1"))  # upper ends of relative gains
COLUMNS = (
    "public_id", "created", "thread__number", "state", "kind", "thread__head", "candidate__parent",
    "candidate__commit", "candidate__experiment__state", "candidate__experiment__number",
    "candidate__experiment__verdict__kind", "candidate__experiment__verdict__relative",
    "candidate__experiment__verdict__merge_request__state",
    "candidate__experiment__verdict__merge_request__decided",
)  # fmt: skip


class Tried(NamedTuple):
    """The columns of one idea, in the order of COLUMNS, and the kind of its node."""

    key: str
    created: datetime
    thread: int
    state: str
    idea_kind: str
    head: str
    parent: str | None
    commit: str | None
    measuring: str | None
    number: int | None
    verdict: str | None
    relative: float | None
    request: str | None
    decided: datetime | None
    kind: str  # of its node

    @property
    def group(self) -> str:
        return "merged" if self.kind in MERGED else "open" if self.kind in OPEN else "dead"

    @property
    def landed(self) -> datetime | None:
        return self.decided if self.request == MergeRequest.State.MERGED else None

    @property
    def lens(self) -> str:
        if self.relative is None:
            return "unknown"
        return next((name for end, name in LENS if self.relative < end), "win-2")


class Landing(NamedTuple):
    """A node on `main`: a merge, or the start (no idea)."""

    key: str
    at: datetime
    tried: Tried | None


class GraphBoard:
    def __init__(self, project: Project, asked: QueryDict) -> None:
        self.project = project
        self.chosen = asked.get("node", "")[:20]
        self.view = "table" if asked.get("view") == "table" else "graph" if asked.get("view") == "graph" else ""
        self.lens = "gain" if asked.get("lens") == "gain" else ""
        self.refused = asked.get("refused") == "1"
        self.hidden = [name for name in GROUPS if name in asked.get("hide", "").split(",")]
        self.size = min(MOST, max(20, _number(asked.get("n"), USUAL)))
        self.to = _number(asked.get("to"), 0)

    # ---- the whole graph ----------------------------------------------------------------------------------------

    @cached_property
    def tried(self) -> list[Tried]:
        ideas = Idea.objects.filter(thread__project=self.project).exclude(candidate__carried_from__isnull=False)
        rows = ideas.order_by("created", "pk").values_list(*COLUMNS)
        return [Tried._make((*row, _kind(row[3], row[8], row[10], row[12], row[7]))) for row in rows]

    @cached_property
    def moved(self) -> dict[str, str]:
        """Idea -> the commit that stands for it on `main` now, of those that were carried onto it."""
        rows = Candidate.objects.filter(project=self.project, carried_from__isnull=False, merge_request__isnull=False)
        return dict(rows.values_list("carried_from__idea__public_id", "commit"))

    @cached_property
    def shown(self) -> list[Landing | Tried]:
        """All nodes that the filters leave, in the order of their columns: ideas by birth, merges by decision."""
        ideas = [
            row for row in self.tried
            if row.group not in self.hidden and (self.refused or row.kind != "refused")
        ]  # fmt: skip
        landings = [Landing(f"main-{row.key}", row.landed, row) for row in self.tried if row.landed]
        start = Landing("start", self.project.created, None)
        # A merge was decided after its idea was born; at the same moment the idea comes first.
        rest: list[tuple[datetime, int, Landing | Tried]] = [(row.created, 0, row) for row in ideas]
        rest += [(row.at, 1, row) for row in landings]
        return [start, *(row for _, _, row in sorted(rest, key=lambda one: one[:2]))]

    @cached_property
    def lanes(self) -> Lanes:
        return lay_out(self._nodes())

    def _nodes(self) -> list[Node]:
        """Parents by commit: inside a thread the candidate itself, from another thread its node on `main`."""
        nodes: list[Node] = []
        own: dict[str, Tried] = {}
        on_main: dict[str, str] = {self.project.start_commit: "start"}
        heads: dict[int, str] = {}  # the newest improved node of a thread: what a combination merges with main
        last_landing = "start"
        for row in self.shown:
            if isinstance(row, Landing):
                if row.tried is None:
                    nodes.append(Node("start", 0))
                    continue
                nodes.append(Node(row.key, 0, (last_landing, row.tried.key)))
                commit = self.moved.get(row.tried.key, row.tried.commit)
                on_main[commit or ""] = last_landing = row.key
                continue
            base = row.parent or row.head
            mine = own.get(base)
            first = mine.key if mine and mine.thread == row.thread else on_main.get(base, mine.key if mine else "")
            second = heads.get(row.thread, "") if row.idea_kind == Idea.Kind.COMBINATION else ""
            nodes.append(Node(row.key, row.thread, (first, second) if second and second != first else (first,)))
            if row.commit:
                own.setdefault(row.commit, row)
            if row.verdict == "improved":
                heads[row.thread] = row.key
        return nodes

    @cached_property
    def counts(self) -> dict[str, int]:
        found = dict.fromkeys((*GROUPS, "refused"), 0)
        for row in self.tried:
            found["refused" if row.kind == "refused" else row.group] += 1
        return found

    # ---- the window ---------------------------------------------------------------------------------------------

    @cached_property
    def window(self) -> Window:
        total = len(self.shown)
        last = min(total, self.to) if self.to else total
        if self.chosen and not self.to and self.chosen in self.lanes.places:  # an old node's own address shows it
            column = self.lanes.places[self.chosen].column
            if column < total - self.size:
                last = min(total, column + self.size // 2)
        last = max(last, min(self.size, total))
        return Window(max(0, last - self.size), last)

    @cached_property
    def in_window(self) -> list[Landing | Tried]:
        return self.shown[self.window.first : self.window.last]

    @cached_property
    def names(self) -> dict[str, str]:
        """Words for the ideas of the window, by key."""
        keys = [row.tried.key if isinstance(row, Landing) and row.tried else row.key for row in self.in_window]
        rows = Idea.objects.filter(thread__project=self.project, public_id__in=keys)
        return {key: title or text for key, title, text in rows.values_list("public_id", "title", "hypothesis")}

    @cached_property
    def threads(self) -> list[Thread]:
        return list(self.project.threads.order_by("number"))

    @cached_property
    def drawing(self) -> SafeString:
        marks = {row.key: self._mark(row) for row in self.in_window}
        rows = 1 + max((thread.number for thread in self.threads), default=0)
        ideas = sum(isinstance(row, Tried) for row in self.in_window)
        label = f"Ideas of {self.project.name}: {ideas} of {len(self.tried)}, in {len(self.threads)} threads"
        svg = idea_graph.draw(self.lanes, marks, self.window, rows, label, self.chosen)
        return mark_safe(svg)  # noqa: S308  # escapes every text

    def _mark(self, row: Landing | Tried) -> Mark:
        href = self.address(node=row.key)
        if isinstance(row, Landing):
            if row.tried is None:
                return Mark("start", f"start {self.project.start}", href)
            return Mark("main", f"landed on main: {self.describe(row.tried)}", href)
        return Mark(row.kind, self.describe(row), href, row.lens if self.lens and row.verdict else "")

    def describe(self, row: Tried) -> str:
        number = f"experiment {row.number}" if row.number else "idea"
        gain = f" {percent(row.relative)}" if row.relative is not None else ""
        return f"{number}, thread {row.thread}, {WORDS[row.kind]}{gain}: {self.names.get(row.key, '')}"

    @cached_property
    def table(self) -> list[TableRow]:
        """The window as rows, newest first."""
        parents: dict[str, list[str]] = {}
        for edge in self.lanes.edges:
            parents.setdefault(edge.child, []).append(edge.parent)
        numbers = {row.key: _short(row) for row in self.shown}
        return [
            TableRow(row, self, [(key, numbers[key]) for key in parents.get(row.key, [])])
            for row in reversed(self.in_window)
        ]

    # ---- addresses ----------------------------------------------------------------------------------------------

    def address(self, **changes: str) -> str:
        """This view with some of its parameters changed; an empty one is left out."""
        keep = {
            "view": self.view, "lens": self.lens, "refused": "1" if self.refused else "", "hide": ",".join(self.hidden),
            "n": str(self.size) if self.size != USUAL else "", "to": str(self.to or ""), "node": self.chosen,
        }  # fmt: skip
        query = urlencode({name: value for name, value in (keep | changes).items() if value}, safe=",")
        return f"{reverse('graph', args=[self.project.name])}{'?' if query else ''}{query}"

    @property
    def here(self) -> str:
        """For refetching: `&part=` can follow."""
        address = self.address()
        return address if "?" in address else f"{address}?"

    @property
    def older(self) -> str:
        return self.address(to=str(self.window.first + self.size // 10), node="") if self.window.first else ""

    @property
    def newer(self) -> str:
        if self.window.last >= len(self.shown):
            return ""
        last = self.window.last + self.size - self.size // 10
        return self.address(to=str(last) if last < len(self.shown) else "", node="")

    @property
    def every(self) -> int:
        """How often, in ms, news may fetch it again: 2,000 ideas cost the server what 20 pages of 100 do."""
        return 3000 if len(self.tried) < 500 else 10_000

    @property
    def wider(self) -> str:
        return self.address(n=str(MOST), to="") if self.size < MOST and self.window.first else ""

    @property
    def other_view(self) -> str:
        return self.address(view="graph" if self.view == "table" else "table")

    @property
    def other_lens(self) -> str:
        return self.address(lens="" if self.lens else "gain")

    @property
    def filters(self) -> list[tuple[str, int, bool, str]]:
        """(words, how many, shown?, address that changes it)."""
        names = {"merged": "merged", "open": "open", "dead": "dead ends"}
        found = []
        for name in GROUPS:
            after = [other for other in GROUPS if (other in self.hidden) != (other == name)]
            found.append((names[name], self.counts[name], name not in self.hidden, self.address(hide=",".join(after))))
        refused = self.address(refused="" if self.refused else "1")
        return [*found, ("refused", self.counts["refused"], self.refused, refused)]

    @property
    def legend(self) -> list[tuple[SafeString, str]]:
        kinds = {row.kind for row in self.in_window if isinstance(row, Tried)}
        shown = [kind for kind in WORDS if kind in kinds or kind in ("start", "main")]
        return [(mark_safe(idea_graph.shape(kind)), WORDS[kind]) for kind in shown]  # noqa: S308


class TableRow:
    """One node as a row."""

    def __init__(self, row: Landing | Tried, board: GraphBoard, parents: list[tuple[str, str]]) -> None:
        self.key, self.parents = row.key, parents
        self.tried = row.tried if isinstance(row, Landing) else row
        self.is_landing = isinstance(row, Landing)
        self.kind = row.kind if isinstance(row, Tried) else "main" if row.tried else "start"
        self.word, self.short = WORDS[self.kind], _short(row)
        self.name = board.names.get(self.tried.key, "") if self.tried else f"start {board.project.start}"
        self.href = board.address(node=row.key)
        self.shape = mark_safe(idea_graph.shape(self.kind))  # noqa: S308


def _kind(state: str, measuring: str | None, verdict: str | None, request: str | None, commit: str | None) -> str:
    if state == Idea.State.REFUSED:
        return "refused"
    if request and request != MergeRequest.State.OPEN:
        return {"merged": "merged", "stale": "stale"}.get(request, "rejected")
    if verdict:
        return {"invalid": "failed"}.get(verdict, verdict)
    if measuring == Experiment.State.RUNNING:
        return "running"
    if measuring == Experiment.State.CANCELLED:
        return "refused"
    return "proposed" if commit is None else "waiting"


def _short(row: Landing | Tried) -> str:
    if isinstance(row, Landing):
        return f"main {row.tried.number}" if row.tried else "start"
    return str(row.number) if row.number else "idea"


def _number(text: str | None, usual: int) -> int:
    return int(text) if text and text.isdecimal() and len(text) < 10 else usual
