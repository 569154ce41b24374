"""The sandbox of the red team: as the worker starts them, small, or without some of its guards. For every benchmark.

Nothing of the lab imports this file.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from types import ModuleType

from runners.jail import Jail, Limits
from runners.sandbox import Sandbox

BOX_GUARDS = frozenset(
    ("mounts", "network", "system_calls", "own_user", "memory_cap", "scratch_cap", "process_namespace")
)
ALLOW_ALL = struct.pack("<HBBI", 0x06, 0, 0, 0x7FFF0000)  # the one rule of a filter that refuses nothing
SMALL = Limits(memory_bytes=1 << 30, scratch_bytes=256 << 20)  # so that floods are over soon
LARGE = Limits(memory_bytes=3 << 30, scratch_bytes=1 << 30)


@contextmanager
def sandbox(slot: int, removed: frozenset[str], data: Path, evaluate: ModuleType) -> Iterator[Sandbox]:
    """A sandbox for steps of this evaluator, without the removed guards."""
    limits = SMALL
    if "memory_cap" in removed:
        limits = replace(limits, memory_bytes=LARGE.memory_bytes)
    if "scratch_cap" in removed:
        limits = LARGE
    needs_jail = removed & {"mounts", "network", "system_calls", "own_user"}
    jail = _jail(removed, data) if needs_jail else Jail
    with Sandbox.start(
        slot, inside=evaluate.INSIDE, preload=evaluate.PRELOAD, setup_statement=evaluate.SETUP, limits=limits,
        jail=jail, mechanism="landlock" if "process_namespace" in removed else None, loopback="network" in removed,
    ) as box:  # fmt: skip
        yield box


def _jail(removed: frozenset[str], data: Path) -> type[Jail]:
    """A jail with holes in it."""

    @dataclass(frozen=True)
    class OpenJail(Jail):
        @property
        def uid(self) -> int | None:
            return None if "own_user" in removed else Jail.uid.fget(self)  # type: ignore[attr-defined]

        @property
        def guardian(self) -> Path:
            refusing = Jail.guardian.fget(self)  # type: ignore[attr-defined]
            return Path(__file__).with_name("redteam_guardian.py") if "own_user" in removed else refusing

        def sources(self) -> dict[str, str]:
            return super().sources() | ({"data": str(data)} if "mounts" in removed else {})

        def bwrap(self, program: str, control: int, info: int, filter_fd: int) -> list[str]:
            argv = super().bwrap(program, control, info, filter_fd)
            if "network" in removed:
                argv.insert(argv.index("--unshare-user") + 1, "--share-net")
            if "mounts" in removed:
                at = argv.index("--remount-ro")
                argv[at:at] = ["--ro-bind", self.source("data"), str(data)]
                if data.is_relative_to("/tmp") and "/tmp" in argv:  # there it is a link to the scratch folder
                    at = argv.index("/tmp") - 2
                    del argv[at : at + 3]
            if "own_user" in removed:
                at = argv.index("/proc/sys") - 1
                del argv[at : at + 3]
            return argv

        def filter(self) -> bytes:
            return ALLOW_ALL if "system_calls" in removed else super().filter()

    return OpenJail
