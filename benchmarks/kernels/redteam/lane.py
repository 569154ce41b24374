"""The kernel lane as the red team plays it: on a problem of its own, and on all that the lab ships."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path

from benchmarks import exploit as planted
from benchmarks.catalogue import Sources
from benchmarks.contract import Preset
from benchmarks.exploit import Exploit, Margin
from benchmarks.kernels import evaluate, trees
from benchmarks.kernels.formats.loader import load_problem
from benchmarks.kernels.prepare import lay_out, own_problems
from benchmarks.kernels.redteam import exploits as shared
from benchmarks.kernels.redteam.guards import GUARDS, OpenEvaluator
from benchmarks.redteam_box import BOX_GUARDS, sandbox
from benchmarks.redteam_lane import Candidate
from runners.sandbox import Sandbox

PROBLEM = Path(__file__).parent / "problem"
NOTICEABLE = 0.25  # of a time; launches on a busy machine differ by less


class KernelLane:
    benchmark = "kernels"
    guards, box_guards, tree_guards = GUARDS, BOX_GUARDS, frozenset[str]()
    margin = Margin(equal=NOTICEABLE, worth=NOTICEABLE, relative=True, noisy=True)
    looked_at = frozenset(("much_faster",))
    problems: tuple[str, ...] = (shared.PROBLEM,)

    def exploits(self) -> dict[str, Exploit]:
        return planted.corpus(shared.__name__, Path(str(shared.__file__)).parent, GUARDS)

    def plain(self) -> Sources:
        return {shared.SOLUTION: shared.HONEST}

    def prepared(self, preset: Preset) -> Path:
        ours = [(load_problem(PROBLEM), "workload.jsonl")]
        return lay_out([*own_problems(preset.device), *ours], "redteam")

    @contextmanager
    def facts(self, data: Path, preset: Preset) -> Iterator[dict[str, str]]:
        yield {"SEED": str(shared.SEED)}

    def evaluator(self) -> evaluate.Evaluator:
        return evaluate.Evaluator()

    def open_evaluator(self) -> OpenEvaluator:
        return OpenEvaluator()

    def sandbox(self, slot: int, removed: frozenset[str], data: Path) -> AbstractContextManager[Sandbox]:
        return sandbox(slot, removed, data, evaluate)

    def honest(self, data: Path, preset: Preset, count: int) -> list[Candidate]:
        """The references, then the catalogue's techniques, each on its own problem."""
        from benchmarks.kernels.catalogue.cpu import for_data  # torch: seconds to import

        files = trees.start_files("reference", data)
        start = {path: text.decode() for path, text in files.items() if path.endswith(".py")}
        found = [Candidate((), start, start, (name,)) for name in trees.problems(data)]
        for name, technique in for_data(data).items():
            problem = name.partition("__")[2]
            found.append(Candidate((name,), technique.apply(dict(start), technique.defaults()), start, (problem,)))
        return found[:count]
