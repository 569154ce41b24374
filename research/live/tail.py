"""Reading on: what has come since, for each place that somebody stands at. Runs in the reader's thread."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING

from django.db.models import Max

from research.live.frames import COMPACT, points_block
from research.live.messages import Cursor
from research.models import Event, Project, Series, Trial

if TYPE_CHECKING:
    from research.models.series import Piece, Points

MAX_POINTS = 8_192  # of a frame: 128 kB
FEWEST_POINTS = 32  # of a trial in a frame, however many of them a socket follows
MAX_METRICS = 1_024  # of a trial in a frame
MAX_TICK_POINTS = 400_000  # of all places together; the others come next
PIECE = 50  # points that cost about as much as to find a piece; so a query has at most 9,000 pieces
MAX_EVENTS = 500
REFUSAL = "no such topic, or not yours"
UNKNOWN = -1  # the generation of somebody who has seen nothing
OVER = (Trial.State.ENDED, Trial.State.LOST, Trial.State.CANCELLED)

Known = dict[str, tuple[int, int]]  # of each metric the series' pk and next_seq


@dataclass(frozen=True, slots=True)
class Place:
    """How far a stream has been read. All sockets that stand here get the same bytes."""

    topic: str
    trial: int
    generation: int
    cursor: Cursor
    ended: str = ""  # the state last told: the lease has closed


@dataclass(frozen=True, slots=True)
class Step:
    """What to send to everybody who stands at a place, and where they stand then (None: the stream is over)."""

    then: Place | None
    before: str = ""
    block: bytes = b""
    points: int = 0
    after: str = ""
    more: bool = False  # there is more to read at once


@dataclass(frozen=True, slots=True)
class News:
    """Events after some number: the projects and topics of each, or that there are too many to tell."""

    head: int
    events: Sequence[tuple[int | None, frozenset[str]]] = ()
    everything: bool = False
    members: bool = False  # somebody's roles have changed

    @property
    def newest_project(self) -> int:
        return max((project for project, _ in self.events if project), default=0)


@dataclass(frozen=True, slots=True)
class Answers:
    steps: Mapping[Place, Step] = field(default_factory=dict)  # a place without a step was not looked at
    news: Mapping[int, News] = field(default_factory=dict)


def read(places: Mapping[Place, int], seqs: Iterable[int]) -> Answers:
    """Everything a tick sends. `places` says how many points are read on from each, the most urgent first."""
    return Answers(_steps(places), {seq: news_after(seq) for seq in seqs})


def news_after(seq: int) -> News:
    head = Event.objects.head()
    if head == seq:
        return News(head)
    events = list(Event.objects.after(seq).select_related("project", "thread", "experiment")[: MAX_EVENTS + 1])
    if seq > head or len(events) > MAX_EVENTS:
        # The project is looked up so that whoever may see a new one hears of it.
        newest = Project.objects.aggregate(newest=Max("pk"))["newest"]
        return News(head, [(newest, frozenset())], everything=True)
    return News(
        events[-1].seq if events else head,
        [(event.project_id, frozenset(event.topics)) for event in events],
        members=any(event.kind == Event.Kind.MEMBER for event in events),
    )


def _steps(places: Mapping[Place, int]) -> dict[Place, Step]:
    # In this order: where the lease had closed already, every point of it is in the table when series are read.
    rows = Trial.objects.filter(pk__in={place.trial for place in places}).values_list("pk", "generation", "state")
    trials = {pk: (generation, state) for pk, generation, state in rows}
    series = _series_of({trial: generation for trial, (generation, _) in trials.items()})
    reads: list[_Read] = []
    steps: dict[Place, Step] = {}
    left = MAX_TICK_POINTS
    for place, most in places.items():
        if place.trial not in trials:
            steps[place] = Step(None, after=COMPACT({"refused": place.topic, "why": REFUSAL}))
        elif left > 0:
            reads.append(_Read(place, *trials[place.trial], series.get(place.trial, {}), most))
            left -= reads[-1].points + PIECE * len(reads[-1].pieces)
    pieces = Series.objects.pieces({piece for each in reads for piece in each.pieces.values()})
    return steps | {each.place: each.step(pieces) for each in reads}


def _series_of(generations: Mapping[int, int]) -> dict[int, Known]:
    found: dict[int, Known] = {}
    rows = Series.objects.filter(trial__in=generations)
    for trial, generation, metric, pk, seq in rows.values_list("trial", "generation", "metric", "pk", "next_seq"):
        if generation == generations[trial]:
            found.setdefault(trial, {})[metric] = (pk, seq)
    return found


class _Read:
    """One place in one tick: which pieces it needs, and the step that they make."""

    def __init__(self, place: Place, generation: int, state: str, series: Known, most: int) -> None:
        self.place, self.generation, self.state, self.series = place, generation, state, series
        cursor = dict(place.cursor)
        self.is_restart = place.generation not in (generation, UNKNOWN) or any(
            seq > series.get(metric, (0, 0))[1] for metric, seq in cursor.items()
        )
        self.cursor = {} if self.is_restart else cursor
        waiting = {metric: seq - self.cursor.get(metric, 0) for metric, (_, seq) in series.items()}
        self.pieces: dict[str, Piece] = {}
        for metric, count in _shares(waiting, most).items():
            first = self.cursor.get(metric, 0)
            self.pieces[metric] = (series[metric][0], first, first + count)
        self.points = sum(stop - first for _, first, stop in self.pieces.values())
        self.more = self.points < sum(waiting.values())

    def step(self, pieces: Mapping[Piece, Points]) -> Step:
        place = self.place
        stretches = [(metric, piece[1], pieces[piece]) for metric, piece in self.pieces.items()]
        cursor = self.cursor | {metric: first + len(points[0]) for metric, first, points in stretches}
        ended = self.state if self.generation and self.state != Trial.State.LEASED and not self.more else ""
        over = self.state in OVER and not self.more
        then = replace(place, generation=self.generation, cursor=tuple(sorted(cursor.items())), ended=ended)
        return Step(
            None if over else then,
            COMPACT({"restart": place.topic, "generation": self.generation}) if self.is_restart else "",
            points_block(place.topic, self.generation, stretches) if stretches else b"",
            self.points,
            COMPACT({"end": place.topic, "state": self.state}) if over or ended not in ("", place.ended) else "",
            self.more,
        )


def _shares(waiting: Mapping[str, int], most: int) -> dict[str, int]:
    """How many points of each metric are read now: as equal as can be, about `most` together."""
    shares: dict[str, int] = {}
    least_first = sorted((count, metric) for metric, count in waiting.items() if count)[:MAX_METRICS]
    for done, (count, metric) in enumerate(least_first):
        shares[metric] = min(count, max(most // (len(least_first) - done), 1))
        most -= shares[metric]
    return shares
