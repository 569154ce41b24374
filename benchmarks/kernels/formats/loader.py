"""Problems from disk: a folder, a folder of folders, or flat parquet rows; ids 1 to 235 of the official set.

Ids are those of the official board: L1, then L2, then Quant, then FlashInfer-Bench, each sorted by name. A folder whose
name is a number has that id; a folder or file named after a collection gives its problems theirs by position, where the
collection is whole.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from benchmarks.kernels.formats.definition import Definition, parse_definition
from benchmarks.kernels.formats.fields import parse_json, read_text, sequence, text, wrong
from benchmarks.kernels.formats.workload import Problem, parse_workload, parse_workloads

COLLECTIONS: Mapping[str, range] = {
    "L1": range(1, 95), "L2": range(95, 177), "Quant": range(177, 210), "FlashInfer-Bench": range(210, 236),
}  # fmt: skip
JSON_COLUMNS = ("axes", "inputs", "outputs", "workloads")
PLAIN_COLUMNS = ("name", "description", "hf_id", "reference", "custom_inputs_entrypoint", "op_type", "constraints")
OWN = Path(__file__).parent.parent / "problems"


def collection_of(id: int | None) -> str:
    return next((name for name, ids in COLLECTIONS.items() if id in ids), "")


def load_problem(folder: Path, workloads: str = "workload.jsonl", honour_misspelled_ratio: bool = False) -> Problem:
    """The problem of one folder with definition.json and the named file of workloads."""
    id = int(folder.name) if folder.name.isascii() and folder.name.isdigit() and len(folder.name) < 4 else None
    collection = collection_of(id)
    path = folder / "definition.json"
    definition = parse_definition(parse_json(read_text(path), str(path)), str(path))
    path = folder / workloads
    found = parse_workloads(read_text(path), definition, str(path), honour_misspelled_ratio)
    return Problem(definition, found, id if collection else None, collection, folder)


def load_problems(path: Path, honour_misspelled_ratio: bool = False) -> tuple[Problem, ...]:
    """All problems below a folder, or of one parquet file, ids first, then by name."""
    if not path.exists():
        wrong(str(path), "is not there", "give the folder of the problems, or a parquet file")
    if path.is_dir():
        folders = sorted(file.parent for file in path.rglob("definition.json"))
        found = [load_problem(folder, honour_misspelled_ratio=honour_misspelled_ratio) for folder in folders]
        for file in sorted(path.rglob("*.parquet")):
            found += load_parquet(file, honour_misspelled_ratio)
        found = list(_with_ids(found))
    else:
        found = list(_with_ids(load_parquet(path, honour_misspelled_ratio)))
    if not found:
        wrong(str(path), "holds no problem", "give a folder with definition.json and workload.jsonl in it or below")
    names = [problem.name for problem in found]
    if twice := sorted({name for name in names if names.count(name) > 1}):
        wrong(str(path), f"two problems are named {twice[0]!r}", "keep one of the two")
    return tuple(sorted(found, key=lambda problem: (problem.id is None, problem.id or 0, problem.name)))


def load_parquet(path: Path, honour_misspelled_ratio: bool = False) -> tuple[Problem, ...]:
    """One problem a row; axes, inputs, outputs and workloads are JSON texts. Named after its collection."""
    try:
        import pyarrow.parquet  # an extra: folders need none of it
    except ImportError:
        wrong(str(path), "parquet cannot be read here", "pip install 'recursive-lab[parquet]'")
    try:
        table = pyarrow.parquet.read_table(path)
        rows = table.to_pylist()
    except (OSError, ValueError, pyarrow.ArrowException) as error:  # ArrowInvalid is a ValueError
        wrong(str(path), f"no parquet file ({str(error).splitlines()[0]})", "fetch it again")
    collection = path.stem if path.stem in COLLECTIONS else ""
    return tuple(
        _row(row, f"{path}: row {number}", collection, honour_misspelled_ratio) for number, row in enumerate(rows)
    )


def _row(row: Mapping[str, Any], where: str, collection: str, honour_misspelled_ratio: bool) -> Problem:
    fields = {name: row.get(name) for name in PLAIN_COLUMNS}
    for name in JSON_COLUMNS:
        fields[name] = parse_json(text(row.get(name), f"{where}: {name}"), f"{where}: {name}")
    definition: Definition = parse_definition(fields, where)
    lines = sequence(fields["workloads"], f"{where}: workloads")
    workloads = tuple(
        parse_workload(line, definition, f"{where}: workloads[{number}]", honour_misspelled_ratio)
        for number, line in enumerate(lines)
    )
    if not workloads:
        wrong(f"{where}: workloads", "is empty", "give at least one")
    return Problem(definition, workloads, None, collection, None)


def find_blob(path: str, blobs: Path | None) -> Path | None:
    """The file below `blobs`, which may itself begin further down the path; never outside of it."""
    if blobs is None:
        return None
    root, parts = blobs.resolve(), Path(path).parts
    for start in range(len(parts)):
        file = root.joinpath(*parts[start:]).resolve()
        if file.is_relative_to(root) and file.is_file():
            return file
    return None


def _with_ids(problems: Iterable[Problem]) -> Iterator[Problem]:
    """Ids by position for problems in a folder or file of their collection, where all of it is there."""
    rest: dict[str, list[Problem]] = {}
    for problem in problems:
        collection = problem.collection
        if problem.id is None and not collection and problem.folder is not None:
            collection = next((part for part in reversed(problem.folder.parts[:-1]) if part in COLLECTIONS), "")
        if problem.id is not None or not collection:
            yield problem
        else:
            rest.setdefault(collection, []).append(replace(problem, collection=collection))
    for collection, found in rest.items():
        ids = COLLECTIONS[collection]
        found.sort(key=lambda problem: problem.name)
        for problem, id in zip(found, ids if len(found) == len(ids) else [None] * len(found), strict=True):
            yield replace(problem, id=id)
