"""Turn changed sources into a Candidate: commit, stored diff, static checks, search for a twin. Used by steps."""

from __future__ import annotations

from collections.abc import Sequence

from django.db import transaction

from benchmarks.catalogue import Sources, Step, allows
from benchmarks.syntax import parse
from research.loop.memory import steps_of
from research.loop.problems import astray
from research.loop.repeats import refusal_of_code
from research.models import Branch, Candidate, Diff, Experiment, FoundTechnique, Idea
from research.repository import Change, Repository
from research.validation import integrity


def commit_candidate(
    idea: Idea, parent: str, sources: Sources, recipe: Sequence[Step], branches: Sequence[Branch] = ()
) -> Candidate | None:
    """Commit changed sources on `parent`. None where the change is refused; the idea then says why."""
    project = idea.project
    repository = Repository(project.repository_path)
    files = repository.files(parent) | {path: text.encode() for path, text in sources.items()}
    commit = repository.commit_files(files, parent, message_of(idea), idea.created)
    return adopt_commit(idea, parent, commit, recipe, branches)


def adopt_commit(
    idea: Idea, parent: str, commit: str, recipe: Sequence[Step], branches: Sequence[Branch] = ()
) -> Candidate | None:
    """Make a commit the idea's candidate, after the static checks and the search for a twin."""
    project = idea.project
    repository = Repository(project.repository_path)
    change = repository.diff(parent, commit)
    tree = repository.tree_of(commit)
    if refusal := _refusal(idea, parent, commit, tree, change):
        idea.refuse(*refusal)
        return None
    return keep_candidate(idea, parent, commit, recipe, branches)


def keep_candidate(
    idea: Idea, parent: str, commit: str, recipe: Sequence[Step], branches: Sequence[Branch] = (),
    carried_from: Candidate | None = None,
) -> Candidate | None:  # fmt: skip
    """The candidate of a commit that was looked at. None where the idea was refused in the meantime."""
    project = idea.project
    repository = Repository(project.repository_path)
    change, tree = repository.diff(parent, commit), repository.tree_of(commit)
    with transaction.atomic():
        candidate, _ = Candidate.objects.get_or_create(
            idea=idea,
            defaults={
                "project": project, "thread": idea.thread, "parent": parent, "commit": commit, "tree": tree,
                "recipe": [step.to_json() for step in recipe], "branches": [list(branch) for branch in branches],
                "trusted": _ships_with_the_lab(idea, repository, commit, recipe), "carried_from": carried_from,
            },
        )  # fmt: skip
        Diff.objects.get_or_create(
            candidate=candidate,
            defaults={
                "base": parent, "head": commit, "patch": _storable(change.patch), "files": change.files,
                "added": change.added, "removed": change.removed,
            },
        )  # fmt: skip
        if not idea.implemented(change.paths):
            transaction.set_rollback(True)
            return None
    repository.keep(candidate.ref, commit)
    return candidate


def _ships_with_the_lab(idea: Idea, repository: Repository, commit: str, recipe: Sequence[Step]) -> bool:
    """Neither the idea nor anything that the commit stands on brought code from outside."""
    if FoundTechnique.objects.any_of(idea.project.benchmark, (step.technique for step in recipe)):
        return False
    outside = set(Candidate.objects.filter(project=idea.project, trusted=False).values_list("commit", flat=True))
    return idea.trusted and not (outside and outside & set(repository.since(idea.project.start_commit, commit)))


def _storable(patch: str) -> str:
    """A patch with bytes that are no UTF-8 written out: databases refuse lone surrogates."""
    return patch.encode("utf-8", "backslashreplace").decode()


def _refusal(idea: Idea, parent: str, commit: str, tree: str, change: Change) -> tuple[str, Experiment | None] | None:
    contract = idea.project.contract
    if not change.files:
        return "the change is empty: the head already says so", None
    broken = integrity.check_paths(change.paths, contract.editable, contract.protected)
    if broken:
        return "; ".join(finding.message for finding in broken), None
    if why := astray(idea.project, change.paths):
        return why, None
    if why := _steered_away(idea, change.paths):
        return why, None
    if why := _broken(idea, commit, change.paths):
        return why, None
    return refusal_of_code(idea, parent, tree, change)


def _steered_away(idea: Idea, paths: Sequence[str]) -> str:
    """What a person forbade is refused, not only asked for; of a catalogue's techniques that was looked at before."""
    thread = idea.thread
    focus, forbid = (set(thread.directives.get(name, ())) for name in ("focus", "forbid"))
    labels = {*paths, *idea.project.touched(paths), *idea.tags}
    if idea.kind != Idea.Kind.CHANGE or allows(labels, focus, forbid):
        return ""
    by = f" by {thread.steered_by}" if thread.steered_by else ""
    if hit := sorted(labels & forbid):
        return f"steering{by} forbids {', '.join(hit)}"
    return f"steering{by} keeps to {', '.join(sorted(focus))}; this changes {', '.join(sorted(labels))}"


def _broken(idea: Idea, commit: str, paths: Sequence[str]) -> str:
    """Why code of a researcher's own cannot run at all; the catalogue's edits are parsed as they are made."""
    if idea.kind in (Idea.Kind.TECHNIQUE, Idea.Kind.RETUNE):
        return ""
    files = Repository(idea.project.repository_path).files(commit)
    for path in paths:
        if path.endswith(".py") and path in files:
            try:
                parse(files[path], path)
            except (SyntaxError, ValueError) as error:
                line = f", line {error.lineno}" if isinstance(error, SyntaxError) else ""
                return f"{path} is not valid Python{line}: {getattr(error, 'msg', error)}"
    return ""


def message_of(idea: Idea) -> str:
    """First line at most 72 characters: what the commit changes; then the hypothesis and who proposed it."""
    names = ", ".join(step.technique for step in steps_of(idea.steps)) or idea.kind
    if idea.kind == Idea.Kind.CHANGE:
        names = " ".join(idea.name.split())
    title = f"{idea.kind.capitalize()}: {names}"[:72]
    return f"{title}\n\n{idea.hypothesis}\n\nProposed-by: {idea.researcher}\nIdea: {idea.public_id}\n"
