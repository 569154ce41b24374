"""The catalogue researcher on plain records: what it proposes follows from what it is shown, and from nothing else."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from benchmarks.catalogue import Catalogue, Step, Technique, Tunable
from benchmarks.edits import DoesNotApply
from research.researchers.base import Attempt, Directives, LessonView, NothingToPropose, View
from research.researchers.catalogue import NEAR, CatalogueResearcher, distance, posterior, suggest
from tests.benchmarks.toy.catalogue import CATALOGUE

HEAD = "h" * 40
START = {"train.py": "ALPHA = 1.0\nGAMMA = 1.0\nBETA = 1.0\n", "model.py": "DELTA = 1.0\n"}
SOUND = Catalogue([CATALOGUE[name] for name in ("alpha", "beta", "gamma", "delta")])
RESEARCHER = CatalogueResearcher()


def view(**changes: object) -> View:
    plain = View(
        head=HEAD, sources=START, start_sources=START, recipe=(), catalogue=SOUND, lessons=(), attempts=(),
        sigma=0.008, seed=1, seconds_a_pair=2.0,
    )  # fmt: skip
    return replace(plain, **changes)  # type: ignore[arg-type]


def lesson(name: str, effect: float | None, kind: str = "no_gain", **changes: object) -> LessonView:
    steps = (Step(name, {"value": 2.0}),)
    plain = LessonView(kind, steps, HEAD, (), effect, 0.002, 3, "a lesson")
    return replace(plain, **changes)  # type: ignore[arg-type]


def attempt(name: str, value: float = 2.0, **changes: object) -> Attempt:
    plain = Attempt((Step(name, {"value": value}),), HEAD, running=False, other_thread=False, kind="technique")
    return replace(plain, **changes)  # type: ignore[arg-type]


def proposed(shown: View, seeds: Sequence[int] = range(12)) -> set[tuple[str, ...]]:
    """Names of the techniques proposed under several seeds."""
    drafts = [RESEARCHER.propose(replace(shown, seed=seed)) for seed in seeds]
    return {tuple(step.technique for step in draft.steps) for draft in drafts}


def test_the_same_view_gives_the_same_proposal() -> None:
    shown = view(lessons=[lesson("alpha", 0.02)], attempts=[attempt("alpha")])
    assert RESEARCHER.propose(shown) == CatalogueResearcher().propose(shown)
    assert len(proposed(shown)) > 1, "another seed may propose something else"


def test_measurements_move_the_posterior() -> None:
    technique = SOUND["alpha"]
    prior = posterior(technique, [])
    good = posterior(technique, [lesson("alpha", 0.06)])
    bad = posterior(technique, [lesson("alpha", -0.06)])
    failed = posterior(technique, [lesson("alpha", None, "failure")])
    assert prior == (technique.prior_gain, technique.prior_sd)
    assert bad[0] < prior[0] < good[0] and failed[0] < prior[0]
    assert max(good[1], bad[1], failed[1]) < prior[1]
    assert posterior(technique, [lesson("beta", 0.5)]) == prior
    both = posterior(technique, [lesson("alpha", 0.06)] * 2)
    assert good[0] < both[0] < 0.06 and both[1] < good[1]


def test_what_did_harm_is_proposed_less_than_what_helped() -> None:
    lessons = [lesson("alpha", -0.1), lesson("beta", 0.1), lesson("gamma", -0.1), lesson("delta", -0.1)]
    assert proposed(view(lessons=lessons)) == {("beta",)}


def test_the_first_try_takes_the_defaults_and_the_next_ones_ask_the_sampler() -> None:
    only = Directives(focus=frozenset({"alpha"}))
    first = RESEARCHER.propose(view(directives=only))
    assert first.steps[0].tunables == {"value": 2.0}
    tried = view(directives=only, attempts=[attempt("alpha")], lessons=[lesson("alpha", -0.01)])
    second = RESEARCHER.propose(tried).steps[0].tunables["value"]
    assert isinstance(second, float) and 1.5 <= second <= 9.0 and second != 2.0


def test_on_a_new_head_the_settings_that_worked_best_come_first() -> None:
    steps = (Step("alpha", {"value": 5.0}),)
    lessons = [lesson("alpha", 0.01, base="other"), lesson("alpha", 0.03, base="other", steps=steps)]
    draft = RESEARCHER.propose(view(lessons=lessons, directives=Directives(focus=frozenset({"alpha"}))))
    assert draft.steps[0].tunables == {"value": 5.0}


def test_a_technique_is_tried_three_times_on_a_head() -> None:
    attempts = [attempt("alpha", value) for value in (2.0, 4.0, 8.0)]
    only = Directives(focus=frozenset({"alpha"}))
    with pytest.raises(NothingToPropose, match="loosen the steering"):
        RESEARCHER.propose(view(directives=only, attempts=attempts))
    elsewhere = [replace(old, base="another head") for old in attempts]
    assert RESEARCHER.propose(view(directives=only, attempts=elsewhere))


def test_two_near_misses_come_back_together_as_they_were_measured() -> None:
    steps = {name: (Step(name, {"value": value}),) for name, value in (("alpha", 5.0), ("delta", 7.0))}
    lessons = [lesson(name, 0.01, "near_miss", steps=steps[name]) for name in steps]
    attempts = [attempt(name, value) for name in steps for value in (2.0, 5.0, 7.0)]
    only = Directives(focus=frozenset(steps))
    draft = RESEARCHER.propose(view(lessons=lessons, attempts=attempts, directives=only))
    assert draft.kind == "joint" and draft.steps == (*steps["alpha"], *steps["delta"])
    assert 0 < draft.expected_effect < 0.02
    tried = [*attempts, Attempt(draft.steps, HEAD, False, False, "joint")]
    with pytest.raises(NothingToPropose):
        RESEARCHER.propose(view(lessons=lessons, attempts=tried, directives=only))


def test_steering_is_obeyed() -> None:
    assert proposed(view(directives=Directives(focus=frozenset({"model"})))) == {("delta",)}
    assert proposed(view(directives=Directives(focus=frozenset({"beta"})))) == {("beta",)}
    without = proposed(view(directives=Directives(forbid=frozenset({"train"}))))
    assert without == {("delta",)}
    both = Directives(focus=frozenset({"train"}), forbid=frozenset({"alpha", "gamma"}))
    assert proposed(view(directives=both)) == {("beta",)}
    with pytest.raises(NothingToPropose):
        RESEARCHER.propose(view(directives=Directives(focus=frozenset({"model"}), forbid=frozenset({"delta"}))))


def test_what_another_thread_is_trying_now_is_not_repeated() -> None:
    only = Directives(focus=frozenset({"alpha"}))
    running = attempt("alpha", running=True, other_thread=True, base="another head")
    with pytest.raises(NothingToPropose):
        RESEARCHER.propose(view(directives=only, attempts=[running]))
    mine = replace(running, other_thread=False)
    draft = RESEARCHER.propose(view(directives=only, attempts=[mine]))
    assert distance(SOUND["alpha"], draft.steps[0], running.steps[0]) >= NEAR
    plain = Technique("plain", "plain", "f", "It helps.", "none", lambda sources, _: sources | {"a.py": "A = 1\n"})
    catalogue = Catalogue([plain])
    busy = replace(running, steps=(Step("plain", {}),))
    with pytest.raises(NothingToPropose):
        RESEARCHER.propose(view(catalogue=catalogue, attempts=[busy]))
    ended = replace(busy, running=False)
    assert RESEARCHER.propose(view(catalogue=catalogue, attempts=[ended])).steps == (Step("plain", {}),)


def test_what_another_thread_has_confirmed_comes_by_merging() -> None:
    assert proposed(view(elsewhere={"alpha": "thread 2", "beta": "thread 2", "gamma": "thread 2"})) == {("delta",)}
    lessons = [lesson(name, 0.03, "near_miss") for name in ("alpha", "delta")]
    shown = view(lessons=lessons, elsewhere=dict.fromkeys(("alpha", "beta", "gamma"), "thread 2"))
    assert proposed(shown) == {("delta",)}


def test_techniques_that_exclude_each_other_never_stand_together() -> None:
    rival = replace(SOUND["alpha"], name="rival", excludes=("alpha",))
    catalogue = Catalogue([SOUND["alpha"], rival])
    recipe = (Step("alpha", {"value": 2.0}),)
    sources = catalogue.apply(START, recipe)
    kinds = {
        RESEARCHER.propose(view(catalogue=catalogue, recipe=recipe, sources=sources, seed=seed)).steps[0].technique
        for seed in range(8)
    }
    assert kinds == {"alpha"}


def test_a_technique_of_the_head_is_retuned_from_the_start() -> None:
    recipe = (Step("alpha", {"value": 2.0}), Step("beta", {"value": 3.0}))
    sources = SOUND.apply(START, recipe)
    draft = RESEARCHER.propose(view(recipe=recipe, sources=sources, directives=Directives(focus=frozenset({"alpha"}))))
    assert draft.kind == "retune"
    changed, new = RESEARCHER.implement(view(recipe=recipe, sources=sources), draft.kind, draft.steps)
    assert new == (draft.steps[0], recipe[1])
    assert "BETA = 3.0" in changed["train.py"] and "ALPHA = 2.0" not in changed["train.py"]
    with pytest.raises(DoesNotApply, match="more than its recipe"):
        by_hand = sources | {"train.py": sources["train.py"] + "X = 1\n"}
        RESEARCHER.implement(view(recipe=recipe, sources=by_hand), draft.kind, draft.steps)


def test_a_technique_that_does_not_apply_is_passed_over() -> None:
    shown = view(
        catalogue=Catalogue([CATALOGUE["stubborn"], SOUND["beta"]]), sources=START | {"train.py": "BETA = 1.0\n"}
    )
    assert proposed(shown) == {("beta",)}


def test_the_sampler_survives_values_that_the_catalogue_no_longer_has() -> None:
    technique = replace(
        SOUND["alpha"], tunables=(Tunable("kind", "a", choices=("a", "b")), Tunable("rows", 8, 4, 64, True, True))
    )
    measured = [({"kind": "gone", "rows": 8}, 0.1), ({"kind": "a", "rows": 1000}, 0.1), ({"rows": 8}, 0.1)]
    sound = [({"kind": "a", "rows": 8}, 0.1)] * 4
    chosen = suggest(technique, [*measured, *sound], seed=1)
    assert chosen["kind"] in ("a", "b") and isinstance(chosen["rows"], int) and 4 <= chosen["rows"] <= 64
    assert suggest(technique, [*measured, *sound], seed=1) == chosen


def test_distance_is_a_share_of_the_range() -> None:
    tunables = (Tunable("a", 1, 1, 100, log=True), Tunable("b", 0, 0, 10), Tunable("c", "x", choices=("x", "y")))
    technique = replace(SOUND["alpha"], tunables=tunables)

    def step(a: float, b: float, c: str) -> Step:
        return Step("alpha", {"a": a, "b": b, "c": c})

    assert distance(technique, step(1, 0, "x"), step(10, 0, "x")) == pytest.approx(0.5)
    assert distance(technique, step(1, 0, "x"), step(1, 2, "x")) == pytest.approx(0.2)
    assert distance(technique, step(1, 0, "x"), step(1, 0, "y")) == 1.0
    assert distance(technique, Step("alpha", {}), step(1, 0, "x")) == 0.0


def test_nothing_is_tried_where_nothing_is_left_to_gain_and_no_more_hoped_for_than_is_left() -> None:
    shown = view(catalogue=Catalogue([SOUND["alpha"], SOUND["beta"]]), room={"alpha": 0.02, "beta": 0.031})
    assert proposed(shown) == {("beta",)}
    assert all(RESEARCHER.propose(replace(shown, seed=seed)).expected_effect <= 0.031 for seed in range(12))
    with pytest.raises(NothingToPropose, match="nothing left to gain"):
        RESEARCHER.propose(replace(shown, room={"alpha": 0.0, "beta": 0.0}))
    asked = replace(shown, room={"alpha": 0.0, "beta": 0.0}, directives=Directives(again=frozenset({"alpha"})))
    assert proposed(asked) == {("alpha",)}, "a person may still ask for it"
