"""Each technique of the GPU lane at tiny size: it does something, trains, sees no later token, leaves no trace."""

from __future__ import annotations

import re
import subprocess
import sys
from functools import cache

import pytest
import torch

from benchmarks.catalogue import Technique
from benchmarks.edits import DoesNotApply
from benchmarks.nanochat.catalogue.gpu import CATALOGUE
from tests import gpu_technique_play as play

pytestmark = pytest.mark.torch

CUTS = (1, 13, 31)  # the first token that is not what it was
SAME_RESULT = {"compile_mode", "inductor_search", "tf32", "fewer_logs", "fused_relu_squared"}  # only faster, on a GPU
SCALED = {"batch_tokens", "batch_schedule"}
OTHER_FIRST = {"token_std", "output_init", "input_init", "depth_scaled_stream", "x0_weight", "zero_init", "first_sizes"}


@cache
def applies(start: str) -> tuple[str, ...]:
    """Names of the techniques that apply to a start, with what they require."""
    names = []
    for name, technique in CATALOGUE.items():
        try:
            play.changed(technique, start)
        except DoesNotApply:
            continue
        names.append(name)
    return tuple(names)


ON_MODERN = applies("modern")
CHAIN = tuple(name for name in CATALOGUE if name not in ON_MODERN)
OTHER_MODEL = tuple(
    name for name in ON_MODERN
    if play.changed(CATALOGUE[name], "modern")["model.py"] != play.start("modern")["model.py"]
)  # fmt: skip

on_modern = pytest.mark.parametrize("technique", [CATALOGUE[name] for name in ON_MODERN], ids=ON_MODERN)
of_other_model = pytest.mark.parametrize("technique", [CATALOGUE[name] for name in OTHER_MODEL], ids=OTHER_MODEL)
in_chain = pytest.mark.parametrize("technique", [CATALOGUE[name] for name in CHAIN], ids=CHAIN)
every_technique = pytest.mark.parametrize("technique", CATALOGUE.values(), ids=list(CATALOGUE))


@cache
def untouched(start: str) -> play.Run:
    return play.run(play.start(start))


def learns_something_else(technique: Technique, start: str) -> None:
    """From the same first weights wherever both have them: other random numbers must not pass for an effect."""
    base = untouched(start)
    changed = play.run(play.changed(technique, start), base.first)
    assert changed.losses and torch.tensor(changed.losses).isfinite().all()
    assert changed.scores.isfinite().all()
    assert changed.reserved == {name: value.shape for name, value in changed.state.items()}
    assert min(value.numel() for value in changed.state.values()) > 1, "compiled AdamW of one number failed on an H200"
    same = torch.equal(changed.scores, base.scores)
    if technique.name in OTHER_FIRST:
        common = changed.first.keys() & base.first.keys()
        assert any(not torch.equal(changed.first[name], base.first[name]) for name in common)
    else:
        assert same == (technique.name in SAME_RESULT)


def sees_no_later_token(technique: Technique, start: str) -> None:
    with play.loaded(play.changed(technique, start)) as modules, torch.inference_mode():
        model = play.shaken(modules)
        scores = model(play.ROWS)
        for cut in CUTS:
            other = play.ROWS.clone()
            other[:, cut:] = (other[:, cut:] + 1) % play.VOCABULARY
            after = model(other)
            assert torch.allclose(after[:, :cut], scores[:, :cut], atol=1e-4)
            assert not torch.allclose(after[:, cut], scores[:, cut], atol=1e-3)
        assert torch.allclose(model(play.ROWS[1:2]), scores[1:2], atol=1e-4)


@on_modern
def test_a_technique_changes_what_modern_learns(technique: Technique):
    learns_something_else(technique, "modern")


@in_chain
def test_a_technique_changes_what_vanilla_learns(technique: Technique):
    learns_something_else(technique, "vanilla")


@pytest.mark.slow
@every_technique
def test_every_technique_that_applies_changes_what_vanilla_learns(technique: Technique):
    if technique.name in applies("vanilla"):
        learns_something_else(technique, "vanilla")


@of_other_model
def test_no_score_of_modern_depends_on_a_later_token_or_on_another_row(technique: Technique):
    sees_no_later_token(technique, "modern")


@pytest.mark.slow
@every_technique
def test_no_score_of_vanilla_depends_on_a_later_token_or_on_another_row(technique: Technique):
    if technique.name in applies("vanilla"):
        sees_no_later_token(technique, "vanilla")


def test_there_are_techniques_enough_for_modern():
    assert len(ON_MODERN) >= 80 and len(CHAIN) >= 15


@pytest.mark.slow
def test_there_are_techniques_enough_for_vanilla():
    assert len(applies("vanilla")) >= 60 and set(CHAIN) <= set(applies("vanilla"))


@every_technique
def test_the_diff_shows_the_constants_and_the_start_does_not(technique: Technique):
    start = "modern" if technique.name in ON_MODERN else "vanilla"
    before = play.CATALOGUE.apply(dict(play.start(start)), play.steps_of(technique)[:-1])
    sources = play.changed(technique, start)
    added = play.added_lines(before, sources)
    assert added
    for name, value in (technique.defaults() | play.TINY.get(technique.name, {})).items():
        if technique.name in SCALED and isinstance(value, int):
            continue  # the batch is as much smaller here as the start is
        shown = 256 if name == "rows" and "tables" in technique.family else value
        stands = any(re.search(rf"^[A-Z0-9_]+ = {value!r}\b", text, re.MULTILINE) for text in before.values())
        assert stands or any(str(shown) in line for line in added), f"{name} = {value} cannot be seen in the diff"
    edited = {path: text for path, text in sources.items() if path in before}  # not in kernels, which come whole
    for constant in play.names_of_constants(edited) - play.names_of_constants(before):
        assert play.mentions(play.start(start), constant) == 0
        assert play.mentions(sources, constant) >= 2, f"{constant} is set and never used"


@every_technique
def test_a_technique_says_what_it_claims(technique: Technique):
    assert technique.name == technique.name.lower() and technique.name.isidentifier()
    assert technique.hypothesis.endswith(".") and ". " not in technique.hypothesis.replace("sqrt. ", "")
    assert technique.source and technique.title and -0.2 < technique.prior_gain < 0.2 and technique.prior_sd > 0
    assert all(other in CATALOGUE for other in (*technique.excludes, *technique.requires))
    for tunable in technique.tunables:
        assert tunable.default in tunable.choices or tunable.low <= tunable.default <= tunable.high


@pytest.mark.slow
@every_technique
def test_every_bound_and_choice_of_a_tunable_builds(technique: Technique):
    start = "modern" if technique.name in ON_MODERN else "vanilla"
    for tunable in technique.tunables:
        for value in tunable.choices or (tunable.low, tunable.high):
            if value in (tunable.default, *(v for sizes in play.SIZES.values() for v in sizes.values())):
                continue  # played already, or what the start has at tiny size
            chosen = {tunable.name: int(value) if tunable.integer else value}
            try:
                sources = play.changed(technique, start, **chosen)
            except DoesNotApply as error:
                assert "stand so already" in str(error)
                continue
            with play.loaded(sources) as modules:
                model = play.built(modules)
                assert modules["optim"].build_optimizer(model)
                assert model(play.ROWS[:1, :9]).isfinite().all()


def test_a_technique_refuses_a_tree_without_its_lines():
    start = dict(play.start("modern"))
    gone = start | {"model.py": start["model.py"].replace("y = merge_heads(y)", "y = y.flatten(-2)")}
    with pytest.raises(DoesNotApply, match="y = merge_heads"):
        CATALOGUE["head_norm"].apply(gone, {})


def test_what_tunes_tables_asks_for_tables():
    with pytest.raises(DoesNotApply, match="apply bigram_values first"):
        CATALOGUE["rowwise_moment"].apply(dict(play.start("modern")), {})


def test_a_value_that_stands_there_already_is_no_technique():
    with pytest.raises(DoesNotApply, match="stand so already"):
        CATALOGUE["softcap_level"].apply(dict(play.start("modern")), {"cap": 15.0})


@pytest.mark.slow
def test_all_that_stack_make_one_graph_and_stay_in_bfloat16():
    """In a process of its own: the compiler keeps names of modules, of which there are many here."""
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-m", "tests.gpu_compile_play"], capture_output=True, text=True, timeout=280
    )
    assert done.returncode == 0, done.stdout[-2000:] + done.stderr[-2000:]
    assert int(done.stdout.split()[0]) >= 30, done.stdout


def test_a_batch_is_as_much_smaller_as_the_start_is():
    full = CATALOGUE["batch_tokens"].apply(dict(play.STARTS["modern"]), {"tokens": 2**17})
    assert play.constants(full["train.py"])["BATCH_TOKENS"] == 2**17
    assert play.constants(full["train.py"])["DEVICE_ROWS"] == 64
    tiny = play.changed(CATALOGUE["batch_tokens"], "modern")
    assert play.constants(tiny["train.py"])["BATCH_TOKENS"] == 8 * play.LENGTH // 4
