"""The catalogue researcher: no key, no network. A real optimizer, and the control arm that any LLM must beat.

Each technique is an arm of a bandit. Its gain has a normal prior (from the catalogue) and a normal posterior from the
measured effects of this project; one draw from each posterior (Thompson 1933), over its cost, ranks the arms. A
technique is first tried with its defaults; further tries ask Optuna's TPE sampler (Bergstra et al. 2011) for tunables,
fed with all past measurements. Near misses come back together. What it finds is *known techniques, assembled*, never a
discovery.
"""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from benchmarks.catalogue import Catalogue, Sources, Step, Technique, Tunable, Value, changed_files
from benchmarks.edits import DoesNotApply
from research.researchers.base import Draft, LessonView, NothingToPropose, View

CONTEXT_SD = 0.006  # how far the effect of a technique differs from one head to another (relative gain)
RETUNE_PRIOR = (0.003, 0.008)  # mean and sd of the gain of other tunables for a technique that is in
JOINT_DISCOUNT = 0.7  # gains of two techniques rarely add up in full
TRIES_A_HEAD = 3  # tries of one technique on one head, each with other tunables
PAIRS_A_VERDICT = 4.0  # what a verdict costs on average
CEILING = 0.03  # of the score left to gain: below it nothing is tried any more


@dataclass(frozen=True)
class Arm:
    """One thing that could be tried next, with a sampled gain."""

    kind: str
    techniques: tuple[str, ...]
    drawn: float
    expected: float
    again: bool = False  # a person asked for it, with other settings


class CatalogueResearcher:
    name = "catalogue"
    ships_code = True
    holds_sessions = False

    def propose(self, view: View) -> Draft:
        """The arm with the best draw that applies to the head and is no repetition."""
        random_ = random.Random(view.seed)
        possible = (_within(view, arm) for arm in self._arms(view, random_))
        arms = sorted(filter(None, possible), key=lambda arm: (arm.again, _rate(view, arm)), reverse=True)
        for arm in arms:
            draft = self._draft(view, arm, random_)
            if draft is not None:
                return draft
        raise NothingToPropose(
            "every technique that steering allows has been tried on this head or has nothing left to gain; "
            "loosen the steering"
        )

    def implement(self, view: View, kind: str, steps: Sequence[Step]) -> tuple[Sources, tuple[Step, ...]]:
        if kind != "retune":
            return view.catalogue.apply(view.sources, steps), (*view.recipe, *steps)
        new = {step.technique: step for step in steps}
        recipe = tuple(new.get(step.technique, step) for step in view.recipe)
        if view.catalogue.apply(view.start_sources, view.recipe) != view.sources:
            raise DoesNotApply("the head is more than its recipe, so a technique in it cannot be retuned")
        return view.catalogue.apply(view.start_sources, recipe), recipe

    def _arms(self, view: View, random_: random.Random) -> Iterator[Arm]:
        present = {step.technique for step in view.recipe}
        running = [attempt for attempt in view.attempts if attempt.running and attempt.other_thread]
        busy = {step.technique for attempt in running for step in attempt.steps}  # another thread finds that out
        allowed = [t for t in view.catalogue.values() if view.allows(t)]
        absent = [t for t in allowed if t.name not in present | busy and t.name not in view.elsewhere]
        fresh = [t for t in absent if not view.catalogue.clash(t.name, present | busy)]  # one of two can be merged
        for technique in fresh:
            if self._tries(view, technique.name) < TRIES_A_HEAD:
                mean, sd = posterior(technique, view.lessons)
                yield Arm("technique", (technique.name,), random_.gauss(mean, sd), mean)
        for technique in allowed:
            if technique.name in present and technique.tunables:
                mean, sd = _update(*RETUNE_PRIOR, _observations(technique.name, view.lessons, retune=True))
                tries = self._tries(view, technique.name)
                yield Arm("retune", (technique.name,), random_.gauss(mean, sd) / (1 + 0.2 * tries), mean)
        yield from self._joint_arms(view, fresh, random_)
        for technique in allowed:
            if technique.name in view.directives.again and technique.tunables:
                mean, sd = posterior(technique, view.lessons)
                kind = "retune" if technique.name in present else "technique"
                yield Arm(kind, (technique.name,), random_.gauss(mean, sd), mean, again=True)

    def _joint_arms(self, view: View, fresh: list[Technique], random_: random.Random) -> Iterator[Arm]:
        """Two near misses together: each alone fell short of the bar."""
        near = {
            lesson.steps[0].technique
            for lesson in view.lessons
            if lesson.kind == "near_miss" and len(lesson.steps) == 1
        }
        pool = sorted((t for t in fresh if t.name in near), key=lambda t: t.name)
        for at, first in enumerate(pool):
            for second in pool[at + 1 :]:
                if view.catalogue.clash(first.name, [second.name]) or not view.meet(first.name, second.name):
                    continue
                parts = [posterior(t, view.lessons) for t in (first, second)]
                mean = JOINT_DISCOUNT * sum(mean for mean, _ in parts)
                sd = math.hypot(*(sd for _, sd in parts))
                yield Arm("joint", (first.name, second.name), random_.gauss(mean, sd), mean)

    def _draft(self, view: View, arm: Arm, random_: random.Random) -> Draft | None:
        """The proposal for an arm, or None where it does not apply or repeats an attempt."""
        for number in range(4):
            steps = tuple(self._tuned(view, name, arm, random_, known=number == 0) for name in arm.techniques)
            if not _repeats(view, steps):
                break
        else:
            return None
        try:
            sources, _ = self.implement(view, arm.kind, steps)
        except DoesNotApply:
            return None
        parts = [view.catalogue[name] for name in arm.techniques]
        return Draft(
            kind=arm.kind,
            hypothesis=_sentence(arm.kind, parts, steps),
            expected_effect=arm.expected,
            steps=steps,
            title=_title(arm.kind, parts),
            tags=tuple(sorted({part.family for part in parts})),
            files=tuple(changed_files(view.sources, sources)),
            cost_guess=PAIRS_A_VERDICT * view.seconds_a_pair * 2,
        )

    def _tuned(self, view: View, name: str, arm: Arm, random_: random.Random, known: bool) -> Step:
        """Defaults on the first try ever; what worked best together with another, and first on a new head; else
        Optuna's proposal."""
        technique = view.catalogue[name]
        measured = effects(technique, view.lessons)
        first_here = known and not arm.again and self._tries(view, name) == 0
        if arm.kind == "joint" or (arm.kind != "retune" and first_here):
            good = [pair for pair in measured if pair[1] > 0]
            tunables = max(good, key=lambda pair: pair[1])[0] if good else technique.defaults()
            return Step(name, {t.name: tunables.get(t.name, t.default) for t in technique.tunables})
        return Step(name, suggest(technique, measured, random_.randrange(1 << 30)))

    def _tries(self, view: View, name: str) -> int:
        return sum(
            attempt.base == view.head and name in {step.technique for step in attempt.steps}
            for attempt in view.attempts
        )


def _within(view: View, arm: Arm) -> Arm | None:
    """The arm with a gain that its problems still have room for; None where they are at their bound."""
    room = max(view.room.get(name, 1.0) for name in arm.techniques)
    if room < CEILING and not arm.again:
        return None
    return replace(arm, drawn=min(arm.drawn, room), expected=min(arm.expected, room))


def _rate(view: View, arm: Arm) -> float:
    """The drawn gain for what an arm costs."""
    cost = max(view.catalogue[name].cost for name in arm.techniques)
    return arm.drawn / cost if arm.drawn > 0 else arm.drawn * cost


def posterior(technique: Technique, lessons: Sequence[LessonView]) -> tuple[float, float]:
    """Mean and sd of a technique's relative gain after what has been measured."""
    observed = _observations(technique.name, lessons, retune=False)
    return _update(technique.prior_gain, technique.prior_sd, observed)


def effects(technique: Technique, lessons: Sequence[LessonView]) -> list[tuple[dict[str, Value], float]]:
    """(tunables, gain over a head without the technique) of each setting measured, on one scale for the sampler.

    A retune is measured against the setting that it replaces: that one's gain is added to its own. It is what the
    nearest setting measured so far showed; before any, what the technique is believed to be worth.
    """
    found: list[tuple[dict[str, Value], float]] = []
    for lesson in lessons:
        if len(lesson.steps) != 1 or lesson.steps[0].technique != technique.name or lesson.effect is None:
            continue
        level = 0.0
        if lesson.retune:
            level = posterior(technique, lessons)[0]
            if found and lesson.replaced is not None:
                old = lesson.replaced
                level = min(found, key=lambda pair: distance(technique, old, Step(old.technique, pair[0])))[1]
        found.append((dict(lesson.steps[0].tunables), level + lesson.effect))
    return found


def _observations(name: str, lessons: Sequence[LessonView], retune: bool) -> list[tuple[float, float]]:
    """(effect, sd) of each measurement of a technique on its own; a failure counts as a clear loss."""
    found = []
    for lesson in lessons:
        if len(lesson.steps) != 1 or lesson.steps[0].technique != name or lesson.retune != retune:
            continue
        if lesson.kind in ("failure", "invalid", "conflict"):
            found.append((-0.05, 0.03))
        elif lesson.effect is not None:
            found.append((lesson.effect, lesson.error or 0.01))
    return found


def _update(mean: float, sd: float, observed: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Normal prior, normal observations whose effects also differ between heads."""
    precision, weighted = sd**-2, mean * sd**-2
    for effect, error in observed:
        weight = 1 / (error**2 + CONTEXT_SD**2)
        precision += weight
        weighted += weight * effect
    return weighted / precision, precision**-0.5


def suggest(technique: Technique, measured: Sequence[tuple[dict[str, Value], float]], seed: int) -> dict[str, Value]:
    """Tunables for the next try, from Optuna's TPE sampler over all past measurements."""
    import optuna  # a second of import that only the control worker pays

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = {tunable.name: _distribution(tunable, optuna.distributions) for tunable in technique.tunables}
    sampler = optuna.samplers.TPESampler(seed=seed, n_startup_trials=3)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    for tunables, effect in measured:
        inside = {t.name: tunables[t.name] for t in technique.tunables if _inside(t, tunables.get(t.name))}
        if len(inside) == len(space) and space:
            study.add_trial(optuna.trial.create_trial(params=inside, distributions=space, value=effect))
    return {name: _rounded(value) for name, value in study.ask(space).params.items()}


def _inside(tunable: Tunable, value: Value | None) -> bool:
    """Whether a value measured earlier still lies in the range: catalogues change."""
    if tunable.choices:
        return value in tunable.choices
    return isinstance(value, float | int) and tunable.low <= value <= tunable.high


def _distribution(tunable: Tunable, distributions: Any) -> Any:
    if tunable.choices:
        return distributions.CategoricalDistribution(tunable.choices)
    if tunable.integer:
        return distributions.IntDistribution(int(tunable.low), int(tunable.high), log=tunable.log)
    return distributions.FloatDistribution(tunable.low, tunable.high, log=tunable.log)


def _rounded(value: Any) -> Value:
    """Three significant digits: a diff that a person can read."""
    return float(f"{value:.3g}") if isinstance(value, float) else value


def distance(technique: Technique, one: Step, other: Step) -> float:
    """How far two settings lie apart, as the largest share of a tunable's range; 1 for a different choice."""
    worst = 0.0
    for tunable in technique.tunables:
        a, b = (
            one.tunables.get(tunable.name, tunable.default),
            other.tunables.get(tunable.name, tunable.default),
        )
        if tunable.choices or isinstance(a, str) or isinstance(b, str):
            worst = max(worst, float(a != b))
        elif tunable.log:
            worst = max(worst, abs(math.log(a / b)) / math.log(tunable.high / tunable.low))
        else:
            worst = max(worst, abs(a - b) / (tunable.high - tunable.low))
    return worst


NEAR = 0.08  # settings closer than this are a near duplicate


def _repeats(view: View, steps: Sequence[Step]) -> bool:
    """Tried on this head already (by any thread), with the same or nearly the same tunables; or being tried now; or
    sent back by a person on whatever head; or discarded, as long as that holds for this head."""
    here = [attempt.steps for attempt in view.attempts if attempt.base == view.head or attempt.running]
    return any(is_near(view.catalogue, steps, tried) for tried in (*here, *view.sent_back, *view.discards))


def is_near(catalogue: Catalogue, steps: Sequence[Step], others: Sequence[Step]) -> bool:
    """The same techniques with the same or nearly the same settings."""
    wanted, tried = {step.technique: step for step in steps}, {step.technique: step for step in others}
    if set(tried) != set(wanted) or not wanted:
        return False
    return all(
        distance(catalogue[name], wanted[name], tried[name]) < NEAR if name in catalogue else wanted == tried
        for name in wanted
    )


def _title(kind: str, parts: Sequence[Technique]) -> str:
    titles = " and ".join(part.title for part in parts)
    return (f"other settings of {titles}" if kind == "retune" else titles)[:160]


def _sentence(kind: str, parts: Sequence[Technique], steps: Sequence[Step]) -> str:
    settings = "; ".join(
        ", ".join(f"{name} = {value}" for name, value in step.tunables.items()) for step in steps if step.tunables
    )
    where = f" ({settings})" if settings else ""
    if kind == "retune":
        return f"Other settings for {parts[0].title}{where} lower the loss further."
    if kind == "joint":
        titles = " and ".join(part.title for part in parts)
        return f"Together, {titles}{where} clear the bar that each missed alone."
    return f"{parts[0].hypothesis}{where}"
