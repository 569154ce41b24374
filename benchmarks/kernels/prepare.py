"""The prepared problems of the kernel lane: a folder that is whole or not there, found by the hash of its content.

manifest.json                             data_id, the names, and which of them are our own and may be passed on
problems/NAME/definition.json             and workload.jsonl, as they came; published figures in metadata.json
problems/NAME/work.json                   of each workload what it cannot do without, for its bound
"""

from __future__ import annotations

import hashlib
import json
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from pathlib import Path

from benchmarks.data import data_folder, use
from benchmarks.kernels.anchors import METADATA
from benchmarks.kernels.bounds import Work
from benchmarks.kernels.formats.fields import wrong
from benchmarks.kernels.formats.loader import OWN, load_problem
from benchmarks.kernels.formats.workload import Problem

FOLDER_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]*")
WORK = "work.json"
SIZES = {"cpu": "workload.cpu_timed.jsonl", "cuda": "workload.jsonl"}  # of our own problems: for one core, for a GPU


def own_problems(device: str) -> list[tuple[Problem, str]]:
    """Our own, with the name of the file of their sizes for a device ("cpu" or "cuda")."""
    sizes = SIZES[device]
    return [(load_problem(path.parent, sizes), sizes) for path in sorted(OWN.glob(f"*/{sizes}"))]


def is_own(problem: Problem, workloads: str) -> bool:
    """Whether a problem is ours, from wherever it was read: word for word one that ships with the lab."""
    ours, folder = OWN / problem.name, problem.folder
    return folder is not None and all(
        (folder / name).read_bytes() in {path.read_bytes() for path in ours.glob(pattern)}
        for name, pattern in (("definition.json", "definition.json"), (workloads, "workload*.jsonl"))
    )


def prepare(problems: Sequence[tuple[Problem, str]], data: str, say: Callable[[str], None] = lambda _: None) -> Path:
    """Copy the problems, from folders of their own, and make them those that `data` names. Returns the folder.

    `say` is told of each problem: finding what one costs can take seconds.
    """
    target = lay_out(problems, "problems", say)
    use(target, data, json.loads((target / "manifest.json").read_text())["data_id"])
    return target


def lay_out(problems: Sequence[tuple[Problem, str]], kind: str, say: Callable[[str], None] = lambda _: None) -> Path:
    """Copy the problems into a folder that is named after their kind and content, unless it is there."""
    for problem, _ in problems:
        if problem.folder is None:
            wrong(problem.name, "comes from a parquet file", "give a folder of problems")
        if not FOLDER_NAME.fullmatch(problem.name):
            wrong(problem.name, "cannot name a folder of a tree", "use letters, digits, dots, hyphens and underscores")
    root = data_folder("kernels")
    root.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root, prefix=".partial-") as made:
        folder = Path(made)
        for problem, workloads in problems:
            assert problem.folder is not None
            target = folder / "problems" / problem.name
            target.mkdir(parents=True)
            shutil.copyfile(problem.folder / "definition.json", target / "definition.json")
            shutil.copyfile(problem.folder / workloads, target / "workload.jsonl")
            for more in (*sorted(problem.folder.glob("*.safetensors")), problem.folder / METADATA):
                if more.is_file():
                    shutil.copyfile(more, target / more.name)
        identity = hashlib.sha256(b"".join(_digests(folder))).hexdigest()
        names = [problem.name for problem, _ in problems]
        own = [problem.name for problem, workloads in problems if is_own(problem, workloads)]
        manifest = {"data_id": identity, "vocabulary": 0, "problems": names, "own": own}
        (folder / "manifest.json").write_text(json.dumps(manifest, indent=1) + "\n")
        target = root / f"{kind}-{identity[:16]}"
        if not target.exists():
            for number, (problem, _) in enumerate(problems, start=1):
                say(f"{number} of {len(problems)}: {problem.name}")
                works = {uuid: work.to_json() for uuid, work in _works(problem)}
                (folder / "problems" / problem.name / WORK).write_text(json.dumps(works) + "\n")
            folder.rename(target)
            folder.mkdir()  # for who cleans up
        else:
            (folder / "manifest.json").replace(target / "manifest.json")  # an older one may say less
        target.chmod(0o755)
    return target


def read_works(folder: Path) -> dict[str, Work]:
    """By uuid, of the workloads whose cost could be found."""
    path = folder / WORK
    return {uuid: Work.from_json(row) for uuid, row in json.loads(path.read_text()).items()} if path.is_file() else {}


def _works(problem: Problem) -> Iterator[tuple[str, Work]]:
    from benchmarks.kernels.cost import CostError, cost  # torch: seconds to import

    for workload in problem.workloads:
        with suppress(CostError):
            yield workload.uuid, cost(problem.definition, workload).work


def _digests(folder: Path) -> Iterator[bytes]:
    for path in sorted(folder.rglob("*")):
        if path.is_file():
            yield hashlib.sha256(path.relative_to(folder).as_posix().encode() + b"\0" + path.read_bytes()).digest()
