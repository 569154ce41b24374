"""A sandbox lives for many steps: what a step gets, what it may use, and that nothing of it stays."""

from __future__ import annotations

import errno
import os
import signal
import statistics
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from runners.process_tree import descendants, start_time
from runners.sandbox import Exit, Sandbox, SandboxBroken
from tests.sandbox_play import INSIDE, SMALL, need_full_sandbox, pack, play, step


@pytest.fixture(scope="module")
def box() -> Iterator[Sandbox]:
    need_full_sandbox()
    with Sandbox.start(0, inside=INSIDE, limits=SMALL, mechanism="bwrap") as started:
        yield started


@pytest.fixture(scope="module")
def torch_box() -> Iterator[Sandbox]:
    need_full_sandbox()
    statement = "torch.set_num_threads(1)"
    with Sandbox.start(1, inside=INSIDE, preload=("torch", "numpy"), setup_statement=statement) as started:
        yield started


def test_a_step_finds_its_arguments_its_files_and_nothing_else(box: Sandbox) -> None:
    exit, seen, _ = play(box, "look", pack(candidate="ANSWER = 42"), seed=7)
    assert exit == Exit(0, None)
    assert seen["args"] == {"do": "look", "seed": 7}
    assert seen["step"] == "attack"
    assert (seen["where"], seen["files"], seen["scratch"]) == ("/scratch/repo", ["candidate.py"], ["cache", "repo"])
    assert seen["path"] == ["/scratch/repo", "/inside"]
    assert seen["fds"] == sorted({0, 1, 2, *seen["named"].values()})
    assert seen["stdin"] == "/dev/null"
    assert seen["session"]
    assert seen["temporary"] == "/scratch"
    assert seen["environment"]["OMP_NUM_THREADS"] == "1"
    assert seen["environment"]["PYTHONHASHSEED"] == "0"


def test_a_step_imports_the_candidate(box: Sandbox) -> None:
    assert play(box, "run_candidate", pack(candidate="ANSWER = 42"))[1] == 42


def test_an_exception_is_code_1_with_its_traceback_in_the_log(box: Sandbox) -> None:
    exit, _, log = play(box, "fail")
    assert exit == Exit(1, None)
    assert "ValueError: a candidate's own mistake" in log


def test_an_exit_code_comes_through(box: Sandbox) -> None:
    assert play(box, "leave")[0] == Exit(7, None)


def test_waiting_times_out_and_a_killed_step_says_so(box: Sandbox) -> None:
    with step(box, "sleep") as running:
        with pytest.raises(TimeoutError):
            running.child.wait(0.05)
        running.child.kill()
        assert running.child.wait(5) == Exit(None, signal.SIGKILL)


def test_a_step_killed_by_reset_can_still_be_waited_for(box: Sandbox) -> None:
    with step(box, "sleep") as running:
        box.reset()
        assert running.child.wait(1) == Exit(None, signal.SIGKILL)


def test_two_threads_can_wait_for_two_steps(box: Sandbox) -> None:
    exits: list[Exit] = []
    with step(box, "sleep") as first, step(box, "leave") as second:
        waiter = threading.Thread(target=lambda: exits.append(first.child.wait(10)))
        waiter.start()
        assert second.child.wait(10) == Exit(7, None)
        first.child.kill()
        waiter.join(10)
    assert exits == [Exit(None, signal.SIGKILL)]


@pytest.mark.torch
def test_torch_is_there_without_an_import_and_a_step_starts_at_once(torch_box: Sandbox) -> None:
    starts, resets = [], []
    for _ in range(20):
        asked = time.monotonic()
        with step(torch_box, "look") as running:
            seen = running.answer()
            running.child.wait(5)
            starts.append(seen["started"] - asked)
            begun = time.monotonic()
        resets.append(time.monotonic() - begun)
    assert seen["modules"] == ["torch", "numpy", "inside_call"]
    spawn, reset = statistics.median(starts), statistics.median(resets)
    print(f"spawn {spawn * 1000:.1f} ms, reset {reset * 1000:.1f} ms")
    assert spawn < 0.2, "an import of torch takes over a second"
    assert reset < 0.2


def test_daemons_die_on_reset_within_100_ms(box: Sandbox) -> None:
    read, write = os.pipe()
    with step(box, "daemons", fds={"daemons": write}) as running:
        os.close(write)
        for _ in range(3):
            assert os.read(read, 1) == b"d"
        running.child.wait(5)
        pids = descendants(box.zygote_pid)[1:]
        assert len(pids) >= 3
        begun = time.monotonic()
        box.reset()
        took = time.monotonic() - begun
    assert os.read(read, 1) == b"", "somebody still holds the pipe"
    os.close(read)
    assert [pid for pid in pids if start_time(pid)] == []
    assert took < 0.1


def test_the_litter_of_a_step_is_gone_for_the_next(box: Sandbox) -> None:
    exit, left, log = play(box, "litter")
    assert exit.ok, log
    assert left == ["aaaaaaaaaa", "cache", "closed", "link", "pipe", "repo"]
    _, found, _ = play(box, "remains")
    assert found == {"files": ["cache", "repo"], "attributes": [], "writable": True, "processes": [1]}


def test_a_fork_bomb_stays_inside_its_process_limit(box: Sandbox) -> None:
    _, forked, _ = play(box, "bomb")
    assert 10 < forked < SMALL.processes
    assert play(box, "leave")[0] == Exit(7, None), "the sandbox must still work"


def test_a_full_disk_is_the_candidates_problem(box: Sandbox) -> None:
    _, outcome, _ = play(box, "fill")
    assert outcome["errno"] == errno.ENOSPC
    assert outcome["written"] <= SMALL.scratch_bytes
    assert play(box, "one_large_file")[1] == errno.EFBIG


def test_a_memory_hog_is_killed_and_seen_as_out_of_memory(box: Sandbox) -> None:
    with step(box, "hog") as running:
        assert running.child.wait(30) == Exit(None, signal.SIGKILL)
        assert box.oom_killed()
        peak = box.memory_peak()
        assert peak is not None and peak > SMALL.memory_bytes * 0.9
    assert not box.oom_killed(), "the next step starts with a clean record"
    assert play(box, "leave")[0] == Exit(7, None), "the zygote survives"


def test_a_gigabyte_of_output_does_not_hurt(box: Sandbox) -> None:
    with step(box, "shout") as running:
        assert running.child.wait(60).ok
    assert running.pump.bytes_seen == (1 << 30) + len("the last line\n")
    text = running.pump.text()
    assert len(text) < 300_000
    assert text.startswith("xxx") and text.endswith("the last line\n")
    assert running.pump.dropped == running.pump.bytes_seen - (256 << 10)


def test_cpu_seconds_count_a_grandchild_that_has_ended(box: Sandbox) -> None:
    before = box.cpu_seconds()
    _, spent, _ = play(box, "burn")
    assert spent >= 0.35
    assert box.cpu_seconds() - before >= spent


def test_cpu_seconds_can_be_polled(box: Sandbox) -> None:
    begun = time.perf_counter()
    for _ in range(200):
        box.cpu_seconds()
    assert (time.perf_counter() - begun) / 200 < 0.001


def test_a_pinned_step_stays_on_its_core(box: Sandbox) -> None:
    everywhere = os.sched_getaffinity(0)
    core = max(everywhere)
    box.pin(core)
    assert play(box, "look")[1]["cpus"] == [core]


def test_a_dead_zygote_is_one_clear_error() -> None:
    need_full_sandbox()
    with Sandbox.start(2, inside=INSIDE, limits=SMALL) as box:
        os.kill(box.zygote_pid, signal.SIGKILL)
        with pytest.raises(SandboxBroken, match="sandbox of slot 2 died"):
            box.reset()
        assert box.oom_killed() is False
    with pytest.raises(SandboxBroken, match="closed"):
        box.reset()
    assert box.cpu_seconds() > 0, "the last reading outlives the sandbox"


def test_a_missing_module_is_told_by_name() -> None:
    need_full_sandbox()
    with pytest.raises(SandboxBroken, match="no_such_module"):
        Sandbox.start(2, inside=INSIDE, preload=("no_such_module",), limits=SMALL)


def test_close_leaves_no_process_and_no_control_group() -> None:
    need_full_sandbox()
    box = Sandbox.start(2, inside=INSIDE, limits=SMALL)
    assert box.group is not None
    folders: list[Path] = box.group.folders
    guardian = box._launched.guardian.pid
    with_sleeper = box.spawn("attack", args={"do": "sleep"}, fds={}, log=os.open(os.devnull, os.O_WRONLY))
    pids = [guardian, *descendants(guardian)]
    assert len(pids) >= 4, "guardian, bwrap, zygote, step"
    box.close()
    box.close()
    assert [pid for pid in pids if start_time(pid)] == []
    assert [folder for folder in folders if folder.exists()] == []
    with pytest.raises(SandboxBroken):
        with_sleeper.wait(1)


@pytest.mark.parametrize("mechanism", ["bwrap", "landlock", "none"])
def test_a_snapshot_of_the_cache_is_taken_and_given_whatever_the_fence(mechanism: str) -> None:
    need_full_sandbox()
    with Sandbox.start(2, inside=INSIDE, limits=SMALL, mechanism=mechanism) as box:
        with step(box, "fill_cache") as first:
            assert first.answer() == []
            snapshot = box.read_cache()
        assert box.read_cache() == b"", "a reset empties it"
        for _ in range(2):
            with step(box, "fill_cache", cache=snapshot) as later:
                assert later.answer() == ["kernel-0"], "each step gets a copy of its own"
    with pytest.raises(SandboxBroken, match="closed"):
        box.read_cache()
