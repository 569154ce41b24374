"""The rules that a project can choose, by name. One literal table; the first is the default.

A rule is made once, when the project begins, and travels with it as a record: changing this table changes no project.
"""

from collections.abc import Callable
from dataclasses import dataclass

from research.validation.records import Direction, Procedure, Rule, Scale

CENSORED_SHARE = 0.25  # of the evidence about times, for runs that may hit their cap


class RuleError(ValueError):
    """A rule that does not exist or lacks what it needs, in one line."""


@dataclass(frozen=True)
class Setting:
    """What a benchmark and its preset give a rule, and what a person set."""

    direction: Direction
    scale: Scale = Scale.LINEAR
    futility_from: int = 8
    noise_trials: int = 12
    target: float | None = None


@dataclass(frozen=True)
class NamedRule:
    says: str  # one line for whoever chooses
    make: Callable[[Setting], Rule]
    needs_target: bool = False


def named_rule(name: str, setting: Setting) -> Rule:
    """Raises RuleError with one line that says what to do."""
    if name not in RULES:
        raise RuleError(f"there is no rule {name!r}; choose one of {', '.join(RULES)}")
    if RULES[name].needs_target and setting.target is None:
        raise RuleError(f"the rule {name} needs a target score")
    if not RULES[name].needs_target and setting.target is not None:
        raise RuleError(
            f"the rule {name} has no target; only {', '.join(n for n in RULES if RULES[n].needs_target)} has"
        )
    try:
        return RULES[name].make(setting)
    except ValueError as error:
        raise RuleError(str(error)) from error


def funnel(setting: Setting) -> Rule:
    return Rule(
        direction=setting.direction,
        scale=setting.scale,
        censored_share=CENSORED_SHARE if setting.scale is Scale.LOG else 0.0,
        futility_from=setting.futility_from,
        noise_trials=setting.noise_trials,
    )


def ten_seeds(setting: Setting) -> Rule:
    return _fixed("ten_seeds", Procedure.PAIRS, setting)


def speedrun(setting: Setting) -> Rule:
    """The public rule of the NanoGPT speedrun: mean below the target with one-sided p < 0.01, and a better record."""
    if setting.scale is Scale.LOG and setting.target is not None and setting.target <= 0:
        raise RuleError("the target of a time must be above 0")
    return _fixed("speedrun", Procedure.TARGET, setting)


def _fixed(name: str, procedure: Procedure, setting: Setting) -> Rule:
    return Rule(
        direction=setting.direction,
        name=name,
        procedure=procedure,
        scale=setting.scale,
        target=setting.target,
        screen_pairs=0,
        extend_pairs=0,
        looks=(10,),
        noise_trials=setting.noise_trials,
        level=0.01,
    )


RULES: dict[str, NamedRule] = {
    "funnel": NamedRule(
        "Screens cheaply, confirms on fresh pairs, and asks for more evidence the more a project tries.", funnel
    ),
    "ten_seeds": NamedRule(
        "Ten fresh pairs for every idea, read once: paired t-test, one-sided p < 0.01. No screening, no early stop.",
        ten_seeds,
    ),
    "speedrun": NamedRule(
        "Ten runs of the candidate, read once: mean better than a target with one-sided p < 0.01.", speedrun, True
    ),
}
DEFAULT = next(iter(RULES))
