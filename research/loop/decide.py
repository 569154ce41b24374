"""What a thread does next over a long horizon, read off the rows: mode, model, plateaus, and when it is given up.

The arithmetic is in research.validation.yields and criteria. Nothing here has a say in a verdict.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from fnmatch import fnmatch

from django.db.models import Sum
from django.utils import timezone

from research.loop.account import paid, tried
from research.loop.memory import sources_of
from research.loop.scope import of_these, steered
from research.models import Call, Experiment, Idea, Result, Thread, Verdict
from research.researchers.llm.wire import ModelSpec
from research.validation.criteria import Criteria, Progress, Spent
from research.validation.records import VerdictKind
from research.validation.yields import (
    ENDED,
    GIVE_UP,
    Mode,
    Outcome,
    Pull,
    Said,
    Stretch,
    Tried,
    choose,
    least_used,
    repetition,
    stretch,
)

CATALOGUE, LLM, MIXED = "catalogue", "llm", "mixed"
TURNED = (LLM, MIXED)  # researchers that are told a direction; others end by themselves
REMEMBERED = 400  # experiments of a thread that are looked back at
SHOWN = 5  # experiments or labels named in a direction
GUIDANCE = {
    Mode.EXPLOIT: "Refine what has gained: other settings of it, or the next step of the same mechanism.",
    Mode.EXPLORE: "Try a mechanism that no idea here has tried, in a part of the code that few ideas have touched.",
    Mode.COMBINE: "Put near misses or gains together that act on different parts, as one change.",
    Mode.ABLATE: "Leave out or simplify something that the head has and that may not be worth its cost.",
    Mode.REVISIT: "Take up something discarded that a change of the head since then may have made worthwhile; say what "
    "is different now.",
}


@dataclass(frozen=True)
class Direction:
    """What the next idea of a thread is to be about, and who is asked, in order. `focus`: experiments and labels.

    `problems`: of many, those that these are of.
    """

    mode: str
    words: str
    model_chain: tuple[str, ...]
    focus: tuple[str, ...]
    problems: tuple[str, ...] = ()


# For those who propose


def direction_of(thread: Thread, number: int, models: Sequence[ModelSpec]) -> Direction:
    """The direction of the thread's idea `number`; the same rows and number give the same direction."""
    everything = tried(thread.project)
    mine = [one for one in everything if one.thread == thread.number]
    mode, why = _mode(thread, number, everything, mine)
    focus, problems = _focus(thread, mode, everything)
    words = [f"Mode: {mode}. {GUIDANCE[mode]}"]
    if focus:
        words.append(f"Look at: {', '.join(focus)}.")
    if why:
        words.append(f"Why now: {why}. Do not go on in the same direction.")
    return Direction(str(mode), " ".join(words), chain_of(thread, number, models), focus, problems)


def chain_of(thread: Thread, number: int, models: Sequence[ModelSpec]) -> tuple[str, ...]:
    """Names of the models that may propose, the one chosen by yield per cost first, the others as they are listed."""
    names = [spec.name for spec in models if "propose" in spec.roles]
    if not names:
        return ()
    first = _choice(thread, number, "model", names, [(one.model, one) for one in tried(thread.project)])
    return (first, *(name for name in names if name != first))


def arm_of(thread: Thread, number: int, models: Sequence[ModelSpec]) -> str:
    """Of a mixed thread: `catalogue`, or the name of the model that is asked for this idea."""
    names = [spec.name for spec in models if "propose" in spec.roles]
    arms = [CATALOGUE, *names]
    return _choice(thread, number, "arm", arms, [(one.who, one) for one in tried(thread.project)])


def researcher_of(thread: Thread, number: int, models: Sequence[ModelSpec]) -> str:
    """Who proposes this idea: the thread's researcher; of a mixed thread the catalogue or a model."""
    if thread.researcher != MIXED:
        return thread.researcher
    return CATALOGUE if arm_of(thread, number, models) == CATALOGUE else LLM


def _choice(thread: Thread, number: int, what: str, arms: Sequence[str], found: Sequence[tuple[str, Tried]]) -> str:
    price = thread.project.price_a_second
    seed = thread.project.seed(number, f"{what}-{thread.number}", 0)
    known = (Outcome.NO_IDEA, Outcome.REFUSED, *ENDED)
    pulls = [Pull(arm, one.gain, one.cost(price)) for arm, one in found if arm in arms and one.outcome in known]
    return choose(arms, pulls, seed)


# Modes


def _mode(thread: Thread, number: int, everything: Sequence[Tried], mine: Sequence[Tried]) -> tuple[Mode, str]:
    """The mode, and why it is not what it was; empty where yield alone decided."""
    modes = [str(mode) for mode in available(thread, everything)]
    seen = look(thread)
    why = ""
    if seen.plateaus:
        used = [one.mode for one in mine if one.outcome in ENDED][-seen.misses :]
        modes, why = least_used(modes, used, min(seen.plateaus, 2)), plateau_words(seen)
    elif why := repeats(thread):
        modes = least_used(modes, [one.mode for one in mine][-8:], 1)
    return Mode(_choice(thread, number, "mode", modes, [(one.mode, one) for one in everything])), why


def available(thread: Thread, everything: Sequence[Tried]) -> list[Mode]:
    """Modes that have something to work on."""
    outcomes = [one.outcome for one in everything]
    moved = thread.head != thread.project.start_commit
    found = [Mode.EXPLORE]
    if Outcome.CONFIRMED in outcomes or Outcome.NEAR_MISS in outcomes:
        found.append(Mode.EXPLOIT)
    if outcomes.count(Outcome.NEAR_MISS) + outcomes.count(Outcome.CONFIRMED) >= 2:
        found.append(Mode.COMBINE)
    if moved:
        found.append(Mode.ABLATE)
    if moved and any(_was_promising(one) for one in everything):
        found.append(Mode.REVISIT)
    return found


def _was_promising(one: Tried) -> bool:
    return one.outcome in (Outcome.NO_GAIN, Outcome.NEAR_MISS) and (one.measured or 0.0) > 0


def _focus(thread: Thread, mode: Mode, everything: Sequence[Tried]) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Experiments by number, and labels of the lab's own: no word that a model wrote. And the problems of these."""
    if mode is Mode.EXPLORE:
        return _least_touched(thread)
    wanted = {
        Mode.EXPLOIT: lambda one: one.outcome in (Outcome.CONFIRMED, Outcome.NEAR_MISS),
        Mode.COMBINE: lambda one: one.outcome in (Outcome.CONFIRMED, Outcome.NEAR_MISS),
        Mode.ABLATE: lambda one: one.outcome is Outcome.CONFIRMED,
        Mode.REVISIT: _was_promising,
    }[mode]
    chosen = [one for one in everything if one.experiment and wanted(one)]
    least_first = mode is Mode.ABLATE  # what gained least is the first to go
    chosen.sort(key=lambda one: (one.measured or 0.0) * (1 if least_first else -1))
    chosen = chosen[:SHOWN]
    rows = thread.project.experiments.filter(number__in=[one.experiment for one in chosen]) if chosen else ()
    problems = {name for row in rows for name in row.problems}
    words = (f"experiment {one.experiment} ({one.measured or 0.0:+.2%}, {one.outcome})" for one in chosen)
    return tuple(words), tuple(name for name in thread.project.problems if name in problems)


def _least_touched(thread: Thread) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """Editable files of the head with how many ideas have changed each, fewest first; and their problems."""
    project = thread.project
    sources = sources_of(project.repository_path, thread.head)
    files = [path for path in of_these(sources, steered(thread))
             if any(fnmatch(path, glob) for glob in project.contract.editable)]  # fmt: skip
    touched = Idea.objects.filter(thread__project=project).values_list("files", flat=True)
    counts = Counter(path for paths in touched for path in paths)
    files.sort(key=lambda path: (counts[path], path))
    least = files[:SHOWN]
    words = (f"{path} ({counts[path]} idea{'s' if counts[path] != 1 else ''})" for path in least)
    return tuple(words), tuple(project.touched(least))


# Plateaus and repetition


def look(thread: Thread) -> Stretch:
    """The thread's experiments since its last confirmed gain, or since a person set it going again.

    What came before a person's act tells the usual rate, and no longer counts against the thread.
    """
    verdicts = Verdict.objects.filter(experiment__thread=thread, experiment__purpose=Experiment.Purpose.COMPARE)
    rows = list(verdicts.order_by("-pk").values_list("kind", "created")[:REMEMBERED])[::-1]
    history = [kind == str(VerdictKind.IMPROVED) for kind, _ in rows]
    seen, begun = stretch(history), _set_going(thread)
    recent = sum(created > begun for _, created in rows) if begun else len(rows)
    return Stretch(min(seen.misses, recent), seen.gains, seen.tried, seen.patience)


def repeats(thread: Thread) -> str:
    """Why the thread counts as repeating itself; empty where it does not."""
    begun = _set_going(thread)
    ideas = thread.ideas.exclude(kind=Idea.Kind.COMBINATION).order_by("-number")
    if begun:
        ideas = ideas.filter(created__gt=begun)
    rows = ideas.values_list(
        "title", "hypothesis", "tags", "files", "pointer", "state", "candidate__experiment__verdict__kind"
    )[:8]
    return repetition(
        [
            Said(
                f"{title} {hypothesis}", frozenset(map(str, tags)), frozenset(map(str, files)),
                pointer is not None and state == Idea.State.REFUSED, kind == str(VerdictKind.IMPROVED),
            )
            for title, hypothesis, tags, files, pointer, state, kind in rows[::-1]
        ]
    )  # fmt: skip


def plateau_words(seen: Stretch) -> str:
    return f"{seen.misses} experiments without a confirmed gain, where {seen.rate}"


def _set_going(thread: Thread) -> datetime | None:
    since = thread.direction.get("since")
    return datetime.fromisoformat(since) if since else None


# Given up


def step(thread: Thread) -> bool:
    """Before anything new begins: enforce limits and criteria, notice plateaus. True where a row changed."""
    if why := over(thread):
        return _finish(thread, why)
    return _drop(thread) or _notice(thread)


def over(thread: Thread) -> str:
    """Why nothing new may begin on this thread; empty where it may."""
    if thread.max_trials is not None:
        done = Result.objects.filter(trial__experiment__thread=thread).count()
        if done >= thread.max_trials:
            return f"its limit of {thread.max_trials} trials is reached; raise it to go on"
    criteria = Criteria.from_json(thread.criteria)
    met = criteria.met(spent_since(thread)) if thread.criteria else ""
    return f"given up as agreed: {met}; change its criteria to go on" if met else ""


def spent_since(thread: Thread) -> Spent:
    """What the thread has spent since its last confirmed gain, or since a person set it going."""
    gains = Verdict.objects.filter(experiment__thread=thread, kind=str(VerdictKind.IMPROVED))
    gains = gains.filter(experiment__purpose=Experiment.Purpose.COMPARE).order_by("-pk")
    marks = [thread.created, _set_going(thread), gains.values_list("created", flat=True).first()]
    since = max(mark for mark in marks if mark is not None)
    verdicts = Verdict.objects.filter(experiment__thread=thread, created__gt=since)
    seconds = Result.objects.filter(trial__experiment__thread=thread, created__gt=since)
    money, _ = paid(Call.objects.filter(session__thread=thread, created__gt=since))
    return Spent(
        verdicts.filter(experiment__purpose=Experiment.Purpose.COMPARE).count(), money,
        seconds.aggregate(total=Sum("device_seconds"))["total"] or 0.0, timezone.now().date(),
    )  # fmt: skip


def progress(thread: Thread) -> list[Progress]:
    """How far each limit and criterion of the thread is from being met."""
    found = []
    if thread.max_trials is not None:
        done = Result.objects.filter(trial__experiment__thread=thread).count()
        share = min(1.0, done / thread.max_trials)
        found.append(Progress("trials", f"{done:,}", f"{thread.max_trials:,}", share, done >= thread.max_trials))
    if thread.max_money is not None:
        money, limit = paid(Call.objects.filter(session__thread=thread))[0], float(thread.max_money)
        found.append(
            Progress("money for models", f"{money:,.2f}", f"{limit:,.2f}", min(1.0, money / limit), money >= limit)
        )
    return found + (Criteria.from_json(thread.criteria).progress(spent_since(thread)) if thread.criteria else [])


def _finish(thread: Thread, why: str) -> bool:
    """Once nothing of the thread is being measured: a finished thread judges no more."""
    if thread.experiments.running().exists():
        return False
    thread.finish(why)
    return True


def _drop(thread: Thread) -> bool:
    """Give up ideas whose own criteria are met: made ahead, or being measured."""
    live = [Idea.State.PROPOSED, Idea.State.IMPLEMENTED]
    ideas = thread.ideas.filter(state__in=live).exclude(criteria={})
    for idea in ideas.filter(candidate__experiment__verdict=None).exclude(
        candidate__experiment__state=Experiment.State.CANCELLED
    ):
        met = Criteria.from_json(idea.criteria).met(_spent_on(idea))
        if not met:
            continue
        why = f"given up as agreed: {met}"
        running = Experiment.objects.running().filter(candidate__idea=idea).first()
        if idea.refuse(why) or (running is not None and running.cancel(why)):
            return True
    return False


def _spent_on(idea: Idea) -> Spent:
    seconds = Result.objects.filter(trial__experiment__candidate__idea=idea)
    money, _ = paid(Call.objects.filter(session__idea=idea))
    total = seconds.aggregate(total=Sum("device_seconds"))["total"] or 0.0
    return Spent(0, money, total, timezone.now().date())


def _notice(thread: Thread) -> bool:
    """Tell of a plateau once; after a few in a row a thread that was turned each time is over."""
    seen, told = look(thread), thread.direction.get("plateaus", 0)
    if seen.gains != thread.direction.get("gains"):  # what was told was of an earlier stretch
        told = 0
    if seen.plateaus >= GIVE_UP and thread.researcher in TURNED:
        return _finish(thread, f"{plateau_words(seen)}; {seen.plateaus} plateaus in a row, so it is over")
    if seen.plateaus <= told:
        return False
    next_ = "its next ideas try another mode" if thread.researcher in TURNED else "its researcher goes on"
    thread.turn(seen.plateaus, seen.gains, f"plateau: {plateau_words(seen)}; {next_}")
    return True
