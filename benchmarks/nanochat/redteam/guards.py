"""The guards of this lane by name, and what takes one away: for the red team's test that each of them is needed.

Nothing of the lab imports this file, and `evaluate.Evaluator` refuses an assignment that names a removed guard. So the
weakened paths below exist only where the corpus of exploits is played (benchmarks/redteam.py).
"""

from __future__ import annotations

import os
import pickle
import re
import tempfile
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.contract import Assignment, Gate, Outcome, PointSink
from benchmarks.nanochat import evaluate, training
from benchmarks.nanochat.weights import Weights
from runners.sandbox import Child, Sandbox

# name: what it holds. A guard of the tree is checked before anything runs (research/validation/integrity.py, git).
GUARDS: Mapping[str, str] = {
    "judge_scores": "the score is the judge's own; what a candidate prints or sends is text",
    "targets_withheld": "targets never enter a process that runs a candidate",
    "normalised_by_judge": "the judge makes probabilities of scores, so that they add up to one",
    "finite_scores": "one score that is no finite number fails the trial",
    "safetensors_only": "weights are tensors in a format without code, loaded in the sandbox alone",
    "path_law": "a change outside the editable paths never runs",
    "plain_files": "a commit holds plain files, no links",
    "reading": "what a reader of the source should look at is pointed out",
    "mounts": "the sandbox mounts no data",
    "closed_descriptors": "a step gets the descriptors it is given and no other",
    "truncation_audit": "a fresh process answers again with the future cut off, and must agree",
    "second_process": "a fresh process answers again, in other company and order, and must agree",
    "network": "no network, and no socket of the host",
    "fresh_confirm_text": "what confirms is another text than what screened",
    "parent_clock": "the parent counts the time of the whole sandbox; what comes later counts for nothing",
    "weights_copied": "weights are copied as they come in",
    "text_after_start": "the training text is handed out when the clock starts",
    "warm_up_watch": "a long untimed warm-up asks for a reader",
    "emptied_between_steps": "every process is killed and every file removed between two steps",
    "cache_snapshot": "of a compile cache stays what stood there before any data came; every step gets a copy",
    "system_calls": "system calls that reach or leave lasting objects are refused",
    "memory_cap": "memory is capped",
    "scratch_cap": "the scratch folder is capped",
    "process_namespace": "a sandbox sees no process but its own",
    "own_user": "a sandbox is started by a user of its own, never by root",
}
JUDGE_GUARDS = frozenset(("normalised_by_judge", "finite_scores"))
TREE_GUARDS = frozenset(("path_law", "plain_files", "reading"))
CLAIM = re.compile(r"bits_per_byte: ([-+.\de]+)")


class OpenBox:
    """A sandbox whose steps get what they should not, or leave what they should not."""

    def __init__(self, box: Sandbox, task: Assignment) -> None:
        self._box, self._task, self._removed = box, task, task.removed_guards
        self.cache = b""  # what the last step left, for the next one, of the next trial too

    def __getattr__(self, name: str) -> Any:
        return getattr(self._box, name)

    def reset(self) -> None:
        if "cache_snapshot" in self._removed:
            self.cache = self._box.read_cache() or self.cache
        if "emptied_between_steps" not in self._removed:
            self._box.reset()

    def cpu_seconds(self) -> float:
        return 0.0 if "parent_clock" in self._removed else self._box.cpu_seconds()

    def spawn(self, name: str, *, fds: Mapping[str, int], **options: Any) -> Child:
        given = {"targets_withheld": ("run_forward", "targets", self._task.split),
                 "closed_descriptors": ("run_train", "hidden", self._task.split),
                 "text_after_start": ("run_train", "text", "train")}  # fmt: skip
        opened: dict[str, int] = {}
        try:
            for guard in self._removed & given.keys():
                step, as_, part = given[guard]
                if step == name:
                    opened[as_] = os.open(self._task.data / f"{part}.bin", os.O_RDONLY)
            if "cache_snapshot" in self._removed:
                options["cache"] = self.cache
            return self._box.spawn(name, fds={**fds, **opened}, **options)
        finally:
            for fd in opened.values():
                os.close(fd)


class OpenSession(training.TrainSession):
    """Keeps the candidate's own memory of its weights and reads it when training is over."""

    def follow(self) -> training.Training | None:
        held = super().follow()
        if held and self._handed_in >= 0:
            held.weights.close()
            held.weights = Weights.of(os.pread(self._handed_in, os.fstat(self._handed_in).st_size, 0))
            os.close(self._handed_in)
        return held

    _handed_in = -1

    def _take_weights(self, descriptor: int) -> None:
        super()._take_weights(descriptor)
        if self._handed_in >= 0:
            os.close(self._handed_in)
        self._handed_in = os.dup(descriptor)


class OpenEvaluator(evaluate.Evaluator):
    """The evaluator without the guards that an assignment names."""

    cache = b""

    def run(
        self, task: Assignment, box: Sandbox, sink: PointSink, gate: Gate = lambda: None, cpu: int | None = None,
        keep_weights: Path | None = None, **options: Any,
    ) -> Outcome:  # fmt: skip
        with tempfile.TemporaryDirectory() as folder:
            return self._run(task, box, sink, gate, cpu, keep_weights or Path(folder) / "weights", **options)

    def _run(
        self, task: Assignment, box: Sandbox, sink: PointSink, gate: Gate, cpu: int | None, keep_weights: Path,
        **options: Any,
    ) -> Outcome:  # fmt: skip
        removed = task.removed_guards
        if "fresh_confirm_text" in removed:
            task = replace(task, split="val_screen")
        self.session = OpenSession if "weights_copied" in removed else training.TrainSession
        self.judge_program = (str(Path(__file__).parent / "open_judge.py"), ",".join(sorted(removed & JUDGE_GUARDS)))
        claims: list[float] = []

        def listen(name: str, steps: Any, values: Any) -> None:
            claims.extend(float(value) for value in values if name == "bits_per_byte")
            sink(name, steps, values)

        open_box: Any = OpenBox(box, task)
        open_box.cache = self.cache
        plain = replace(task, removed_guards=frozenset())
        outcome = super().run(plain, open_box, listen, gate, cpu, keep_weights, **options)
        self.cache = open_box.cache
        if "judge_scores" in removed:
            claims += [float(claim) for claim in CLAIM.findall(outcome.log)]
            if claims:
                outcome.score, outcome.failure = claims[-1], None
        if "warm_up_watch" in removed:
            outcome.observations = [seen for seen in outcome.observations if seen.kind != "long_warm_up"]
        if removed & {"truncation_audit", "second_process", "normalised_by_judge", "finite_scores"}:
            outcome.observations.clear()
        if "safetensors_only" in removed:
            outcome.log += _unpickled(keep_weights)
        return outcome


def _unpickled(weights: Path | None) -> str:
    """What a loader of pickles comes to: it runs what it loads. The payload of the corpus only says so."""
    with suppress(pickle.UnpicklingError, EOFError, ValueError, IndexError, KeyError):
        return str(pickle.loads(weights.read_bytes())) if weights else ""
    return ""
