"""What a model or an agent is shown of a tree of many problems: the files at hand, the others by name."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path

import pytest
from django.contrib.auth.models import User

from benchmarks.contract import load
from research.api.books import facts_of
from research.api.brief import MOST_PROBLEMS, brief
from research.loop.asking import ask_for_change, ask_for_idea
from research.loop.converse import QUOTAS, workspace_of
from research.loop.decide import direction_of
from research.loop.desk import RowDesk
from research.loop.scope import about, of_these, shown, steered
from research.models import Idea, Project, Session, Thread
from research.researchers.llm.tools import perform
from research.researchers.llm.wire import ModelSpec, ToolCall
from research.researchers.llm.workspace import MOST_LISTED, ToolRefused, Workspace
from tests.cast import toy_benchmarks
from tests.kernel_board_play import FEW, begin, prepare, prepare_many
from tests.llm_play import asked

SPEC = ModelSpec("scripted", "scripted-1", "http://127.0.0.1:9", "TESTS_MODEL_KEY", roles=("propose", "implement"))


KERNELS = load("kernels")


@pytest.fixture
def kernels(db: None) -> Iterator[Project]:
    """Five problems, with the techniques that the kernels benchmark has for them."""
    with toy_benchmarks():
        data = prepare()
        project = begin()
        by_name = KERNELS.describe_techniques("reference", "cpu", data)
        project.techniques = {"version": project.contract.catalogue_version("reference", "quick"), "by_name": by_name}
        project.save()
        yield project


@pytest.fixture
def large(db: None) -> Iterator[Project]:
    with toy_benchmarks():
        prepare_many(235, 2)
        yield begin("large", threads=1)


@pytest.fixture
def thread(kernels: Project) -> Thread:
    return kernels.threads.get(number=1)


def opening(session: Session) -> str:
    return "\n".join(session.messages.order_by("number").values_list("content", flat=True))


def quoted_files(text: str) -> list[str]:
    return [line.partition("data: ")[2] for line in text.splitlines() if line.startswith("<<<<") and "/" in line]


def idea_of(thread: Thread, title: str, plan: str = "") -> Idea:
    number = Idea.next_number(thread)
    return Idea.add(
        thread, number, kind="change", title=title, hypothesis="One pass is enough.", plan=plan, expected_effect=0.1,
        steps=[], fingerprint=f"{title}-{number}",
    )  # fmt: skip


def test_a_focus_leaves_the_problems_that_it_covers(thread: Thread, member: User) -> None:
    assert steered(thread) == []
    for focus, forbid, left in (
        (["norm"], [], ["rms_norm"]),
        (["gqa_decode", "norm"], [], ["gqa_decode", "rms_norm"]),
        (["silu_backward/solution.py"], [], ["silu_backward"]),
        ([], ["moe_gating", "rms_norm"], ["gqa_decode", "gqa_prefill", "silu_backward"]),
    ):
        thread.steer(member, focus, forbid)
        assert steered(thread) == left


def test_an_opening_shows_the_threads_problem_and_names_the_others(
    thread: Thread, member: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    thread.steer(member, ["norm"], [])
    with asked(monkeypatch, SPEC):
        text = opening(ask_for_idea(thread, 1))
    assert quoted_files(text) == [f"rms_norm/{name}" for name in ("definition.json", "solution.py", "workload.jsonl")]
    assert '"uuid"' in text and "def run(x, gain)" in text, "what is measured, and on which sizes"
    others = ", ".join(name for name in FEW if name != "rms_norm")
    assert f"a folder each with definition.json, solution.py, workload.jsonl: {others}. read_file" in text
    assert "Look at: rms_norm/solution.py (0 ideas)." in text, "not at files of other threads' problems"


def test_without_a_focus_the_direction_chooses_what_is_shown(thread: Thread, monkeypatch: pytest.MonkeyPatch) -> None:
    with asked(monkeypatch, SPEC):
        text = opening(ask_for_idea(thread, 1))
    chosen = direction_of(thread, 1, [SPEC]).problems
    assert chosen == FEW and len(quoted_files(text)) == 3 * len(chosen)


def test_a_change_is_written_with_the_files_of_its_ideas_problem(
    thread: Thread, monkeypatch: pytest.MonkeyPatch
) -> None:
    idea = idea_of(thread, "gate in one pass", "in moe_gating/solution.py, sort once; gqa_decoder is no problem")
    assert about(idea) == ["moe_gating"]
    with asked(monkeypatch, SPEC):
        session = ask_for_change(idea)
    assert {path.partition("/")[0] for path in quoted_files(opening(session))} == {"moe_gating"}
    space = workspace_of(session, ())
    assert of_these(space.editable_paths(), about(idea)) == ["moe_gating/solution.py"]
    for path in ("gqa_prefill/definition.json", "gqa_prefill/workload.jsonl", "gqa_prefill/solution.py"):
        assert space.read(path), "what is not shown can be read"
    with pytest.raises(ToolRefused, match="protected"):
        space.write("moe_gating/workload.jsonl", "{}")


def test_what_does_not_fit_is_named(kernels: Project) -> None:
    text = shown(kernels, kernels.champion, 1_500, ["rms_norm"])
    assert len(text) < 3_500
    assert "rms_norm/workload.jsonl: " in text and "not shown; read_file shows them" in text
    narrow = shown(kernels, kernels.champion, 60, ["rms_norm"])
    assert "gqa_decode, gqa_prefill" in narrow and "and 2 more, which list_files names" in narrow


def test_of_235_problems_a_listing_is_short_and_a_slip_is_told_what_is_near(large: Project) -> None:
    folder, slip = "003_rope_embedding_forward", "003_rope_embedding_forward/solutions.py"
    thread = large.threads.get()
    session = Session(project=large, thread=thread, purpose="implement", base=large.champion)
    space = workspace_of(session, ())
    assert len(space.sources) == 3 * 235 > MOST_LISTED
    listing = space.listing()
    assert listing.count("\n") == 234 and f"{folder}/  3 files" in listing and len(listing) < 16_000
    asked_for = ToolCall("1", "list_files", json.dumps({"folder": folder}))
    found = perform(asked_for, space, RowDesk(large, large.champion), QUOTAS, "implement").text
    assert f"{folder}/solution.py" in found and found.count("lines") == 3
    with pytest.raises(ToolRefused, match=folder) as refusal:
        space.read(slip)
    assert len(str(refusal.value)) < 600
    assert "has 1 lines now" in space.write(f"{folder}/tiles.py", "TILE = 64\n"), "a tree of many may grow"
    text = shown(large, large.champion, 40_000, [folder])
    assert len(text) < 15_000 and "more, which list_files names" in text
    said = brief(large, facts_of(large))
    assert len(said) < 10_000 and f"and {235 - MOST_PROBLEMS} more, which `/projects/large` names" in said
    assert "001_rms_norm_of_residual_stream/workload.jsonl` (2 lines)" in said and "train.py" not in said
    assert "files?commit=main&folder=001_rms_norm_of_residual_stream" in said


def test_a_flat_tree_may_not_grow_beyond_its_cap() -> None:
    space = Workspace({f"f{at}.py": "" for at in range(40)}, ["*.py"], [])
    with pytest.raises(ToolRefused, match="40 files already"):
        space.write("more.py", "")


def test_the_contract_of_kernels_asks_no_data(tmp_path: Path) -> None:
    lines = KERNELS.explain(KERNELS.preset("cpu"), tmp_path / "gone")
    assert "`run(*inputs)`" in "\n".join(lines) and "compile_cpp" in "\n".join(lines)
