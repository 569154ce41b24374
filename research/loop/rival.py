"""A tree from elsewhere as an arm: brought in whole, looked at, and measured beside the champion under the same rule.

It follows the contract of candidates, `train.py` with `main()` and `model.py` with `build()`, or is a program of a
public format that the benchmark adapts to it. Nothing of it is trusted, and none of it can be merged: it has no thread
and no idea, only an experiment with a verdict.
"""

from __future__ import annotations

import ast
from dataclasses import dataclass
from pathlib import Path

from django.db import transaction

from benchmarks.contract import Adapted
from benchmarks.edits import DoesNotApply
from benchmarks.syntax import one_at_a_time, parse
from research.loop.problems import differing
from research.models import Event, Experiment, Finding, NotMergeable, Project
from research.models.experiment import MOST_SEEDS
from research.repository import Repository
from research.validation import integrity
from research.validation.records import Finding as Observation
from research.validation.records import Severity
from research.validation.rules import Stage

LARGEST_FILE, LARGEST_TREE, MOST_FILES = 256 << 10, 1 << 20, 60
NEEDED = {"train.py": "main", "model.py": "build"}


@dataclass(frozen=True)
class Tree:
    """The files of a rival, and what a reader of them would note."""

    files: dict[str, bytes]
    findings: tuple[Observation, ...]


def read_tree(folder: Path, project: Project) -> Tree:
    """Every Python file below a folder. Raises NotMergeable with one line that says what is missing or wrong."""
    if not folder.is_dir():
        raise NotMergeable(f"there is no folder {folder}")
    files: dict[str, bytes] = {}
    for path in sorted(folder.rglob("*.py")):
        name = path.relative_to(folder).as_posix()
        if path.is_symlink() or not path.resolve().is_relative_to(folder.resolve()):
            raise NotMergeable(f"{name} is a link; bring plain files")
        if path.stat().st_size > LARGEST_FILE:
            raise NotMergeable(f"{name} is larger than {LARGEST_FILE >> 10} KiB")
        files[name] = path.read_bytes()
    if len(files) > MOST_FILES or sum(map(len, files.values())) > LARGEST_TREE:
        raise NotMergeable(f"at most {MOST_FILES} files of {LARGEST_TREE >> 20} MiB together")
    _refuse_unreadable(files)
    adapted = _adapted(files, project)
    taken = adapted.taken if adapted else tuple(files)
    found = [
        Observation(one.kind, Severity(one.severity), one.message, one.evidence)
        for one in (adapted.observations if adapted else ())
    ]
    with one_at_a_time:  # lint parses
        for name in taken:
            found += integrity.lint(name, files[name].decode("utf-8", "replace"))
    tree = dict(adapted.files) if adapted else files
    _refuse_others(tree, project)
    return Tree(tree, tuple(found))


def bring(project: Project, name: str, tree: Tree, pairs: int) -> Experiment:
    """The experiment that measures it against the champion. The same tree and name give the same one.

    Of many problems, those that it does not bring are the start's.
    """
    if not 2 <= pairs <= MOST_SEEDS:
        raise NotMergeable(f"ask for 2 to {MOST_SEEDS} pairs")
    repository = Repository(project.repository_path)
    brought = project.touched(tree.files)
    kept = {
        path: text
        for path, text in repository.files(project.start_commit).items()
        if not path.endswith(".py") or (project.problems and not set(project.touched([path])) & set(brought))
    }
    message = f"Rival: {name}\n\nBrought from elsewhere; never merged.\n"
    commit = repository.commit_files(kept | tree.files, project.start_commit, message, project.created)
    repository.keep(f"refs/rivals/{commit}", commit)
    key = f"rival-{project.public_id}-{commit[:12]}-{project.champion[:12]}-{pairs}"
    with transaction.atomic():
        found = Experiment.objects.filter(key=key).first()
        if found is not None:
            return found
        experiment = Experiment.objects.create(
            key=key, project=project, purpose=Experiment.Purpose.RIVAL, label=name, wanted_pairs=pairs,
            number=project.next_experiment_number(), baseline_commit=project.champion, candidate_commit=commit,
            rule=project.rule, problems=differing(project, project.champion, commit),
        )  # fmt: skip
        experiment.distrust()
        experiment.plan(str(Stage.CONFIRM), pairs)
        for finding in tree.findings:
            Finding.objects.create(
                experiment=experiment,
                kind=finding.kind,
                severity=finding.severity,
                message=finding.message,
                evidence=list(finding.evidence),
            )
        words = f"a rival was brought, {name}: {len(tree.files)} files, {len(tree.findings)} findings"
        Event.record(Event.Kind.EXPERIMENT, words, experiment=experiment)
    return experiment


def _refuse_unreadable(files: dict[str, bytes]) -> None:
    for name, text in files.items():
        try:
            parse(text, name)
        except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
            raise NotMergeable(f"{name} is not valid Python: {error}"[:300]) from error


def _adapted(files: dict[str, bytes], project: Project) -> Adapted | None:
    """A program of a public format as a candidate; None for anything else."""
    try:
        return project.contract.adapt(files, project.sizes)
    except DoesNotApply as error:
        raise NotMergeable(str(error)[:400]) from error


def _refuse_others(files: dict[str, bytes], project: Project) -> None:
    """One line with all that keeps it from being measured."""
    contract = project.contract
    if broken := integrity.check_paths(sorted(files), contract.editable, contract.protected):
        raise NotMergeable("; ".join(finding.message for finding in broken)[:400])
    lacks = [
        f"{function}() in {name}" if name in files else f"{name} with {function}()"
        for name, function in _needed(project).items()
        if name not in files or not _defines(parse(files[name], name), function)
    ]
    if lacks:
        raise NotMergeable(f"it lacks {' and '.join(lacks)}: see the start `{project.start}`")


def _needed(project: Project) -> dict[str, str]:
    """What a candidate of this benchmark must define, as far as its start does."""
    files = Repository(project.repository_path).files(project.start_commit)
    return {
        name: function for name, function in NEEDED.items()
        if name in files and _defines(parse(files[name], name), function)
    }  # fmt: skip


def _defines(tree: ast.Module, function: str) -> bool:
    return any(isinstance(node, ast.FunctionDef) and node.name == function for node in tree.body)
