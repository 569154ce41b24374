"""Each technique of the nanochat lane: it does something, trains, sees no later byte, and leaves no trace unused."""

from __future__ import annotations

from functools import cache

import pytest
import torch

from benchmarks.catalogue import Technique
from benchmarks.edits import DoesNotApply
from benchmarks.nanochat.catalogue.cpu import CATALOGUE
from tests import technique_play as play

pytestmark = pytest.mark.torch

every_technique = pytest.mark.parametrize("technique", CATALOGUE.values(), ids=list(CATALOGUE))
SAME_RESULT = {"flat_parameters", "flush_denormals", "fewer_logs"}  # they only claim to be faster
CUTS = (1, 16, 77, 127)  # the first byte that is not what it was


@cache
def start() -> play.Run:
    return play.run(play.START)


def test_the_start_trains_the_same_way_twice():
    again = play.run(play.START)
    assert torch.equal(again.scores, start().scores)
    assert again.losses == start().losses and len(again.losses) == 12


@every_technique
def test_a_technique_changes_what_is_learned(technique: Technique):
    """From the same first weights wherever both have them: other random numbers must not pass for an effect."""
    changed = play.run(play.changed(technique), start().first)
    assert len(changed.losses) >= 1 and all(torch.tensor(changed.losses).isfinite())
    assert changed.scores.isfinite().all()
    other_first = changed.names == start().names and any(
        not torch.equal(value, start().first[name]) for name, value in changed.first.items()
    )
    same = torch.allclose(changed.scores, start().scores, atol=1e-6)
    assert same == (technique.name in SAME_RESULT) or other_first


@every_technique
def test_no_score_depends_on_a_later_byte_or_on_another_row(technique: Technique):
    with play.loaded(play.changed(technique)) as tree, torch.inference_mode():
        model = play.shaken(tree)
        scores = model(play.ROWS)
        for cut in CUTS:
            other = play.ROWS.clone()
            other[:, cut:] = (other[:, cut:] + 1) % play.VOCABULARY
            after = model(other)
            assert torch.allclose(after[:, :cut], scores[:, :cut], atol=1e-5)
            assert not torch.allclose(after[:, cut], scores[:, cut], atol=1e-3)
        assert torch.allclose(model(play.ROWS[:, :5]), scores[:, :5], atol=1e-5)
        assert torch.allclose(model(play.ROWS[1:2]), scores[1:2], atol=1e-5)


@every_technique
def test_the_diff_shows_the_constants_and_the_start_does_not(technique: Technique):
    sources = play.changed(technique)
    added = play.added_lines(sources)
    assert added
    for name, value in technique.defaults().items():
        assert any(str(value) in line for line in added), f"{name} = {value} cannot be seen in the diff"
    for constant in play.constants(sources) - play.constants(play.START):
        assert play.mentions(play.START, constant) == 0
        assert play.mentions(sources, constant) >= 2, f"{constant} is set and never used"


@every_technique
def test_a_technique_says_what_it_claims(technique: Technique):
    assert technique.name == technique.name.lower() and technique.name.isidentifier()
    assert technique.hypothesis.endswith(".") and technique.hypothesis.count(". ") == 0
    assert technique.source and technique.title and -0.5 < technique.prior_gain < 0.5 and technique.prior_sd > 0
    assert all(other in CATALOGUE for other in technique.excludes)
    for tunable in technique.tunables:
        assert tunable.default in tunable.choices or tunable.low <= tunable.default <= tunable.high


@every_technique
def test_every_bound_and_choice_of_a_tunable_builds(technique: Technique):
    for tunable in technique.tunables:
        for value in tunable.choices or (tunable.low, tunable.high):
            chosen = technique.defaults() | {tunable.name: int(value) if tunable.integer else value}
            with play.loaded(technique.apply(dict(play.START), chosen)) as tree:
                model = tree.build()
                assert tree.optim.build_optimizer(model).param_groups
                assert model(play.ROWS[:1, :9]).isfinite().all()


def test_a_technique_refuses_a_tree_without_its_lines():
    gone = play.START | {"model.py": play.START["model.py"].replace("v = split_heads(v)", "v = other_heads(v)")}
    with pytest.raises(DoesNotApply, match="v = split_heads"):
        CATALOGUE["qk_norm"].apply(gone, CATALOGUE["qk_norm"].defaults())


def test_a_technique_does_not_apply_twice():
    technique = CATALOGUE["lag_embeddings"]
    once = technique.apply(dict(play.START), technique.defaults())
    with pytest.raises(DoesNotApply, match="LAGS exists already"):
        technique.apply(once, technique.defaults())
