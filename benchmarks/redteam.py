"""Plays planted exploits and honest candidates against the real harness: sandbox, judge, audits, static checks.

Every exploit runs beside its honest twin; benchmarks/exploit.py says what counts as caught. With `without_guards` each
is played again with the one guard it names taken away, and must then win: a guard that nothing needs is no guard.
Checks of a tree before it runs belong to the lab and are handed in as `admit`.
"""

from __future__ import annotations

import io
import os
import queue
import random
import tarfile
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from contextlib import ExitStack
from dataclasses import dataclass, field, replace
from pathlib import Path

from benchmarks import exploit as planted
from benchmarks.catalogue import Catalogue, Sources, Step
from benchmarks.contract import Assignment, Observation, Outcome, Preset, load
from benchmarks.edits import DoesNotApply
from benchmarks.exploit import Answer, Exploit, Seen
from benchmarks.nanochat import exploits as shared
from benchmarks.nanochat.evaluate import Evaluator
from benchmarks.nanochat.redteam.bait import bait, facts_of
from benchmarks.nanochat.redteam.guards import GUARDS, TREE_GUARDS, OpenEvaluator, sandbox
from benchmarks.redteam_report import Honest, Report, Row
from runners.sandbox import Sandbox, SandboxBroken

FIRST_SLOT = 60  # users of its own, beside those of a lab that runs
SEED = 20_261_124
NO_GUARD: frozenset[str] = frozenset()
NEEDS_A_BOX = frozenset(
    ("mounts", "network", "system_calls", "own_user", "memory_cap", "scratch_cap", "process_namespace")
)

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

    def __init__(self, slot: int, cpu: int | None, data: Path) -> None:
        self.slot, self.cpu, self.data = slot, cpu, data
        self.evaluator, self.open_evaluator = Evaluator(), OpenEvaluator()
        self._stack = ExitStack()
        self._box: Sandbox | None = None
        self._removed = NO_GUARD
        self._ended = False

    def box(self, removed: frozenset[str] = NO_GUARD) -> Sandbox:
        if self._ended:
            raise SandboxBroken("the red team was stopped")
        wanted = removed & NEEDS_A_BOX
        if self._box is None or wanted != self._removed:
            self._stack.close()
            self._box = self._stack.enter_context(sandbox(self.slot, wanted, self.data))
            self._removed = wanted
            if self.cpu is not None:
                self._box.pin(self.cpu)
        return self._box

    def run(self, task: Assignment) -> Outcome:
        box = self.box(task.removed_guards)
        ignore = lambda name, steps, values: None  # noqa: E731
        if not task.removed_guards:
            return self.evaluator.run(task, box, ignore, cpu=self.cpu)
        with tempfile.TemporaryDirectory() as folder:
            kept = Path(folder) / "weights"
            return self.open_evaluator.run(task, box, ignore, cpu=self.cpu, keep_weights=kept)

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

    def __init__(self, data: Path, preset: Preset, admit: Admit, jobs: int = 2, say: Say = lambda line: None) -> None:
        self.data, self.preset, self.admit, self.say = data, preset, admit, say
        self.plain = shared.plain()
        cpus = sorted(os.sched_getaffinity(0))
        self.arenas = [Arena(FIRST_SLOT + n, cpus[n] if n < len(cpus) else None, data) for n in range(jobs)]
        self._idle: queue.SimpleQueue[Arena] = queue.SimpleQueue()
        for arena in self.arenas:
            self._idle.put(arena)
        self._pool = ThreadPoolExecutor(jobs)
        self._twins: dict[tuple[bytes, str, frozenset[str]], Seen] = {}
        self._stack = ExitStack()
        self._caches = Path(self._stack.enter_context(tempfile.TemporaryDirectory(prefix="redteam-caches-")))
        self.facts = facts_of(data, preset)
        self.facts |= self._stack.enter_context(bait((data / "val_screen.bin").read_bytes()))

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

    def run(self, corpus: Mapping[str, Exploit], honest: Sequence[tuple[Step, ...]], without_guards: bool) -> Report:
        report = Report(isolation=self.arenas[0].box().isolation.level)
        tasks: list[Callable[[Arena], Row | Honest]] = [
            lambda arena, name=name, planted=planted: self.play(arena, name, planted, without_guards)  # type: ignore[misc]
            for name, planted in corpus.items()
        ]
        tasks += [lambda arena, recipe=recipe: self.play_honest(arena, recipe) for recipe in honest]  # type: ignore[misc]
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
        answer = planted.caught(exploit.expects, seen, twin)
        row = Row(
            name, exploit.source, exploit.mechanism, exploit.guard, exploit.expects, answer.yes, answer.why, seen.score,
            twin.score, round(time.monotonic() - began, 2),
        )  # fmt: skip
        if not without_guard or (exploit.guard == "own_user" and os.geteuid() != 0):  # only root can start one as root
            return row
        through = self.without_guard(arena, exploit)
        seconds = round(time.monotonic() - began, 2)
        return replace(row, wins_without=through.yes, why_without=through.why, seconds=seconds)

    def without_guard(self, arena: Arena, exploit: Exploit) -> Answer:
        """Whether the exploit gets through once the guard it names is away."""
        return planted.wins(exploit.expects, *self.duel(arena, exploit, frozenset((exploit.guard,))))

    def duel(self, arena: Arena, exploit: Exploit, removed: frozenset[str] = NO_GUARD) -> tuple[Seen, Seen]:
        """What is seen of the exploit and of its twin, on the same slot."""
        twin = Tree(exploit.twin(self.plain, self.facts))
        links = {path: _filled(target, self.facts) for path, target in exploit.links.items()}
        tree = Tree(exploit.tree(self.plain, self.facts), links)
        key = (twin.pack(), exploit.split, removed)
        if key not in self._twins:
            self._twins[key] = self._look(arena, Tree(self.plain), twin, exploit.split, 0, removed)
        return self._look(arena, twin, tree, exploit.split, exploit.earlier, removed), self._twins[key]

    def _look(self, arena: Arena, parent: Tree, tree: Tree, split: str, earlier: int, removed: frozenset[str]) -> Seen:
        found = [] if removed & TREE_GUARDS else self.admit(parent, tree)
        if any(one.severity == "structural" for one in found):
            return _seen(Outcome(), found, "refused")
        packed = tree.pack()
        try:
            arena.open_evaluator.cache = b""
            for before in range(earlier):
                arena.run(self._task(packed, SEED + 1 + before, split, removed))
            outcome = arena.run(self._task(packed, SEED, split, removed))
        except SandboxBroken as broken:
            arena.close()
            return Seen(None, "crash", message=f"the sandbox broke: {broken}")
        finally:
            arena.sweep()
        return _seen(outcome, found)

    def play_honest(self, arena: Arena, recipe: Sequence[Step]) -> Honest:
        """A candidate of the catalogue, trained for the preset's whole budget as in the lab."""
        contract = load("nanochat")
        start = {path: text.decode() for path, text in contract.start_files("vanilla", self.preset.name).items()}
        tree = Tree(contract.load_catalogue(self.preset.name).CATALOGUE.apply(start, recipe))
        found = self.admit(Tree(start), tree)
        try:
            outcome = arena.run(self._task(tree.pack(), SEED, "val_screen", NO_GUARD))
        except SandboxBroken as broken:
            arena.close()
            return Honest(_names(recipe), None, (f"the sandbox broke: {broken}",))
        lines = [
            f"{one.kind}: {'; '.join(one.evidence) or one.message}"
            for one in (*found, *outcome.observations)
            if one.severity != "info"
        ]
        if outcome.failure and outcome.failure.kind == "timeout" and not lines:
            return Honest(_names(recipe), None, (outcome.failure.message,), too_slow=True)
        if outcome.failure:
            lines.append(f"{outcome.failure.kind}: {outcome.failure.message}")
        return Honest(_names(recipe), outcome.score, tuple(lines))

    def _task(self, packed: bytes, seed: int, split: str, removed: frozenset[str]) -> Assignment:
        return Assignment(
            "nanochat", self.preset, "", packed, seed, split, self.data, confirming=split != "val_screen",
            caches=self._caches, removed_guards=removed,
        )  # fmt: skip


def _filled(text: str, facts: Mapping[str, str]) -> str:
    for name, value in facts.items():
        text = text.replace(f"@{name}@", value)
    return text


def _names(recipe: Sequence[Step]) -> tuple[str, ...]:
    return tuple(step.technique for step in recipe)


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


def exploits() -> dict[str, Exploit]:
    return planted.corpus(shared.__name__, Path(str(shared.__file__)).parent, GUARDS)


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
