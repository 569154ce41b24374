"""A search that the tests of one file share: played once, found by each of them as it was.

Its rows are made in a transaction around those of the tests, which are rolled back to it; its repositories are copied
back. A file asks for it with a fixture `played` of its own:

    @pytest.fixture(scope="module")
    def played(stage: Stage) -> Stage:
        return stage.gain("alpha")

The fixtures `project`, `thread`, `quick` and `world` are then those of the stage, read anew for each test, and
`world.gain(thread, "alpha")` finds its request there.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from research.models import Machine, Project, Thread
from tests.cast import World, begin, focus, store_floor

GAINS = {"ALPHA": 0.05, "BETA": 0.05, "GAMMA": 0.05, "DELTA": -0.05}


class Stage:
    def __init__(self, copies: Path) -> None:
        self._copies = copies
        self._gained: dict[int, tuple[str, ...]] = {}
        self._project = begin().pk
        self._machine = Machine.objects.create(name="quick", machine_class="quick cpu, 2 slots", slots=2).pk
        store_floor(self.project, self.machine)
        self.world = World(self.machine, dict(GAINS))

    @property
    def project(self) -> Project:
        return Project.objects.get(pk=self._project)

    @property
    def thread(self) -> Thread:
        return self.project.threads.get()

    @property
    def machine(self) -> Machine:
        return Machine.objects.get(pk=self._machine)

    def gain(self, *names: str) -> Stage:
        self.world.gain(self.thread, *names)
        self._gained[self.thread.pk] = names
        return self.kept()

    def verdict(self, name: str) -> Stage:
        """Steer to a technique and measure until its verdict stands, not a step further."""
        focus(self.thread, name)
        self.world.until_verdict(self.thread)
        return self.kept()

    @property
    def gained(self) -> dict[int, list[str]]:
        return {thread: list(names) for thread, names in self._gained.items()}

    def kept(self) -> Stage:
        """Call it when everything is played."""
        for project in Project.objects.all():
            shutil.copytree(project.repository_path, self._copies / project.public_id, symlinks=True)
        return self

    def put_back(self) -> None:
        for project in Project.objects.all():
            shutil.rmtree(project.repository_path)
            shutil.copytree(self._copies / project.public_id, project.repository_path, symlinks=True)
