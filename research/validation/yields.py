"""What ideas brought for what they cost, and what to do next because of it: a choice among arms, plateaus, repetition.

An arm is a mode of working (exploit, explore, combine, ablate, revisit) or whoever proposes (a model, the catalogue).
Plain records in, plain records out; the same records and seed give the same choice. None of it is part of a verdict.
"""

import math
import random
import re
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

from research.validation.wire import Record


class Mode(StrEnum):
    EXPLOIT = "exploit"  # refine what gained
    EXPLORE = "explore"  # a family, file or mechanism that was not tried
    COMBINE = "combine"  # near misses and gains together
    ABLATE = "ablate"  # leave something of the head out, to simplify
    REVISIT = "revisit"  # what was discarded under other circumstances


class Outcome(StrEnum):
    WAITING = "waiting"  # proposed, being made or measured
    NO_IDEA = "no_idea"  # a session that was paid for and brought none
    REFUSED = "refused"
    CANCELLED = "cancelled"
    CONFIRMED = "confirmed"
    NEAR_MISS = "near_miss"
    NO_GAIN = "no_gain"
    FAILED = "failed"  # invalid: a crash or a finding


ENDED = (Outcome.CONFIRMED, Outcome.NEAR_MISS, Outcome.NO_GAIN, Outcome.FAILED)
KIND_MODES = {"technique": Mode.EXPLORE, "retune": Mode.EXPLOIT, "joint": Mode.COMBINE, "combination": Mode.COMBINE}


@dataclass(frozen=True)
class Tried:
    """One idea and what became of it. `predicted` and `measured` are shares of the baseline's score."""

    idea: int
    thread: int
    researcher: str
    model: str
    mode: str
    outcome: Outcome
    predicted: float
    measured: float | None  # shrunk
    experiment: int | None = None
    device_seconds: float = 0.0
    money: float = 0.0
    tokens: int = 0

    @property
    def who(self) -> str:
        """The model or agent where there is one: what a table tells apart."""
        return self.model or self.researcher

    @property
    def gain(self) -> float:
        """What it is worth for a choice: only a confirmed gain counts."""
        return max(0.0, self.measured or 0.0) if self.outcome is Outcome.CONFIRMED else 0.0

    def cost(self, price: float) -> float:
        """In money; `price` is that of one device-second."""
        return self.device_seconds * price + self.money


# What came out, for tables


@dataclass(frozen=True)
class Yield(Record):
    """All ideas of one researcher or model. `money` is of models, `cost` device time at the project's price too."""

    who: str
    ideas: int
    refused: int
    experiments: int
    confirmed: int
    gain: float
    device_seconds: float
    money: float
    tokens: int
    cost: float

    @property
    def seconds_a_gain(self) -> float | None:
        return self.device_seconds / self.confirmed if self.confirmed else None

    @property
    def money_a_gain(self) -> float | None:
        return self.money / self.confirmed if self.confirmed else None

    @property
    def cost_a_gain(self) -> float | None:
        return self.cost / self.confirmed if self.confirmed else None


def yields(tried: Sequence[Tried], price: float) -> list[Yield]:
    """One row for each who, the most gain for its cost first."""
    groups: dict[str, list[Tried]] = {}
    for one in tried:
        groups.setdefault(one.who, []).append(one)
    rows = [yield_of(who, group, price) for who, group in groups.items()]
    return sorted(rows, key=lambda row: (-(row.gain / row.cost if row.cost else row.gain), -row.experiments, row.who))


def yield_of(who: str, group: Sequence[Tried], price: float) -> Yield:
    return Yield(
        who=who,
        ideas=sum(one.idea > 0 for one in group),
        refused=sum(one.outcome is Outcome.REFUSED for one in group),
        experiments=sum(one.outcome in ENDED for one in group),
        confirmed=sum(one.outcome is Outcome.CONFIRMED for one in group),
        gain=math.fsum(one.gain for one in group),
        device_seconds=math.fsum(one.device_seconds for one in group),
        money=math.fsum(one.money for one in group),
        tokens=sum(one.tokens for one in group),
        cost=math.fsum(one.cost(price) for one in group),
    )


# Choosing


@dataclass(frozen=True)
class Pull:
    """One try of an arm: what it gained (0 where nothing was confirmed) and what it cost."""

    arm: str
    gain: float
    cost: float


FLOOR = 0.1  # share of choices made without regard to yield, so that no arm is given up for good
DISCOUNT = 0.98  # weight of a pull against the next one: easy gains are taken, so yields fall
PRIOR_PULLS = 2.0  # how many pulls the belief about an untried arm is worth
PRIOR_RATE, PRIOR_GAIN = 0.15, 0.01  # before anything was tried: how often a gain comes, and how large it is
DRAWN_CASES = 2.0  # gains that the belief about a gain's size is worth


def choose(arms: Sequence[str], pulls: Sequence[Pull], seed: int) -> str:
    """One of `arms` by Thompson sampling on gain per cost; `pulls` oldest first, others' are evidence for the pool.

    Each arm's rate of gains is drawn from a Beta posterior, the size of a gain from a Gamma; both start at what all
    arms together showed, and forget. The cost is the discounted mean, pulled to that of all. Raises ValueError
    without arms.
    """
    if not arms:
        raise ValueError("there is no arm to choose")
    draw = random.Random(seed)
    if draw.random() < FLOOR:
        return draw.choice(sorted(arms))
    everything = _Sums()
    by_arm: dict[str, _Sums] = {arm: _Sums() for arm in sorted(arms)}
    for age, pull in enumerate(reversed(pulls)):
        weight = DISCOUNT**age
        everything.add(pull, weight)
        if pull.arm in by_arm:
            by_arm[pull.arm].add(pull, weight)
    rate = (everything.hits + PRIOR_PULLS * PRIOR_RATE) / (everything.count + PRIOR_PULLS)
    size = (everything.gain + PRIOR_GAIN) / (everything.hits + 1)
    cost = everything.cost / everything.count if everything.cost > 0 else 1.0
    drawn = {arm: sums.draw(draw, rate, size, cost) for arm, sums in by_arm.items()}
    return max(drawn, key=lambda arm: drawn[arm])


class _Sums:
    """Discounted sums of one arm, or of all."""

    def __init__(self) -> None:
        self.count = self.hits = self.gain = self.cost = 0.0

    def add(self, pull: Pull, weight: float) -> None:
        self.count += weight
        self.cost += weight * pull.cost
        if pull.gain > 0:
            self.hits += weight
            self.gain += weight * pull.gain

    def draw(self, source: random.Random, rate: float, size: float, cost: float) -> float:
        """Gain for the cost of one pull, from the posterior."""
        hits = self.hits + PRIOR_PULLS * rate
        misses = self.count - self.hits + PRIOR_PULLS * (1 - rate)
        cases = self.hits + DRAWN_CASES
        mean = (self.gain + DRAWN_CASES * size) / cases
        paid = (self.cost + PRIOR_PULLS * cost) / (self.count + PRIOR_PULLS)
        return source.betavariate(hits, max(misses, 1e-9)) * source.gammavariate(cases, mean / cases) / paid


# Plateaus

ALPHA = 0.05  # a stretch without gain is a plateau where chance makes so long a one less often than this
SHORTEST, LONGEST = 6, 30  # experiments without gain: never a plateau below, always one from there on
USUAL_GAINS, USUAL_MISSES = 0.5, 2.5  # what is believed of a thread that has shown nothing yet
GIVE_UP = 4  # plateaus in a row after which a thread that was turned each time is over


@dataclass(frozen=True)
class Stretch:
    """The experiments since the last confirmed gain."""

    misses: int
    gains: int  # before it
    tried: int  # before it
    patience: int  # misses that make a plateau

    @property
    def plateaus(self) -> int:
        """How many there have been, one after another."""
        return self.misses // self.patience

    @property
    def rate(self) -> str:
        """What was usual before, in words."""
        if not self.gains:
            return "no experiment brought one so far"
        return (
            f"1 in {self.tried / self.gains:.0f} brought one before" if self.tried > self.gains else "each did before"
        )


def stretch(history: Sequence[bool]) -> Stretch:
    """`history`: whether each experiment confirmed a gain, oldest first."""
    misses = 0
    while misses < len(history) and not history[-1 - misses]:
        misses += 1
    before = history[: len(history) - misses]
    gains = sum(before)
    return Stretch(misses, gains, len(before), patience(gains, len(before)))


def patience(gains: int, tried: int) -> int:
    """The shortest stretch of misses whose probability is below ALPHA, at the rate seen so far (Beta predictive)."""
    misses = USUAL_MISSES + tried - gains
    total, chance = USUAL_GAINS + USUAL_MISSES + tried, 1.0
    for length in range(1, LONGEST):
        chance *= (misses + length - 1) / (total + length - 1)
        if chance < ALPHA and length >= SHORTEST:
            return length
    return LONGEST


# Repetition

WINDOW = 8  # ideas looked back
REFUSED_OF_WINDOW = 4
ALIKE_OF_WINDOW = 6
ALIKE = 0.6  # shared words of two ideas, from where on they say the same


@dataclass(frozen=True)
class Said:
    """An idea as it was put."""

    text: str
    tags: frozenset[str] = frozenset()
    files: frozenset[str] = frozenset()
    duplicate: bool = False  # refused because it was tried
    gained: bool = False


def repetition(said: Sequence[Said]) -> str:
    """Why the newest ideas (oldest first) count as repeating themselves; empty where they do not."""
    newest = list(said[-WINDOW:])
    while newest and any(one.gained for one in newest):  # what gains may be followed up
        newest = newest[1 + next(at for at, one in enumerate(newest) if one.gained) :]
    refused = sum(one.duplicate for one in newest)
    if refused >= REFUSED_OF_WINDOW:
        return f"{refused} of the last {len(newest)} ideas had been tried already"
    if len(newest) < WINDOW:
        return ""
    count = max(Counter(one.tags for one in newest if one.tags).values(), default=0)
    if count >= ALIKE_OF_WINDOW:  # which tags, is not said: words of a model go into no direction
        return f"{count} of the last {len(newest)} ideas had the same tags"
    alike = sum(any(_alike(one, other) for other in newest[:at]) for at, one in enumerate(newest))
    if alike + 1 >= ALIKE_OF_WINDOW:
        return f"{alike + 1} of the last {len(newest)} ideas say nearly the same"
    return ""


def _alike(one: Said, other: Said) -> bool:
    first, second = words_of(one.text), words_of(other.text)
    return bool(first and second) and len(first & second) / len(first | second) >= ALIKE


def words_of(text: str) -> frozenset[str]:
    """Its words without numbers, which differ between settings of the same thing."""
    return frozenset(re.findall(r"[a-z_]{3,}", text.lower()))


def least_used(modes: Sequence[str], used: Sequence[str], out: int) -> list[str]:
    """`modes` without the `out` that were used most; one is always left."""
    counts: Mapping[str, int] = Counter(used)
    ranked = sorted(modes, key=lambda mode: (counts.get(mode, 0), mode))
    return sorted(ranked[: max(1, len(ranked) - out)])
