"""`manage.py simulate`: campaigns with known truth, under the shipped rule and the usual ones. Ends with one JSON."""

from __future__ import annotations

import json
import math
import time
from dataclasses import asdict, replace
from typing import Any

from django.core.management.base import BaseCommand, CommandError

from research.models import NoiseFloor, Project, Result
from research.validation import simulate, simulate_screens, stats
from research.validation.named import CENSORED_SHARE
from research.validation.records import Direction, Rule

SEED = 20_261_123
NULL_STREAMS, NULL_LOOKS = 4_000, tuple(range(4, 41, 2))
CAPS = (1.5, 0.5, -0.5)  # sd of a log time: 7, 31 and 69 % of runs hit it
SCREENED = 10  # campaigns that are played once with two presets
LONG = 2_000  # candidates of the long campaigns
SHOWN = ("false_merges", "true_merges", "trials", "power", "fdp", "share_with_merge")


class Command(BaseCommand):
    help = "Simulate campaigns: false and true merges, power and cost of the shipped rule and of others."

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--campaigns", type=int, default=200)
        parser.add_argument("--candidates", type=int, default=200)
        parser.add_argument("--project", help="take rule, noise and drift from this project's stored noise floor")
        parser.add_argument("--sigma", type=float, help="sd of one trial by hand, in units of the metric")
        parser.add_argument("--drift", type=float, help="drift by hand, in sigma of a trial as a noise floor has it")
        parser.add_argument("--seed", type=int, default=SEED)
        parser.add_argument("--json", action="store_true", help="print only the JSON object on stdout")

    def handle(self, *args: Any, **options: Any) -> None:
        if not 1 <= options["campaigns"] <= 10_000 or not 4 <= options["candidates"] <= 20_000:
            raise CommandError("--campaigns must be 1 to 10000 and --candidates 4 to 20000", returncode=2)
        if options["project"] and (options["sigma"], options["drift"]) != (None, None):
            raise CommandError("--project brings sigma and drift; leave --sigma and --drift out", returncode=2)
        if options["sigma"] is not None and not 0 < options["sigma"] < math.inf:
            raise CommandError("--sigma must be above 0", returncode=2)
        began = time.monotonic()
        rule = Rule(direction=Direction.LOWER)
        worlds: tuple[simulate.World, ...] = simulate.WORLDS
        if options["project"]:
            rule, worlds = measured(options["project"])
        elif options["sigma"] is not None or options["drift"] is not None:
            sigma = options["sigma"] or worlds[0].sigma_trial
            worlds = tuple(world.measured(sigma, world.correlation, options["drift"] or 0.0) for world in worlds)
        result = run(rule, worlds, options["campaigns"], options["candidates"], options["seed"])
        result["seconds"] = round(time.monotonic() - began, 1)
        if not options["json"]:
            self.show(result)
        self.stdout.write(json.dumps(result, allow_nan=False))

    def show(self, result: dict[str, Any]) -> None:
        for name, tallies in result["worlds"].items():
            self.stdout.write(f"{name}\n  {'rule':22}" + "".join(f"{column:>17}" for column in SHOWN))
            for rule, tally in tallies.items():
                self.stdout.write(f"  {rule:22}" + "".join(f"{tally[column]!s:>17}" for column in SHOWN))
        for name, plays in result["screens"].items():
            self.stdout.write(f"screened apart, {name}: gains of both presets correlate by {plays['agreement']}")
            for play, found in list(plays.items())[1:]:
                self.stdout.write(f"  {play:22}" + "".join(f"{key} {value:<9g}" for key, value in found.items()))
        self.stdout.write(f"long campaigns: {result['long']}")
        self.stdout.write(f"null streams that ever reach e >= 20: {result['p_e_ge_20']:.4f}")
        for cap, share in result["p_capped_e_ge_20"].items():
            self.stdout.write(f"  of times of which those above {cap} sd are cut: {share:.4f}")


def run(rule: Rule, worlds: tuple[simulate.World, ...], campaigns: int, candidates: int, seed: int) -> dict[str, Any]:
    played = {world.name: simulate.compare(world, rule, campaigns, candidates, seed) for world in worlds}
    shipped = simulate.shipped_bars(rule, LONG)
    screens = {
        world.name: {
            "agreement": float(f"{simulate_screens.agreement(worlds[0], world, seed):.3g}"),
            **{
                name: {column: float(f"{value:.4g}") for column, value in asdict(found).items()}
                for name, found in simulate_screens.compare(
                    worlds[0], world, rule, max(1, campaigns // SCREENED), candidates, seed
                ).items()
            },
        }
        for world in simulate_screens.WORLDS
    }
    times = replace(rule, censored_share=CENSORED_SHARE)
    draws = simulate.draw(worlds[0], max(1, campaigns // 5), LONG, seed)
    long = simulate.tally(draws, simulate.funnel(draws, rule, shipped))
    tables = {name: {key: rounded(tally) for key, tally in rules.items()} for name, rules in played.items()}
    first, barren = tables[worlds[0].name], tables["barren"]
    return {
        "rules": {key: {column: tally[column] for column in SHOWN} for key, tally in first.items()},
        "recommended": simulate.RECOMMENDED,
        "barren_share_with_merge": barren[simulate.RECOMMENDED]["share_with_merge"],
        "power_last_quarter": rounded(long)["power_last_quarter"],
        "p_e_ge_20": simulate.null_crossings(rule.effects, 20.0, NULL_STREAMS, NULL_LOOKS, seed),
        "p_capped_e_ge_20": {
            str(cap): simulate.capped_crossings(times, 20.0, NULL_STREAMS, NULL_LOOKS, cap, seed) for cap in CAPS
        },
        "long": {"candidates": LONG, "campaigns": len(draws.gains), **rounded(long)},
        "worlds": tables,
        "screens": screens,
        "settings": {
            "campaigns": campaigns, "candidates": candidates, "seed": seed, "alpha": rule.alpha,
            "gamma": f"(t + {stats.GAMMA_SHIFT})^-{stats.GAMMA_POWER}", "looks": rule.looks,
            "worlds": [without_infinity(world) for world in worlds],
        },
    }  # fmt: skip


def without_infinity(world: simulate.World) -> dict[str, Any]:
    """JSON has no infinity: normal noise has a tail of null."""
    return asdict(world) | {"tail": None if math.isinf(world.tail) else world.tail}


def rounded(tally: simulate.Tally) -> dict[str, float | None]:
    """Four significant digits; null where nothing could be measured (no real gain to find)."""
    return {name: None if value != value else float(f"{value:.4g}") for name, value in asdict(tally).items()}


def measured(name: str) -> tuple[Rule, tuple[simulate.World, ...]]:
    """The worlds with the noise and drift of a project's floor; effects keep their size against sigma of a trial."""
    project = Project.objects.filter(name=name).first()
    if project is None:
        raise CommandError(f"no project named {name!r}", returncode=2)
    floor = NoiseFloor.objects.filter(**project.noise_key).order_by("-measured").first()
    if floor is None:
        raise CommandError(f"{name} has no noise floor yet; it is measured when its first trials run", returncode=2)
    rule = Rule.from_json(project.rule)
    if not rule.is_sequential:
        raise CommandError(f"{name} has the rule {rule.name}, which is simulated without --project too", returncode=2)
    sigma = floor.sigma_trial
    if not sigma:
        raise CommandError(f"{name} has a noise floor of zero: its trials never differ", returncode=2)
    correlation = 1 - floor.sigma_pair**2 / (2 * sigma**2)
    worlds = tuple(world.measured(sigma, correlation, floor.drift) for world in simulate.WORLDS)
    trials = Result.objects.filter(trial__project=project).count()
    return rule, (replace(worlds[0], name=f"{name}, {trials} trials measured"), *worlds[1:])
