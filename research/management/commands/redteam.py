"""`manage.py redteam`: planted exploits and honest candidates against the harness as it is. Ends with one JSON."""

from __future__ import annotations

import json
import os
import platform
import sys
import tempfile
import time
from argparse import BooleanOptionalAction
from functools import partial
from pathlib import Path
from typing import Any

from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from benchmarks.contract import Benchmark, ContractError, Observation, load
from benchmarks.data import DataError
from benchmarks.kernels.formats.fields import FormatError
from benchmarks.redteam import Admit, RedTeam, Tree, lane_of
from benchmarks.redteam_report import Report
from benchmarks.syntax import one_at_a_time
from research.repository import GitError, Repository
from research.validation import integrity
from runners.sandbox import SandboxBroken

MOST_JOBS = 8
INTERRUPTED = 130


class Command(BaseCommand):
    help = "Play the corpus of exploits, and honest candidates, against sandbox, judge and static checks."
    requires_system_checks = []  # they would load every page into this process

    def add_arguments(self, parser: Any) -> None:
        parser.add_argument("--benchmark", default="nanochat", help="whose exploits: nanochat (default) or kernels")
        parser.add_argument("--preset", default="smoke")
        parser.add_argument("--only", metavar="NAME", action="append", help="one exploit; may be given again")
        parser.add_argument("--honest", type=int, metavar="N", help="honest candidates (default 100; 0 with --only)")
        parser.add_argument("--without-guards", action=BooleanOptionalAction, default=False,
                            help="play each exploit again without the guard it names: it must win")  # fmt: skip
        parser.add_argument("--jobs", type=int, metavar="N", help="slots side by side (default: the cores, at most 2)")
        parser.add_argument("--json", action="store_true", help="print only the JSON object on stdout")

    def handle(self, *args: Any, **options: Any) -> None:
        began = time.monotonic()
        try:
            report = self.play(options)
        except (ContractError, DataError, FormatError, SandboxBroken) as error:
            raise CommandError(" ".join(str(error).split()), returncode=2) from error
        except KeyboardInterrupt:
            self.stderr.write("stopped; nothing was left behind")
            sys.exit(INTERRUPTED)
        row = report.to_json() | {
            "preset": options["preset"],
            "benchmark": options["benchmark"],
            "data_id": self.data_id,
            "seconds": round(time.monotonic() - began, 1),
            "machine": {"cores": len(os.sched_getaffinity(0)), "system": platform.platform(), "cpu": processor()},
        }
        if not options["json"]:
            self.show(report)
        self.stdout.write(json.dumps(row))
        if not report.clean:
            sys.exit(1)

    def play(self, options: dict[str, Any]) -> Report:
        lane = lane_of(options["benchmark"])
        preset, corpus = load(lane.benchmark).preset(options["preset"]), lane.exploits()
        if unknown := [name for name in options["only"] or () if name not in corpus]:
            raise ContractError(f"no exploit named {unknown[0]!r}; there are {', '.join(corpus)}")
        if options["only"]:
            corpus = {name: corpus[name] for name in options["only"]}
        count = options["honest"] if options["honest"] is not None else 0 if options["only"] else 100
        cores = len(os.sched_getaffinity(0))
        jobs = options["jobs"] if options["jobs"] is not None else min(2, cores)
        if not 0 <= count <= 1000 or not 1 <= jobs <= MOST_JOBS:
            raise ContractError(f"--honest must be 0 to 1000 and --jobs 1 to {MOST_JOBS}")
        data = lane.prepared(preset)
        self.data_id = json.loads((data / "manifest.json").read_text())["data_id"]
        honest = lane.honest(data, preset, count)
        with RedTeam(lane, data, preset, admitting(lane.benchmark), jobs, self.say) as team:
            return team.run(corpus, honest, options["without_guards"])

    def say(self, line: str) -> None:
        self.stderr.write(line)
        self.stderr.flush()

    def show(self, report: Report) -> None:
        for row in report.rows:
            self.stdout.write(f"{row.mechanism:8} {row.name:24} {'caught' if row.caught else 'MISSED'}  {row.why}")
        trained = len(report.honest) - len(report.too_slow)
        self.stdout.write(f"{len(report.rows) - len(report.missed)} of {len(report.rows)} exploits caught, "
                          f"{trained - len(report.false_alarms)} of {trained} honest candidates passed, "
                          f"{len(report.too_slow)} too slow for the preset")  # fmt: skip


def processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.machine()
    return next((line.partition(": ")[2] for line in lines if line.startswith("model name")), platform.machine())


def admitting(benchmark: str) -> Admit:
    return partial(admit, load(benchmark))


def admit(contract: Benchmark, parent: Tree, candidate: Tree) -> list[Observation]:
    """What the lab does with a change before it runs: a real commit, its paths, its modes, its source."""
    with tempfile.TemporaryDirectory(prefix="redteam-") as folder:
        encoded = {path: text.encode() for path, text in parent.files.items()}
        repository = Repository.create(Path(folder) / "projects" / "repository", encoded, "The parent", timezone.now())
        base = repository.root_commit()
        try:
            commit = _commit(repository, base, candidate)
        except GitError as refused:
            return [Observation("path_redirect", "structural", str(refused))]
        paths = repository.diff(base, commit).paths
    findings = integrity.check_paths(paths, contract.editable, contract.protected)
    with one_at_a_time:  # lint parses
        for path in paths:
            if path.endswith(".py") and path in candidate.files:
                findings += integrity.lint(path, candidate.files[path])
    return [Observation(one.kind, str(one.severity), one.message, tuple(one.evidence)) for one in findings]


def _commit(repository: Repository, base: str, candidate: Tree) -> str:
    with repository.worktree(base) as folder:
        for path, text in candidate.files.items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, encoding="utf-8")
        for path, target in candidate.links.items():
            (folder / path).symlink_to(target)
        return repository.commit_worktree(folder, base, "A candidate", timezone.now())
