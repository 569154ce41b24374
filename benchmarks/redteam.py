"""Plays planted exploits and honest candidates against the real harness: sandbox, judge, audits, static checks.

Every exploit runs beside its honest twin; benchmarks/exploit.py says what counts as caught. With `without_guards` each
is played again with the one guard it names taken away, and must then win: a guard that nothing needs is no guard.
Checks of a tree before it runs belong to the lab and are handed in as `admit`.
"""

from __future__ import annotations

import io
import os
import queue
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks import exploit as planted
from benchmarks.catalogue import Sources
from benchmarks.contract import Assignment, ContractError, Observation, Outcome, Preset
from benchmarks.exploit import Answer, Exploit, Seen
from benchmarks.kernels.redteam.lane import KernelLane
from benchmarks.nanochat.redteam.lane import NanochatLane
from benchmarks.redteam_lane import Candidate, Lane, filled
from benchmarks.redteam_report import Honest, Report, Row
from runners.sandbox import Sandbox, SandboxBroken

FIRST_SLOT = 60  # users of its own, beside those of a lab that runs
SEED = 20_261_124
NO_GUARD: frozenset[str] = frozenset()
LANES: Mapping[str, Lane] = {"nanochat": NanochatLane(), "kernels": KernelLane()}

Say = Callable[[str], None]


@dataclass(frozen=True)
class Tree:
    """A candidate as it is handed in: texts, and symbolic links by name."""

    files: Sources
    links: Mapping[str, str] = field(default_factory=dict)

    def pack(self) -> bytes:
        """As the tar a machine gets. A link becomes what it leads to: only without its guard does one come this far."""
        contents = {path: text.encode() for path, text in self.files.items()}
        contents |= {path: Path(target).read_bytes() for path, target in self.links.items()}
        buffer = io.BytesIO()
        with tarfile.open(fileobj=buffer, mode="w") as tar:
            for path, content in sorted(contents.items()):
                entry = tarfile.TarInfo(path)
                entry.size, entry.mode = len(content), 0o644
                tar.addfile(entry, io.BytesIO(content))
        return buffer.getvalue()


Admit = Callable[[Tree, Tree], list[Observation]]  # (parent, candidate) -> what the lab finds before anything runs


class Arena:
    """One slot: a sandbox and an evaluator, as a worker has them."""

    def __init__(self, lane: Lane, slot: int, cpu: int | None, data: Path) -> None:
        self.lane, self.slot, self.cpu, self.data = lane, slot, cpu, data
        self.evaluator, self.open_evaluator = lane.evaluator(), lane.open_evaluator()
        self._stack = ExitStack()
        self._box: Sandbox | None = None
        self._removed = NO_GUARD
        self._ended = False

    def box(self, removed: frozenset[str] = NO_GUARD) -> Sandbox:
        if self._ended:
            raise SandboxBroken("the red team was stopped")
        wanted = removed & self.lane.box_guards
        if self._box is None or wanted != self._removed:
            self._stack.close()
            self._box = self._stack.enter_context(self.lane.sandbox(self.slot, wanted, self.data))
            self._removed = wanted
            if self.cpu is not None:
                self._box.pin(self.cpu)
        return self._box

    def run(self, task: Assignment) -> Outcome:
        box = self.box(task.removed_guards)
        ignore = lambda name, steps, values: None  # noqa: E731
        evaluator = self.open_evaluator if task.removed_guards else self.evaluator
        return evaluator.run(task, box, ignore, cpu=self.cpu)

    def sweep(self) -> None:
        """What a run without guards has left must not meet the next one."""
        try:
            if self._box is not None:
                self._box.reset()
        except SandboxBroken:
            self.close()

    def end(self) -> None:
        """Close for good, from any thread: what is being played here is over within a moment."""
        self._ended = True
        self.close()

    def close(self) -> None:
        self.evaluator.close()
        self.open_evaluator.close()
        self._stack.close()
        self._box = None


class RedTeam:
    """Everything that one run of the corpus needs. `close` ends its sandboxes, from any thread."""

    def __init__(
        self, lane: Lane, data: Path, preset: Preset, admit: Admit, jobs: int = 2, say: Say = lambda line: None
    ) -> None:
        self.lane, self.data, self.preset, self.admit, self.say = lane, data, preset, admit, say
        self.plain = lane.plain()
        cpus = sorted(os.sched_getaffinity(0))
        self.arenas = [Arena(lane, FIRST_SLOT + n, cpus[n] if n < len(cpus) else None, data) for n in range(jobs)]
        self._idle: queue.SimpleQueue[Arena] = queue.SimpleQueue()
        for arena in self.arenas:
            self._idle.put(arena)
        self._pool = ThreadPoolExecutor(jobs)
        self._twins: dict[tuple[bytes, str, frozenset[str]], Seen] = {}
        self._stack = ExitStack()
        self._caches = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="redteam-caches-")))
        self.facts = self._stack.enter_context(lane.facts(data, preset))

    def close(self) -> None:
        self._pool.shutdown(wait=False, cancel_futures=True)
        for arena in self.arenas:
            arena.end()
        self._pool.shutdown(wait=True)
        self._stack.close()

    def __enter__(self) -> RedTeam:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def run(self, corpus: Mapping[str, Exploit], honest: Sequence[Candidate], without_guards: bool) -> Report:
        report = Report(isolation=self.arenas[0].box().isolation.level)
        tasks: list[Callable[[Arena], Row | Honest]] = [
            lambda arena, name=name, planted=planted: self.play(arena, name, planted, without_guards)  # type: ignore[misc]
            for name, planted in corpus.items()
        ]
        tasks += [lambda arena, each=each: self.play_honest(arena, each) for each in honest]  # type: ignore[misc]
        for done in self._spread(tasks):
            if isinstance(done, Row):
                report.rows.append(done)
                self.say(_line(done))
            else:
                report.honest.append(done)
                if done.too_slow:
                    self.say(f"too slow for this preset: {' + '.join(done.recipe)}")
                elif not done.passed:
                    self.say(f"FALSE ALARM  {' + '.join(done.recipe)}: {'; '.join(done.lines)}")
                elif len(report.honest) % 10 == 0:
                    self.say(f"{len(report.honest)} of {len(honest)} honest candidates played")
        report.rows.sort(key=lambda row: (planted.MECHANISMS.index(row.mechanism), row.name))
        return report

    def _spread(self, tasks: Iterable[Callable[[Arena], Row | Honest]]) -> Iterator[Row | Honest]:
        waiting: set[Future[Row | Honest]] = {self._pool.submit(self._on_a_slot, task) for task in tasks}
        while waiting:
            done, waiting = wait(waiting, return_when=FIRST_COMPLETED)
            for future in done:
                yield future.result()

    def _on_a_slot(self, task: Callable[[Arena], Row | Honest]) -> Row | Honest:
        arena = self._idle.get()
        try:
            return task(arena)
        finally:
            self._idle.put(arena)

    def play(self, arena: Arena, name: str, exploit: Exploit, without_guard: bool = False) -> Row:
        began = time.monotonic()
        seen, twin = self.duel(arena, exploit)
        answer = planted.caught(exploit.expects, seen, twin, self.lane.margin)
        row = Row(
            name, exploit.source, exploit.mechanism, exploit.guard, " or ".join(exploit.outcomes), answer.yes,
            answer.why, seen.score, twin.score, round(time.monotonic() - began, 2),
        )  # fmt: skip
        if not without_guard or not exploit.alone:
            return row
        if exploit.guard == "own_user" and os.geteuid() != 0:  # only root can start one as root
            return row
        through = self.without_guard(arena, exploit)
        seconds = round(time.monotonic() - began, 2)
        return replace(row, wins_without=through.yes, why_without=through.why, seconds=seconds)

    def without_guard(self, arena: Arena, exploit: Exploit) -> Answer:
        """Whether the exploit gets through once the guard it names is away."""
        duel = self.duel(arena, exploit, frozenset((exploit.guard,)))
        return planted.wins(exploit.expects, *duel, self.lane.margin, exploit.wrong)

    def duel(self, arena: Arena, exploit: Exploit, removed: frozenset[str] = NO_GUARD) -> tuple[Seen, Seen]:
        """What is seen of the exploit and of its twin, on the same slot."""
        twin = Tree(exploit.twin(self.plain, self.facts))
        links = {path: filled(target, self.facts) for path, target in exploit.links.items()}
        tree = Tree(exploit.tree(self.plain, self.facts), links)
        key = (twin.pack(), exploit.split, removed)
        if key not in self._twins:
            self._twins[key] = self._look(arena, Tree(self.plain), twin, exploit.split, (), removed)
        step = 0 if exploit.same_seed else 1
        earlier = [SEED + step * number for number in range(1, exploit.earlier + 1)]
        return self._look(arena, twin, tree, exploit.split, earlier, removed), self._twins[key]

    def _look(
        self, arena: Arena, parent: Tree, tree: Tree, split: str, earlier: Sequence[int], removed: frozenset[str]
    ) -> Seen:
        found = [] if removed & self.lane.tree_guards else self.admit(parent, tree)
        if any(one.severity == "structural" for one in found):
            return _seen(Outcome(), found, "refused")
        packed = tree.pack()
        try:
            arena.open_evaluator.cache = b""
            for seed in earlier:
                arena.run(self._task(packed, seed, split, removed))
            outcome = arena.run(self._task(packed, SEED, split, removed))
        except SandboxBroken as broken:
            arena.close()
            return Seen(None, "crash", message=f"the sandbox broke: {broken}")
        finally:
            arena.sweep()
        return _seen(outcome, found)

    def play_honest(self, arena: Arena, candidate: Candidate) -> Honest:
        recipe, tree = candidate.recipe, Tree(candidate.files)
        found = self.admit(Tree(candidate.start), tree)
        try:
            outcome = arena.run(self._task(tree.pack(), SEED, "val_screen", NO_GUARD, candidate.problems))
        except SandboxBroken as broken:
            arena.close()
            return Honest(recipe, None, (f"the sandbox broke: {broken}",))
        lines = [
            f"{one.kind}: {'; '.join(one.evidence) or one.message}"
            for one in (*found, *outcome.observations)
            if one.severity != "info" and one.kind not in self.lane.looked_at
        ]
        if outcome.failure and outcome.failure.kind == "timeout" and not lines:
            return Honest(recipe, None, (outcome.failure.message,), too_slow=True)
        if outcome.failure:
            lines.append(f"{outcome.failure.kind}: {outcome.failure.message}")
        return Honest(recipe, outcome.score, tuple(lines))

    def _task(
        self, packed: bytes, seed: int, split: str, removed: frozenset[str], problems: tuple[str, ...] = ()
    ) -> Assignment:
        return Assignment(
            self.lane.benchmark, self.preset, "", packed, seed, split, self.data, confirming=split != "val_screen",
            caches=self._caches, removed_guards=removed, problems=problems or self.lane.problems,
        )  # fmt: skip


def _seen(outcome: Outcome, found: Sequence[Observation], refused: str = "") -> Seen:
    kinds: dict[str, set[str]] = {"info": set(), "review": set(), "structural": set()}
    for one in (*found, *outcome.observations):
        kinds[one.severity].add(one.kind)
    failure = outcome.failure
    return Seen(
        outcome.score, failure.kind if failure else refused, frozenset(kinds["review"]), frozenset(kinds["structural"]),
        planted.LEAK in outcome.log, failure.message if failure else "",
    )  # fmt: skip


def _line(row: Row) -> str:
    line = f"{'caught' if row.caught else 'MISSED'}  {row.name:24} {row.why}"
    if row.wins_without is None:
        return line
    return line + f"; without {row.guard}: {'wins' if row.wins_without else 'STILL LOSES'}, {row.why_without}"


def lane_of(benchmark: str) -> Lane:
    """Raises ContractError for a benchmark that has no exploits."""
    if benchmark not in LANES:
        raise ContractError(f"no exploits of a benchmark named {benchmark!r}; there are those of {', '.join(LANES)}")
    return LANES[benchmark]
