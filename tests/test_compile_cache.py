"""What a compiler keeps in /cache: a commit finds again what its warm-up left, and nothing that came later."""

from __future__ import annotations

import hashlib
import os
import statistics
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from benchmarks.contract import Assignment, Outcome, load
from benchmarks.nanochat import evaluate
from benchmarks.tar import pack
from runners import cache
from runners.sandbox import Sandbox
from tests import candidates

TINY = replace(
    load("nanochat").preset("smoke"),
    budget_seconds=0.3, score_rows=16, audit_random=8, audit_targeted=8, wall_cap_seconds=10.0,
)  # fmt: skip

Run = Callable[..., Outcome]


@pytest.fixture
def run(box: Sandbox, evaluator: evaluate.Evaluator, prepared_text: Path, tmp_path: Path) -> Run:
    def go(files: candidates.Files, commit: str = "a" * 40, start: candidates.Files | None = None) -> Outcome:
        """`start`: what it descends from, the commit of forty a."""
        tree = pack({name: text.encode() for name, text in files.items()})
        task = Assignment("nanochat", TINY, commit, tree, 1, "val_screen", prepared_text, caches=tmp_path / "caches")
        if start is not None:
            of_start = pack({name: text.encode() for name, text in start.items()})
            task = replace(task, origin=("a" * 40, hashlib.sha256(of_start).hexdigest()))
        return evaluator.run(task, box, lambda *_: None)

    return go


def writer(warm_up: str = "", timed: str = "", forward: str = "") -> candidates.Files:
    """Prints what it finds in its cache, then writes there at each of these moments."""
    body = f"""
import os, pathlib
CACHE = pathlib.Path("/cache")
print("FOUND", sorted(path.name for path in CACHE.rglob("*") if path.is_file()))
{warm_up}
model = build()
harness.start_clock()
{timed}
harness.submit(model.state_dict())
"""
    files = candidates.main_of(body)
    lines = "\n".join("    " + line for line in forward.strip().splitlines())
    model = f"""{files["model.py"]}

_honest = build


def build():
    import inside_call, os, pathlib
    CACHE = pathlib.Path("/cache")
    names = {{path.name for path in CACHE.rglob("*") if path.is_file()}}
    step = inside_call.step
{lines}
    return _honest()
"""
    return files | {"model.py": model}


def found(outcome: Outcome) -> str:
    assert outcome.failure is None, outcome.failure
    return next(line for line in outcome.log.splitlines() if line.startswith("FOUND"))


WARM = '(CACHE / "inductor").mkdir(exist_ok=True)\n(CACHE / "inductor" / "kernel.so").write_bytes(b"compiled")'


@pytest.mark.torch
def test_what_a_warm_up_compiled_is_there_for_the_next_trial_of_the_commit_and_for_its_forward_steps(run: Run) -> None:
    tree = writer(WARM, forward='assert step == "run_train" or "kernel.so" in names')
    first, second = run(tree), run(tree)
    assert (found(first), found(second)) == ("FOUND []", "FOUND ['kernel.so']")
    assert first.hashes["cache"] == second.hashes["cache"] != "empty"


@pytest.mark.torch
def test_no_other_commit_finds_it(run: Run) -> None:
    tree = writer(WARM)
    run(tree)
    assert found(run(tree, commit="b" * 40)) == "FOUND []"
    assert found(run(writer(WARM + "\n#"))) == "FOUND []", "nor another tree under the same name"


GRAPH = """
for folder in ("aotautograd/graph", "triton/kernel"):
    (CACHE / folder).mkdir(parents=True, exist_ok=True)
    (CACHE / folder / f"{folder[:3]}.bin").write_bytes(b"compiled")
"""


@pytest.mark.torch
def test_what_descends_from_a_start_begins_with_its_kernels_and_not_with_its_graphs(run: Run) -> None:
    start, child = writer(GRAPH), writer(WARM)
    assert found(run(child, "b" * 40, start)) == "FOUND []", "the start has run nowhere yet"
    run(start, start=start)
    assert found(run(start, start=start)) == "FOUND ['aot.bin', 'tri.bin']"
    first, second = run(child, "c" * 40, start), run(child, "c" * 40, start)
    assert found(first) == "FOUND ['tri.bin']"
    assert found(second) == "FOUND ['kernel.so', 'tri.bin']", "from its second trial on it has its own"
    assert first.hashes["cache"] == second.hashes["cache"]
    assert found(run(writer(""), "d" * 40, start)) == "FOUND ['tri.bin']", "and nothing of its siblings"


@pytest.mark.torch
def test_what_was_learned_on_the_clock_never_reaches_the_next_seed_or_the_scoring(run: Run) -> None:
    late = '(CACHE / "learned").write_bytes(bytes(model.head.weight.data.numpy()))'
    tree = writer(timed=late, forward='assert "learned" not in names')
    first, second = run(tree), run(tree)
    assert (found(first), found(second)) == ("FOUND []", "FOUND []")
    assert first.hashes["cache"] == "empty"


@pytest.mark.torch
def test_what_a_forward_step_saw_never_comes_back(run: Run) -> None:
    """The audit is a FORWARD step after the scoring one; the next trial trains after both."""
    forward = (
        'assert "tokens" not in names\nif step == "run_forward":\n    (CACHE / "tokens").write_bytes(b"validation")'
    )
    tree = writer(WARM, forward=forward)
    run(tree)
    assert found(run(tree)) == "FOUND ['kernel.so']"


@pytest.mark.torch
def test_warm_ups_do_not_add_up(run: Run) -> None:
    tree = writer('(CACHE / str(len(list(CACHE.iterdir())))).write_bytes(b"more")')
    assert [found(run(tree)) for _ in range(3)] == ["FOUND []", "FOUND ['0']", "FOUND ['0']"]


@pytest.mark.torch
def test_a_cache_that_is_too_large_is_dropped_and_said(run: Run, box: Sandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(box, "limits", replace(box.limits, cache_bytes=1000))
    tree = writer('(CACHE / "large").write_bytes(bytes(1001))')
    first = run(tree)
    assert {seen.kind: seen.severity for seen in first.observations} == {"cache_dropped": "info"}
    assert found(run(tree)) == "FOUND []"


@pytest.fixture
def scratch(tmp_path: Path) -> Iterator[tuple[Path, int]]:
    (tmp_path / "cache").mkdir()
    fd = os.open(tmp_path, os.O_RDONLY | os.O_DIRECTORY)
    yield tmp_path / "cache", fd
    os.close(fd)


def test_only_regular_files_are_taken(scratch: tuple[Path, int], tmp_path: Path) -> None:
    folder, fd = scratch
    secret = tmp_path / "secret"
    secret.write_bytes(b"validation text")
    assert cache.take(fd) == b""
    (folder / "link").symlink_to(secret)
    (folder / "folder").symlink_to(tmp_path)
    os.mkfifo(folder / "pipe")
    assert cache.take(fd) == b""
    (folder / "below").mkdir()
    (folder / "below" / "file").write_bytes(b"compiled")
    taken = cache.take(fd)
    assert b"compiled" in taken and b"validation" not in taken and b"link" not in taken
    os.utime(folder / "below" / "file", (1, 1))
    assert cache.take(fd) == taken, "the same files are the same snapshot"


def test_a_link_in_the_place_of_the_cache_shows_nothing(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "file").write_bytes(b"of the host")
    (tmp_path / "scratch").mkdir()
    (tmp_path / "scratch" / "cache").symlink_to(tmp_path / "elsewhere")
    fd = os.open(tmp_path / "scratch", os.O_RDONLY | os.O_DIRECTORY)
    assert cache.take(fd) == b""
    os.close(fd)


def test_too_many_files_and_too_deep_a_nest_are_refused(scratch: tuple[Path, int]) -> None:
    folder, fd = scratch
    nest = folder.joinpath(*["deep"] * (cache.DEEPEST + 1))
    nest.mkdir(parents=True)
    (nest / "file").touch()
    with pytest.raises(cache.CacheTooLarge, match="levels"):
        cache.take(fd)
    (folder / "deep").rename(folder.parent / "away")
    for number in range(cache.MOST_ENTRIES + 1):
        (folder / str(number)).touch()
    with pytest.raises(cache.CacheTooLarge, match="entries"):
        cache.take(fd)


def test_the_first_snapshot_stays_and_the_oldest_goes_when_room_is_needed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    store = cache.Store(tmp_path / "caches")
    assert store.keep("one", b"first") and not store.keep("one", b"second")
    assert store.get("one") == b"first" and store.get("two") == b""
    assert not store.keep("two", b""), "an empty one needs no file"
    monkeypatch.setattr(cache, "STORE_BYTES", 10)
    os.utime(tmp_path / "caches" / "one.tar", (1, 1))
    store.keep("two", b"12345")
    store.keep("three", b"12345")
    assert (store.get("one"), store.get("two"), store.get("three")) == (b"", b"12345", b"12345")
    assert sorted(path.name for path in (tmp_path / "caches").iterdir()) == ["three.tar", "two.tar"]


def test_an_empty_cache_costs_next_to_nothing(scratch: tuple[Path, int], tmp_path: Path) -> None:
    _, fd = scratch
    took = []
    for _ in range(20):
        begun = time.perf_counter()
        store = cache.Store(tmp_path / "caches")
        store.keep("key", store.get("key") or cache.take(fd))
        took.append(time.perf_counter() - begun)
    print(f"empty cache: {1000 * statistics.median(took):.3f} ms a trial")
    assert statistics.median(took) < 0.01


@pytest.mark.torch
def test_a_warm_up_run_alone_gets_no_data_and_leaves_its_cache_for_the_first_trial(
    box: Sandbox, prepared_text: Path, tmp_path: Path
) -> None:
    tree = pack({name: text.encode() for name, text in writer(WARM + '\nprint("ASKS", flush=True)').items()})
    task = Assignment("nanochat", TINY, "c" * 40, tree, 1, "val_screen", prepared_text, caches=tmp_path / "caches")
    evaluator = evaluate.Evaluator()
    assert not evaluator.is_prepared(task, box)
    assert evaluator.prepare(task, box) and evaluator.is_prepared(task, box) and evaluator.prepare(task, box)
    assert evaluator.is_prepared(replace(task, caches=None), box), "what keeps no cache has nothing to prepare"
    outcome = evaluator.run(task, box, lambda *_: None)
    evaluator.close()
    assert found(outcome) == "FOUND ['kernel.so']"
