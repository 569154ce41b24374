"""Thread: one line of inquiry in a project. How it moves, how it is steered."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from decimal import Decimal
from difflib import get_close_matches
from typing import TYPE_CHECKING, Any

from django.conf import settings
from django.contrib.auth.models import User
from django.db import models, transaction
from django.db.models import Q
from django.utils import timezone

from benchmarks.catalogue import allows, is_change
from research.models import asked
from research.models.audit import AuditEntry
from research.models.event import Event
from research.models.ids import new_id
from research.models.people import Membership, Role
from research.models.project import Project
from research.validation.criteria import Criteria

if TYPE_CHECKING:
    from research.models.candidate import Candidate
    from research.models.idea import Idea

FREE_LABEL = re.compile(r"\w[\w./ -]{0,59}")  # what steering may name where there is no catalogue
# How long one control thread may hold a research thread between two signs of life.
# A step of git takes far less; the holds of a process that died are let go by the next sweep of its host.
ADVANCE_HOLD = timedelta(seconds=60)


@dataclass(frozen=True)
class SteeringLabel:
    """A word that steering understands, and how many techniques it covers."""

    label: str
    kind: str  # family, problem, file or technique
    count: int


def afresh() -> dict[str, str]:
    """The direction of a thread that somebody sets going: what was in vain before no longer counts against it."""
    return {"since": timezone.now().isoformat()}


class ThreadQuerySet(models.QuerySet["Thread"]):
    def advanceable(self) -> ThreadQuerySet:
        live = (Project.State.ACTIVE, Project.State.EXHAUSTED)
        return self.filter(state=Thread.State.ACTIVE, project__state__in=live)


class Thread(models.Model):
    """One line of inquiry in a project: a git branch, a researcher, a head, experiments one after another."""

    class State(models.TextChoices):
        ACTIVE = "active"
        PAUSED = "paused"
        HALTED = "halted"  # a step failed; `note` holds the traceback
        FINISHED = "finished"  # its researcher has nothing left to propose

    public_id = models.CharField(max_length=16, unique=True, default=new_id, editable=False)
    project = models.ForeignKey(Project, models.CASCADE, related_name="threads")
    number = models.PositiveIntegerField()
    researcher = models.CharField(max_length=40)
    head = models.CharField(max_length=40)
    state = models.CharField(max_length=12, choices=State, default=State.ACTIVE)
    note = models.TextField(blank=True, help_text="what the thread was last told, or why it halted")
    directives = models.JSONField(
        default=dict, blank=True,
        help_text="focus, forbid, note: steering; try: techniques to try again, once; fresh: not obeyed yet",
    )  # fmt: skip
    steered_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.SET_NULL, null=True, blank=True, related_name="+",
        help_text="who started it or gave the newest steering: may not approve its requests",
    )  # fmt: skip
    max_trials = models.PositiveIntegerField(null=True, blank=True)
    max_money = models.DecimalField(max_digits=14, decimal_places=8, null=True, blank=True)
    criteria = models.JSONField(default=dict, blank=True, help_text="when this line of inquiry is given up")
    direction = models.JSONField(
        default=dict, blank=True,
        help_text="since: when a person last set it going; plateaus, gains, why: the last plateau that was told",
    )  # fmt: skip
    held_by = models.CharField(max_length=40, blank=True)
    held_until = models.DateTimeField(null=True, blank=True)
    created = models.DateTimeField(default=timezone.now)

    objects = ThreadQuerySet.as_manager()

    class Meta:
        constraints = [models.UniqueConstraint(fields=["project", "number"], name="thread_number")]

    def __str__(self) -> str:
        return f"{self.project.name}/thread-{self.number}"

    @property
    def branch(self) -> str:
        return f"refs/heads/thread-{self.number}"

    @property
    def waiting_candidate(self) -> Candidate | None:
        """An implemented idea that has no experiment yet, and needs one."""
        return self.candidates.filter(experiment=None, carried_from=None).order_by("pk").first()

    def hold(self, owner: str) -> bool:
        """Take the exclusive, expiring right to advance this thread."""
        now = timezone.now()
        free = Q(held_until__isnull=True) | Q(held_until__lt=now) | Q(held_by=owner)
        return Thread.objects.filter(free, pk=self.pk).update(held_by=owner, held_until=now + ADVANCE_HOLD) == 1

    def let_go(self, owner: str) -> None:
        Thread.objects.filter(pk=self.pk, held_by=owner).update(held_by="", held_until=None)

    def advance_head(self, old: str, new: str, note: str = "") -> bool:
        """Compare and swap: False where the head has moved since `old` was read."""
        with transaction.atomic():
            moved = Thread.objects.filter(pk=self.pk, head=old).update(head=new, note=note) == 1
            if moved and old != new:
                self._tell_of(Event.Kind.HEAD, f"head moved to {new[:7]}" + (f": {note}" if note else ""))
        self.refresh_from_db(fields=["head", "note"])
        return moved

    def tell(self, note: str) -> None:
        with transaction.atomic():
            Thread.objects.filter(pk=self.pk).update(note=note)
            self._tell_of(Event.Kind.NOTE, note)

    def halt(self, traceback: str) -> None:
        last = traceback.strip().rsplit("\n", 1)[-1]
        with transaction.atomic():
            Thread.objects.filter(pk=self.pk).update(state=self.State.HALTED, note=traceback)
            self._tell_of(Event.Kind.HALTED, f"a step failed: {last}"[:300])

    def give_up(self, why: str) -> None:
        """Halt for a reason that a person can mend: the note says what to do. Nothing is broken in the lab."""
        with transaction.atomic():
            if Thread.objects.filter(pk=self.pk, state=self.State.ACTIVE).update(state=self.State.HALTED, note=why):
                self._tell_of(Event.Kind.HALTED, why[:300])
        self.refresh_from_db(fields=["state", "note"])

    def finish(self, note: str) -> None:
        self._change({self.State.ACTIVE}, self.State.FINISHED, note)

    def wake(self, note: str) -> None:
        """A finished thread goes on: what it stands on has changed, so there may be something to propose again."""
        self._change({self.State.FINISHED}, self.State.ACTIVE, note)

    def funded(self, why: str) -> None:
        """A cap on spend was raised: the sessions that it stopped go on, and so does a thread that ended for it."""
        if self.sessions.go_on():
            self.wake(why)

    def turn(self, plateaus: int, gains: int, why: str) -> None:
        """Tell of a plateau, and remember which: so many in a row, after so many gains."""
        direction = self.direction | {"plateaus": plateaus, "gains": gains, "why": why}
        with transaction.atomic():
            Thread.objects.filter(pk=self.pk).update(direction=direction, note=why)
            self._tell_of(Event.Kind.NOTE, why)
        self.refresh_from_db(fields=["direction", "note"])

    def set_criteria(
        self, by: User, criteria: Mapping[str, object], max_trials: int | None, max_money: Decimal | None
    ) -> None:
        """When it is given up, and what it may spend at most. What is left out is not limited. A finished thread goes
        on, until the next look finds it over. Raises ValueError with one line where a limit means nothing.
        """
        Membership.require(by, self.project, Role.MEMBER, "say when it is given up")
        kept = Criteria.from_json(criteria).to_json()
        if any(limit is not None and not limit > 0 for limit in (max_trials, max_money)):
            raise ValueError("a limit must be above 0; leave it empty for none")
        caps = {"max_trials": max_trials, "max_money": None if max_money is None else str(max_money)}
        with transaction.atomic():
            mine = Thread.objects.filter(pk=self.pk)
            mine.update(criteria=kept, max_trials=max_trials, max_money=max_money)
            AuditEntry.record(by, "criteria", self.project, thread=self.number, **kept, **caps)
            limits = {name: value for name, value in {**kept, **caps}.items() if value is not None}
            words = ", ".join(f"{name.replace('_', ' ')} {value}" for name, value in limits.items()) or "no limit"
            self._tell_of(Event.Kind.STATE, f"limits of thread {self.number} set by {by}: {words}", by)
            self.wake("its limits were changed")
            self.funded("its limits were changed")
        self.refresh_from_db(fields=["criteria", "max_trials", "max_money", "state", "note", "direction"])

    def pause(self, by: User | None = None) -> None:
        self._act(by, "pause", {self.State.ACTIVE}, self.State.PAUSED)

    def resume(self, by: User | None = None) -> None:
        """Go on: after a pause, a failed step or the end of ideas."""
        self._act(by, "resume", {self.State.PAUSED, self.State.HALTED, self.State.FINISHED}, self.State.ACTIVE)

    def steer(self, by: User, focus: Sequence[str], forbid: Sequence[str], note: str = "") -> None:
        """Let the researcher propose only what a label of `focus` covers (all, where empty) and none of `forbid` does.

        Labels are techniques, families and files. An idea made ahead that the new steering excludes is dropped; what
        is measured already goes on. Raises ValueError with one line where a label means nothing.
        """
        Membership.require(by, self.project, Role.MEMBER, "steer it")
        focus, forbid = sorted(set(focus)), sorted(set(forbid))
        for label in (*focus, *forbid):
            self._known(label)
        if both := set(focus) & set(forbid):
            raise ValueError(f"{', '.join(sorted(both))}: in focus and forbidden at once; choose one")
        with transaction.atomic():
            before = Thread.objects.select_for_update().get(pk=self.pk).directives
            kept = {name: before[name] for name in (asked.SAY, asked.TRY) if name in before}
            pending = before.get("try", [])
            directives = {"focus": focus, "forbid": forbid, "note": note, "try": pending, "fresh": True, **kept}
            Thread.objects.filter(pk=self.pk).update(directives=directives, steered_by=by, direction=afresh())
            self.wake("there is new steering")
            AuditEntry.record(by, "steer", self.project, thread=self.number, focus=focus, forbid=forbid, note=note)
            words = [f"{name} {', '.join(labels)}" for name, labels in (("focus", focus), ("forbid", forbid)) if labels]
            text = "; ".join(words) or "everything is allowed"
            self._tell_of(Event.Kind.STEERED, f"steered by {by}: {text}" + (f" ({note})" if note else ""), by)
            self._drop_ahead("steering changed", set(focus), set(forbid))
            self.sessions.stop_proposals("steering changed")
        self.refresh_from_db(fields=["directives", "steered_by", "state", "note", "direction"])

    def try_again(self, techniques: Sequence[str], why: str) -> None:
        """Ask for one of these once more, with other settings; an idea made ahead waits no longer."""
        with transaction.atomic():
            directives = Thread.objects.select_for_update().get(pk=self.pk).directives
            Thread.objects.filter(pk=self.pk).update(directives=directives | {"try": sorted(set(techniques))})
            self.wake(why)
            for idea in self.ideas.ahead():
                idea.refuse(why)
            self.sessions.stop_proposals(why)
        self.refresh_from_db(fields=["directives", "state", "note"])

    def say(self, by: User, text: str) -> None:
        """A sentence that the researcher is shown as a person's directive, until it is withdrawn. Raises ValueError."""
        self._ask(by, asked.SAY, text, "say")

    def try_this(self, by: User, text: str) -> None:
        """A technique or a change in words, to be tried once. Raises ValueError."""
        self._ask(by, asked.TRY, text, "ask to try")

    def withdraw(self, by: User, id: str) -> None:
        """Take back what was said or asked. Raises ValueError where it is not there."""
        Membership.require(by, self.project, Role.MEMBER, "steer it")
        with transaction.atomic():
            directives = Thread.objects.select_for_update().get(pk=self.pk).directives
            gone = [old for name in (asked.SAY, asked.TRY) for old in directives.get(name, ()) if old["id"] == id]
            if not gone:
                raise ValueError("it is no longer there")
            for name in (asked.SAY, asked.TRY):
                if name in directives:
                    directives[name] = [old for old in directives[name] if old["id"] != id]
            if gone[0]["text"] in directives.get("try", ()):
                directives["try"] = [name for name in directives["try"] if name != gone[0]["text"]]
            Thread.objects.filter(pk=self.pk).update(directives=directives, steered_by=by)
            AuditEntry.record(by, "withdraw", self.project, thread=self.number, text=gone[0]["text"])
            self._tell_of(Event.Kind.SAID, f"{by} takes back: {gone[0]['text']}", by)
            if gone[0]["state"] == asked.ASKED or gone[0] in directives.get(asked.SAY, ()):
                self.sessions.stop_proposals("steering changed")
        self.refresh_from_db(fields=["directives", "steered_by"])

    def raise_budget(self, by: User, max_trials: int | None = None, max_money: Decimal | None = None) -> None:
        """Let it spend more; None leaves a limit as it is. A finished thread goes on. Raises ValueError."""
        Membership.require(by, self.project, Role.MEMBER, "raise its budget")
        asked_for = {"max_trials": max_trials, "max_money": max_money}
        limits = {name: value for name, value in asked_for.items() if value is not None}
        if not limits:
            raise ValueError("say how many trials or how much money it may spend")
        with transaction.atomic():
            fresh = Thread.objects.select_for_update().get(pk=self.pk)
            for name, value in limits.items():
                old = getattr(fresh, name)
                if old is None:
                    raise ValueError(f"this thread has no limit of {name.removeprefix('max_')}")
                if not value > old:
                    raise ValueError(f"{value} is no more than the {old} that it may spend already")
            Thread.objects.filter(pk=self.pk).update(**limits)
            plain = {name: value if isinstance(value, int) else str(value) for name, value in limits.items()}
            AuditEntry.record(by, "raise a budget", self.project, thread=self.number, **plain)
            words = ", ".join(f"{value} {name.removeprefix('max_')}" for name, value in plain.items())
            self._tell_of(Event.Kind.STATE, f"{by} lets thread {self.number} spend {words}", by)
            self.sessions.go_on()
            self.wake("its budget was raised")
        self.refresh_from_db()

    def _ask(self, by: User, kind: str, text: str, act: str) -> None:
        Membership.require(by, self.project, Role.MEMBER, "steer it")
        new = asked.entry(by, text)
        with transaction.atomic():
            directives = Thread.objects.select_for_update().get(pk=self.pk).directives
            directives[kind] = asked.added(directives.get(kind, ()), new)
            if kind == asked.TRY and new["text"] in self.project.labels:
                directives["try"] = sorted({*directives.get("try", ()), new["text"]})
            Thread.objects.filter(pk=self.pk).update(directives=directives, steered_by=by)
            AuditEntry.record(by, act, self.project, thread=self.number, text=new["text"])
            words = "says" if kind == asked.SAY else "asks to try"
            self._tell_of(Event.Kind.SAID, f"{by} {words}: {new['text']}", by)
            self.wake("there is new steering")
            self.sessions.stop_proposals("steering changed")
        self.refresh_from_db(fields=["directives", "steered_by", "state", "note"])

    def answered(self, idea: Idea) -> None:
        """An idea was made under what people said: it acknowledges that, and takes one wish or says why it cannot."""
        directives = dict(self.directives)
        with transaction.atomic():
            if asked.SAY in directives:
                directives[asked.SAY], fresh = asked.seen(directives[asked.SAY], idea.number)
                for said in fresh:
                    words = f"idea {idea.number} was made after {said['by']} said: {said['text']}"
                    self._tell_of(Event.Kind.OBEYED, words[:300])
            if wish := asked.next_wish(directives.get(asked.TRY, ())):
                taken = asked.takes(wish, idea.techniques, idea.tags)
                first = (idea.plan or "it was not among what can be proposed on this head").strip().splitlines()[0]
                why_not = "" if taken else f"instead, idea {idea.number}: {idea.name}. {first}"
                directives[asked.TRY] = asked.answered(directives[asked.TRY], wish, idea.number, why_not)
                words = f"idea {idea.number} is what {wish['by']} asked for" if taken else f"not tried: {why_not}"
                self._tell_of(Event.Kind.OBEYED, f"{words} ({wish['text']})"[:300])
            if directives != self.directives:
                Thread.objects.filter(pk=self.pk).update(directives=directives)
        self.directives = directives

    def obeyed(self, title: str, techniques: Sequence[str]) -> None:
        """An idea was proposed: it acknowledges what a person asked for, once."""
        wanted = set(self.directives.get("try", ()))
        fresh = self.directives.get("fresh", False)
        if not wanted and not fresh:
            return
        with transaction.atomic():
            rest = {name: value for name, value in self.directives.items() if name not in ("try", "fresh")}
            Thread.objects.filter(pk=self.pk).update(directives=rest)
            if wanted & set(techniques):
                self._tell_of(Event.Kind.OBEYED, f"tries again with other settings, as asked: {title}")
            elif wanted and all(is_change(name) for name in wanted):  # code of its own has no settings
                self._tell_of(Event.Kind.OBEYED, f"was told what was sent back; its next idea: {title}")
            elif wanted:
                self._tell_of(
                    Event.Kind.NOTE, f"no other settings of {', '.join(sorted(wanted))} to try; instead: {title}"
                )
            if fresh:
                self._tell_of(Event.Kind.OBEYED, f"first idea under the new steering: {title}")
        self.directives = rest

    def drop_ahead(self, why: str, forbid: set[str]) -> None:
        """Refuse ideas made ahead that one of these labels covers."""
        self._drop_ahead(why, set(), forbid)

    def steering_labels(self) -> list[SteeringLabel]:
        """What steering may name: families, then problems, files and techniques."""
        described = self.project.described
        families = Counter(about["family"] for about in described.values())
        files = Counter(path for about in described.values() for path in about["files"])
        problems = Counter(name for about in described.values() for name in self.project.touched(about["files"]))
        return [
            *(SteeringLabel(name, "family", count) for name, count in sorted(families.items())),
            *(SteeringLabel(name, "problem", count) for name, count in sorted(problems.items())),
            *(SteeringLabel(name, "file", count) for name, count in sorted(files.items())),
            *(SteeringLabel(name, "technique", 1) for name in sorted(described)),
        ]

    def _known(self, label: str) -> None:
        known = set().union(*self.project.labels.values())
        if self.researcher != "catalogue":  # it has no catalogue: any file that may be changed, any tag
            if FREE_LABEL.fullmatch(label):
                return
            raise ValueError(f"{label[:40]!r} is neither a file nor a tag of up to 60 letters")
        if not known:
            raise ValueError("the techniques are being listed; try again in a few seconds")
        if label not in known:
            close = get_close_matches(label, known, n=3) or sorted(known - set(self.project.labels))
            raise ValueError(f"{label!r} is no technique, family or file here; perhaps {', '.join(close)}")

    def _drop_ahead(self, why: str, focus: set[str], forbid: set[str]) -> None:
        for idea in self.ideas.ahead():
            if not all(allows(labels, focus, forbid) for labels in idea.labels()):
                idea.refuse(why)

    def _act(self, by: User | None, act: str, before: set[State], after: State) -> None:
        Membership.require(by, self.project, Role.MEMBER, f"{act} its threads")
        with transaction.atomic():
            if self._change(before, after, "", by) and by is not None:
                AuditEntry.record(by, act, self.project, thread=self.number)

    def _change(self, before: set[State], after: State, note: str, by: User | None = None) -> bool:
        with transaction.atomic():
            fields: dict[str, Any] = {"note": note} if note or after == self.State.ACTIVE else {}
            if after == self.State.ACTIVE:
                fields["direction"] = afresh()
            changed = Thread.objects.filter(pk=self.pk, state__in=before).update(state=after, **fields) == 1
            if changed:
                if after == self.State.ACTIVE:
                    self.sessions.go_on()
                words = f"thread {self.number} is {after.value}" + (f" by {by}" if by else "")
                self._tell_of(Event.Kind.STATE, words + (f": {note}" if note else ""), by)
        self.refresh_from_db(fields=["state", "note", "direction"])
        return changed

    def _tell_of(self, kind: str, text: str, by: User | None = None) -> None:
        Event.record(kind, text, thread=self, actor=by)
