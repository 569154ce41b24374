"""A candidate that ran out of memory is tried once more with half the rows a pass: the batch of a step stays the same.

The starts that run on a GPU take so many rows at once and add gradients up until the batch is full, so halving that
constant changes memory and speed, not what is learned. It is a candidate of its own, shown as what it is: the first
one keeps its verdict, and a second failure is final.
"""

from __future__ import annotations

import ast
import hashlib

from benchmarks import edits
from benchmarks.syntax import parse
from research.loop.commit import adopt_commit, message_of
from research.loop.memory import recipe_of, steps_of
from research.models import Idea, Thread, Verdict
from research.repository import Repository
from research.validation.rules import VerdictKind

CONSTANTS = ("DEVICE_BATCH", "DEVICE_ROWS")  # what the starts call the rows of one forward and backward pass
OUT_OF_MEMORY = "out_of_memory"
RETRIED = "half-device-batch"  # the tag of such an idea


def step(thread: Thread) -> bool:
    """Bring one candidate of the thread back with half the rows. True where rows changed."""
    if thread.experiments.running().exists() or thread.waiting_candidate is not None:
        return False
    verdict = _newest_without_retry(thread)
    return verdict is not None and _again(thread, verdict)


def _newest_without_retry(thread: Thread) -> Verdict | None:
    """The newest failure for want of memory on the thread's head that nobody has tried again."""
    rows = Verdict.objects.filter(
        experiment__thread=thread, kind=str(VerdictKind.INVALID), experiment__baseline_commit=thread.head,
        experiment__findings__kind=OUT_OF_MEMORY,
    ).select_related("experiment__candidate__idea")  # fmt: skip
    for verdict in rows.distinct().order_by("-pk"):
        blamed = set(verdict.experiment.findings.filter(severity="structural").values_list("kind", flat=True))
        candidate = verdict.experiment.candidate
        first = blamed == {OUT_OF_MEMORY} and candidate is not None and RETRIED not in candidate.idea.tags
        if first and not thread.ideas.filter(fingerprint=_fingerprint(verdict)).exists():
            return verdict
    return None


def _again(thread: Thread, verdict: Verdict) -> bool:
    candidate = verdict.experiment.candidate
    assert candidate is not None  # by the filter
    repository = Repository(thread.project.repository_path)
    files = repository.files(candidate.commit)
    found = rows_a_pass(files)
    if found is None:
        return False
    path, name, rows = found
    files[path] = edits.constant(files[path].decode(), name, rows // 2).encode()
    idea = candidate.idea
    retried = Idea.add(
        thread, Idea.next_number(thread), kind=idea.kind, title=f"{idea.name}, {name} {rows // 2}"[:160],
        hypothesis=idea.hypothesis, expected_effect=idea.expected_effect, cost_guess=idea.cost_guess, steps=idea.steps,
        tags=[*idea.tags, RETRIED], mode=idea.mode, model=idea.model, researcher=idea.researcher, trusted=idea.trusted,
        plan=f"{idea.plan}\n{verdict.experiment} ran out of memory: {name} {rows} became {rows // 2}.".strip(),
        fingerprint=_fingerprint(verdict),
    )  # fmt: skip
    commit = repository.commit_files(files, candidate.parent, message_of(retried), retried.created)
    adopt_commit(retried, candidate.parent, commit, (*recipe_of(thread.project, thread.head), *steps_of(idea.steps)))
    return True


def rows_a_pass(files: dict[str, bytes]) -> tuple[str, str, int] | None:
    """File, name and value of the constant that says so; None where there is none, or it cannot be halved."""
    for path, content in sorted(files.items()):
        if not path.endswith(".py") or not any(name.encode() in content for name in CONSTANTS):
            continue
        for node in parse(content.decode("utf-8", "replace"), path).body:
            if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
                value = node.value.value if isinstance(node.value, ast.Constant) else None
                name = node.targets[0].id
                if name in CONSTANTS and isinstance(value, int) and value >= 2:
                    return path, name, value
    return None


def _fingerprint(verdict: Verdict) -> str:
    return hashlib.sha256(f"{RETRIED} {verdict.experiment.public_id}".encode()).hexdigest()
