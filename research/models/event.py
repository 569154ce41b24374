"""Event: what happened, one row each, in one order for the whole lab. Pages live on it.

`seq` is given out by a counter row that is locked in the same transaction, so numbers become visible in order and
without holes on every database: a reader that has seen 41 asks for what is above 41 and misses nothing. (An automatic
id is drawn before the commit; a tail by it skips rows on PostgreSQL.)
"""

from __future__ import annotations

from typing import TYPE_CHECKING, cast

from django.conf import settings
from django.db import connection, models, transaction
from django.utils import timezone

if TYPE_CHECKING:
    from django.contrib.auth.models import User

    from research.models.experiment import Experiment
    from research.models.project import Project
    from research.models.thread import Thread


class Feed(models.Model):
    """The counter behind `Event.seq`: one row."""

    seq = models.BigIntegerField(default=0)

    def __str__(self) -> str:
        return f"{self.seq} events"


class EventQuerySet(models.QuerySet["Event"]):
    def after(self, seq: int) -> EventQuerySet:
        return self.filter(seq__gt=seq).order_by("seq")

    def notable(self) -> EventQuerySet:
        """What a person reads: without the start and end of every trial."""
        return self.exclude(kind__in=QUIET)

    def head(self) -> int:
        """The newest number; 0 before the first event."""
        return Feed.objects.filter(pk=1).values_list("seq", flat=True).first() or 0


class Event(models.Model):
    class Kind(models.TextChoices):
        TRIAL_STARTED = "trial_started"
        TRIAL_ENDED = "trial_ended"
        IDEA = "idea"
        REFUSED = "refused"
        EXPERIMENT = "experiment"
        VERDICT = "verdict"
        HEAD = "head"  # a thread's head moved
        REQUEST = "request"  # a merge request was opened
        MERGED = "merged"
        REJECTED = "rejected"
        RETURNED = "returned"  # changes were requested
        STALE = "stale"
        ROLLED_BACK = "rolled_back"  # `main` went back to the commit before a merge
        PROMISE = "promise"  # champion against start: what merges promised, and what came out
        ABLATION = "ablation"
        MORE_SEEDS = "more_seeds"
        STEERED = "steered"
        SAID = "said"  # a person said a sentence to a researcher, asked it to try something, or took that back
        OBEYED = "obeyed"  # the researcher's first idea under new steering
        HALTED = "halted"
        STATE = "state"  # a thread or project was paused, resumed, finished, exhausted
        NOISE = "noise"
        FINDING = "finding"  # a person overrode one, or let it stand again
        COMMENT = "comment"
        LESSON = "lesson"
        MACHINE = "machine"
        MEMBER = "member"  # a role was given or taken: open sockets are looked at again
        SESSION = "session"  # a conversation with a model began or ended
        TECHNIQUE = "technique"  # a change was proposed as a technique, or that was decided
        NOTE = "note"

    seq = models.BigIntegerField(primary_key=True)
    at = models.DateTimeField(default=timezone.now)
    kind = models.CharField(max_length=16, choices=Kind)
    project = models.ForeignKey("Project", models.CASCADE, null=True, related_name="events")
    thread = models.ForeignKey("Thread", models.CASCADE, null=True, related_name="events")
    experiment = models.ForeignKey("Experiment", models.CASCADE, null=True, related_name="events")
    actor = models.ForeignKey(settings.AUTH_USER_MODEL, models.SET_NULL, null=True, related_name="+")
    text = models.TextField(blank=True)

    objects = EventQuerySet.as_manager()

    class Meta:
        ordering = ["seq"]

    def __str__(self) -> str:
        return f"{self.kind}: {self.text}"

    @classmethod
    def record(
        cls,
        kind: str,
        text: str = "",
        *,
        project: Project | None = None,
        thread: Thread | None = None,
        experiment: Experiment | None = None,
        actor: models.Model | None = None,
    ) -> Event:
        """Append one event, in the transaction of the change that it tells of. Thread and experiment name the rest."""
        thread_id = thread.pk if thread else experiment.thread_id if experiment else None
        project_id = project.pk if project else experiment.project_id if experiment else None
        if thread is not None and project_id is None:
            project_id = thread.project_id
        with transaction.atomic(savepoint=False):
            return cls.objects.create(
                seq=next_seq(), kind=kind, text=text, project_id=project_id, thread_id=thread_id,
                experiment=experiment, actor=cast("User | None", actor),
            )  # fmt: skip

    @property
    def topics(self) -> set[str]:
        """Every topic that this event rings for; the ids in them are public."""
        found = {"lab"}
        if self.project is not None:
            found.add(f"project:{self.project.public_id}")
        if self.thread is not None:
            found.add(f"thread:{self.thread.public_id}")
        if self.experiment is not None:
            found.add(f"experiment:{self.experiment.public_id}")
        if self.kind in REVIEW:
            found.add("review")
        if self.kind in MACHINES:
            found.add("machines")
        return found


def next_seq() -> int:
    """Count on; the row stays locked until the transaction ends. One statement: an event costs half as much so."""
    with connection.cursor() as cursor:
        table = connection.ops.quote_name(Feed._meta.db_table)
        cursor.execute(f"UPDATE {table} SET seq = seq + 1 WHERE id = 1 RETURNING seq")
        row = cursor.fetchone()
    return row[0] if row else Feed.objects.create(pk=1, seq=1).seq


QUIET = (Event.Kind.TRIAL_STARTED, Event.Kind.TRIAL_ENDED)
MACHINES = (*QUIET, Event.Kind.MACHINE)
REVIEW = (
    Event.Kind.REQUEST,
    Event.Kind.MERGED,
    Event.Kind.REJECTED,
    Event.Kind.RETURNED,
    Event.Kind.STALE,
    Event.Kind.ROLLED_BACK,
    Event.Kind.MORE_SEEDS,
    Event.Kind.FINDING,
    Event.Kind.COMMENT,
)
