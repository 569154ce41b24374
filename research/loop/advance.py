"""`advance(thread)`: read the rows and do exactly one next step. The order of the loop is the order of this file.

    judge      an experiment whose trials are complete: more pairs, or a verdict
    learn      a verdict without a lesson
    settle     what is due between this thread and `main`: approve by policy, mark stale, combine, rebase
    decide     limits and criteria by which a thread or an idea is given up; plateaus
    measure    an implemented idea: freeze rule, seeds and order, make the first trials
    combine    what this thread and another found, by git: a candidate like any other
    retry      what ran out of memory, once, with half the rows a pass
    implement  a proposed idea: worktree, commit, diff, static checks
    propose    ask the thread's researcher for the next idea

Each step can be run again after a crash at any point: rows carry unique keys, commits are reproducible, refs move by
compare and swap. A failed step becomes a visible, halted thread with its traceback.
"""

from __future__ import annotations

import logging
import os
import socket
import threading
import time
import traceback
from pathlib import Path

from research.loop import (
    ablate,
    champion,
    combine,
    decide,
    fidelity,
    found,
    implement,
    judge,
    learn,
    left_behind,
    measure,
    merge,
    noise,
    propose,
    retry,
    transfer,
)
from research.models import Project, Thread

log = logging.getLogger("lab.loop")

HOST = socket.gethostname()[:20]
HOLD_PATIENCE = 2.0  # seconds a second ring waits for the first to finish


def advance(thread: Thread) -> str | None:
    """One step; its name, or None where nothing is to be done now."""
    if left_behind.step(thread):
        return "move"
    if judge.step(thread):
        return "judge"
    if learn.step(thread):
        return "learn"
    if merge.step(thread):
        return "settle"
    if not thread.project.is_running:
        return None
    if decide.step(thread):
        return "decide"
    return None if decide.over(thread) else _begin(thread)


def _begin(thread: Thread) -> str | None:
    """A step towards the next experiment."""
    if measure.step(thread):
        return "measure"
    if combine.step(thread):
        return "combine"
    if retry.step(thread):
        return "retry"
    if implement.step(thread):
        return "implement"
    if propose.step(thread):
        return "propose"
    return None


def advance_until_idle(pk: int) -> int:
    """Advance a thread until nothing is left to do. Returns the number of steps; exclusive per thread."""
    owner = f"{HOST}-{os.getpid()}-{threading.get_native_id()}"
    if not _hold(pk, owner):
        return 0
    steps = 0
    try:
        while thread := Thread.objects.advanceable().select_related("project").filter(pk=pk).first():
            if not thread.hold(owner):
                break
            try:
                if advance(thread) is None:
                    break
            except Exception:  # noqa: BLE001  the other place: a failed step halts its thread, visibly
                log.exception("thread %s halted", thread)
                thread.halt(traceback.format_exc())
                break
            steps += 1
    finally:
        Thread(pk=pk).let_go(owner)
    return steps


def let_go_of_the_dead() -> None:
    """Free threads that a control process of this host held when it was killed, without waiting for the hold to end."""
    for thread in Thread.objects.filter(held_by__startswith=f"{HOST}-"):
        pid = thread.held_by.removeprefix(f"{HOST}-").partition("-")[0]
        if not Path(f"/proc/{pid}").exists():
            thread.let_go(thread.held_by)


def advance_project_until_idle(pk: int) -> None:
    """What belongs to the project and to no thread: noise floor, replicates, what is measured beside, the budget."""
    project = Project.objects.get(pk=pk)
    project.list_techniques()
    found.step(project)
    noise.step(project)
    judge.replicates(project)
    combine.parents(project)
    champion.step(project)
    ablate.step(project)
    fidelity.step(project)
    transfer.step(project)
    judge.rivals(project)
    measure.enforce_budget(project)


def _hold(pk: int, owner: str) -> bool:
    deadline = time.monotonic() + HOLD_PATIENCE
    while not Thread(pk=pk).hold(owner):
        if time.monotonic() > deadline:
            return False
        time.sleep(0.05)
    return True
