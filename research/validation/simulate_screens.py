"""Campaigns with known truth whose candidates are screened under another, cheaper preset. Pure; see `simulate`.

A candidate has one true gain at each preset. How the two go together is what a lab does not know beforehand: the worlds
here say it, and the plays differ in what they make of it. Costs are told in trials of the project's own preset.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from research.validation.fidelity import FIRST_PAIRS, Point, relate
from research.validation.records import LEAST_TECHNIQUES, Rule
from research.validation.simulate import (
    Array,
    Bars,
    Draws,
    Flags,
    Tally,
    World,
    confirm,
    draw,
    floors,
    screened,
    shipped_bars,
    tally,
)

REFIT, DRAWS = 8, 100  # a relation is read again after so many more techniques; bootstrap draws of each reading


@dataclass(frozen=True)
class ScreenWorld:
    """How gains at the screening preset go with the true ones. Spreads are in sigma of a trial of the project's own."""

    name: str
    slope: float = 1.0
    spread: float = 0.5  # sd of what a change that does something gains there and not later
    flattered: float = 0.0  # share of candidates that gain there, by as much as real ones, and nothing later
    noise: float = 1.5  # sigma there over sigma later
    cost: float = 1 / 3  # device time of a trial there over one later


WORLDS = (
    ScreenWorld("faithful"),
    ScreenWorld("loose", slope=0.7, spread=2.0),
    ScreenWorld("flattering", flattered=0.15),
    ScreenWorld("blind", slope=0.0, spread=1.0),
)


@dataclass(frozen=True)
class ScreenTally:
    """Means over campaigns. device: all trials, those of the cheaper preset by what they cost."""

    false_merges: float
    true_merges: float
    device: float
    confirmed: float  # candidates that came to confirmation
    hurdle: float  # the last one, in sigma of a screening pair


@dataclass
class Play:
    passed: Flags
    device: Array  # what screening each candidate cost
    hurdle: Array  # of every campaign, at its end


def gains_there(draws: Draws, world: ScreenWorld) -> Array:
    """True gains at the screening preset."""
    random, sigma = draws.random, draws.world.sigma_trial
    real = draws.gains != 0
    gains = np.where(real, world.slope * draws.gains + random.normal(0, world.spread * sigma, real.shape), 0.0)
    flattered = ~real & (random.random(real.shape) < world.flattered / draws.world.null)
    flattery = random.uniform(draws.world.gain_low, draws.world.gain_high, real.shape)
    return np.where(flattered, flattery, gains)


def play(
    draws: Draws, world: ScreenWorld, rule: Rule, bars: Bars, learned: bool, apart: bool = True
) -> ScreenTally:  # fmt: skip
    """One way of screening. Not `apart`: under the project's own preset, at its noise and cost."""
    sigma, noise = floors(draws, draws.world.sigma_pair), world.noise if apart else 1.0
    there = floors(draws, noise * draws.world.sigma_pair)
    gains = gains_there(draws, world) if apart else draws.gains
    shape = (*draws.gains.shape, rule.screen_pairs + rule.extend_pairs)
    early = gains[..., None] + draws.noise(shape, noise * draws.world.sigma_pair)
    pairs = draws.pairs(rule.looks[-1])
    cost = world.cost if apart else 1.0
    if learned:
        own = draws.gains[..., None] + draws.noise(shape, draws.world.sigma_pair)
        later = pairs[..., :FIRST_PAIRS].mean(axis=-1)
        ways = [_learned(early[at], own[at], later[at], rule, there[at], sigma[at], cost) for at in range(len(early))]
        passed, device = np.stack([way.passed for way in ways]), np.stack([way.device for way in ways])
        hurdle = np.array([float(way.hurdle) for way in ways])
    else:
        passed, trials = screened(early, rule, there[:, None], rule.extend_sigma * there[:, None])
        device, hurdle = np.asarray(cost * trials, dtype=float), np.full(len(early), rule.extend_sigma)
    done = confirm(draws, pairs, rule, bars, sigma, passed, np.zeros(passed.shape, np.int64))
    found: Tally = tally(draws, done)
    return ScreenTally(
        false_merges=found.false_merges, true_merges=found.true_merges,
        device=found.trials + float(device.sum(axis=1).mean()),
        confirmed=float(passed.sum(axis=1).mean()), hurdle=float(hurdle.mean()),
    )  # fmt: skip


def _learned(early: Array, own: Array, later: Array, rule: Rule, there: float, sigma: float, cost: float) -> Play:
    """One campaign, one candidate after the other: the hurdle follows the techniques measured at both presets.

    Where these do not show that the cheaper preset foretells anything, the project's own screens from then on.
    """
    target, low, high = rule.futility_sigma * sigma, *(share * there for share in rule.hurdle_range)
    hurdle, points, read, blind = rule.extend_sigma * there, list[Point](), 0, False
    passed, device = np.zeros(len(early), dtype=bool), np.zeros(len(early))
    for at in range(len(early)):
        gains, noise, least = (own, sigma, rule.extend_sigma * sigma) if blind else (early, there, hurdle)
        one, spent = screened(gains[at : at + 1], rule, np.array([noise]), np.array([least]))
        passed[at], device[at] = one[0], (1.0 if blind else cost) * spent[0]
        if blind or not one[0]:
            continue
        points.append(Point("", float(early[at].mean()), float(later[at]), early.shape[1], FIRST_PAIRS, True))
        if len(points) >= LEAST_TECHNIQUES and len(points) >= read + REFIT:
            read, relation = len(points), relate(points, target, DRAWS)
            blind = relation is not None and not relation.is_shown
            crossing = None if relation is None or blind else relation.least
            hurdle = rule.extend_sigma * there if crossing is None else min(max(crossing, low), high)
    return Play(passed, device, np.array(hurdle / there))


def compare(
    base: World, world: ScreenWorld, rule: Rule, campaigns: int, candidates: int, seed: int
) -> dict[str, ScreenTally]:  # fmt: skip
    """Screening under the project's own preset, under the other one, and with what the lab learns of the two."""
    bars = shipped_bars(rule, candidates)
    plays: dict[str, Callable[[Draws], ScreenTally]] = {
        "own_preset": lambda draws: play(draws, world, rule, bars, learned=False, apart=False),
        "screen_preset": lambda draws: play(draws, world, rule, bars, learned=False),
        "screen_preset_learned": lambda draws: play(draws, world, rule, bars, learned=True),
    }
    return {name: run(draw(base, campaigns, candidates, seed)) for name, run in plays.items()}


def agreement(base: World, world: ScreenWorld, seed: int) -> float:
    """The correlation of the two true gains over changes that do something at either preset."""
    draws = draw(base, 500, 200, seed)
    there = gains_there(draws, world)
    some = (draws.gains != 0) | (there != 0)
    found = float(np.corrcoef(draws.gains[some], there[some])[0, 1])
    return found if math.isfinite(found) else 0.0
