"""The nanochat lane as the red team plays it."""

from __future__ import annotations

import random
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from benchmarks import exploit as planted
from benchmarks.catalogue import Catalogue, Sources, Step
from benchmarks.contract import Preset, load
from benchmarks.data import DataError, data_folder, data_id
from benchmarks.edits import DoesNotApply
from benchmarks.exploit import Exploit, Margin
from benchmarks.nanochat import evaluate
from benchmarks.nanochat import exploits as shared
from benchmarks.nanochat.redteam.bait import bait, facts_of
from benchmarks.nanochat.redteam.guards import GUARDS, TREE_GUARDS, OpenEvaluator
from benchmarks.redteam_box import BOX_GUARDS, sandbox
from benchmarks.redteam_lane import Candidate
from runners.sandbox import Sandbox

SEED = 20_261_124


class NanochatLane:
    benchmark = "nanochat"
    guards, tree_guards, box_guards = GUARDS, TREE_GUARDS, BOX_GUARDS
    margin = Margin()
    looked_at: frozenset[str] = frozenset()
    problems: tuple[str, ...] = ()

    def exploits(self) -> dict[str, Exploit]:
        return planted.corpus(shared.__name__, Path(str(shared.__file__)).parent, GUARDS)

    def plain(self) -> Sources:
        return shared.plain()

    def prepared(self, preset: Preset) -> Path:
        from benchmarks.nanochat.__main__ import install_data

        try:
            return data_folder("nanochat") / data_id("nanochat", preset)[:16]
        except DataError:
            return data_folder("nanochat") / install_data().data_id[:16]

    @contextmanager
    def facts(self, data: Path, preset: Preset) -> Iterator[dict[str, str]]:
        with bait((data / "val_screen.bin").read_bytes()) as services:
            yield facts_of(data, preset) | services

    def evaluator(self) -> evaluate.Evaluator:
        return evaluate.Evaluator()

    def open_evaluator(self) -> OpenEvaluator:
        return OpenEvaluator()

    def sandbox(self, slot: int, removed: frozenset[str], data: Path) -> AbstractContextManager[Sandbox]:
        return sandbox(slot, removed, data, evaluate)

    def honest(self, data: Path, preset: Preset, count: int) -> list[Candidate]:
        """Candidates of the catalogue, trained for the preset's whole budget as in the lab."""
        contract = load("nanochat")
        start = {path: text.decode() for path, text in contract.start_files("vanilla", preset.name).items()}
        catalogue = contract.load_catalogue(preset.name).CATALOGUE
        recipes = honest_recipes(catalogue, start, count)
        return [Candidate(_names(recipe), catalogue.apply(start, recipe), start) for recipe in recipes]


LANE = NanochatLane()


def _names(recipe: tuple[Step, ...]) -> tuple[str, ...]:
    return tuple(step.technique for step in recipe)


def honest_recipes(catalogue: Catalogue, sources: Sources, count: int, seed: int = SEED) -> list[tuple[Step, ...]]:
    """Every technique by itself, then combinations of two to four that apply, drawn from the seed; `count` in all."""
    draw, names = random.Random(seed), list(catalogue)
    recipes: list[tuple[Step, ...]] = [(Step(name, catalogue[name].defaults()),) for name in names]
    draw.shuffle(recipes)
    seen = {_names(recipe) for recipe in recipes}
    for _ in range(100 * count):
        if len(recipes) >= count:
            break
        chosen = draw.sample(names, draw.randint(2, 4))
        recipe = tuple(Step(name, catalogue[name].defaults()) for name in chosen)
        if tuple(chosen) in seen or any(catalogue.clash(name, set(chosen) - {name}) for name in chosen):
            continue
        seen.add(tuple(chosen))
        try:
            catalogue.apply(sources, recipe)
        except DoesNotApply:
            continue
        recipes.append(recipe)
    return recipes[:count]
