"""Try what was proposed as a technique: on the start, on the champion, and with all others on top of it."""

from __future__ import annotations

from benchmarks.found import fit
from research.loop.memory import catalogue_of, sources_of
from research.models import FoundTechnique, Project


def step(project: Project) -> bool:
    """Try one that waits for a person and was not tried on this champion. It parses, so no page does it."""
    waiting = FoundTechnique.objects.waiting().filter(project=project)
    for row in waiting.prefetch_related("experiment__candidate__idea"):  # mostly there is none, and nothing to join
        if row.fit.get("at") != project.champion:
            start, champion = (
                dict(sources_of(project.repository_path, commit)) for commit in (project.start_commit, project.champion)
            )
            row.tried(fit(catalogue_of(project), row.technique, start, champion), project.champion)
            return True
    return False
