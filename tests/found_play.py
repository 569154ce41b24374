"""A change from an agent outside that is confirmed: what may become a technique."""

from __future__ import annotations

from research.loop.begin import add_thread
from research.loop.submit import Handed, submit
from research.models import ApiToken, Experiment, Machine, Project, Role, Thread
from tests.cast import World, go, person, repository_of

TRAIN = '"""The toy\'s training."""\n\nALPHA = {alpha}\nGAMMA = 1.0\nBETA = 1.0\n'


def outside_thread(project: Project) -> tuple[Thread, ApiToken]:
    owner = person("olaf", Role.ADMIN)
    ApiToken.make(owner, "coder", project, may_propose=True)
    return add_thread(project, "external", owner), ApiToken.objects.get()


def handed(thread: Thread, **more: object) -> Handed:
    text = repository_of(thread.project).files(thread.head)["train.py"].decode()
    fields = {
        "key": "one", "base": thread.head, "hypothesis": "A larger ALPHA lowers the loss.", "expected_effect": 0.05,
        "title": "larger ALPHA", "files": {"train.py": text.replace("ALPHA = 1.0", "ALPHA = 2.0")}, **more,
    }  # fmt: skip
    return Handed(**fields)  # type: ignore[arg-type]


def confirmed(world: World, project: Project) -> Experiment:
    """An experiment of a change from outside with the verdict improved, its lesson learned."""
    Machine.objects.update(isolation_level=3)
    world.machine.refresh_from_db()
    project.threads.get(number=1).pause()
    thread, token = outside_thread(project)
    submit(thread, token, handed(thread))
    verdict = world.until_verdict(thread)
    assert verdict.kind == "improved", verdict
    go(thread)
    return verdict.experiment
