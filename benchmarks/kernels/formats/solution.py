"""solution.json: sources that compute a definition's outputs, in one language family, with an entry point."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any

from benchmarks.kernels.formats.fields import (
    boolean,
    inner_path,
    mapping,
    optional_text,
    parse_json,
    read_text,
    sequence,
    shown,
    text,
    wrong,
)  # fmt: skip

PYTHON = frozenset({"pytorch", "triton", "cute_dsl", "cutile", "cudnn_frontend"})
CPP = frozenset({"cuda_cpp", "cutlass", "cublas", "cudnn"})
HARDWARE = frozenset({"B200", "LOCAL"})
FLAGS = {"cflags": (), "cuda_cflags": ("-O3", "--use_fast_math"), "ld_flags": ("-lcuda",)}
MAX_SOURCES = 1_000


@dataclass(frozen=True)
class Source:
    path: str  # relative, no '..'
    content: str


@dataclass(frozen=True)
class Solution:
    """`compile_options` holds cflags, cuda_cflags and ld_flags, of C++ alone."""

    name: str
    definition: str
    author: str
    languages: tuple[str, ...]
    entry_point: str  # file::function
    sources: tuple[Source, ...]
    target_hardware: tuple[str, ...] = ("LOCAL",)
    dependencies: tuple[str, ...] = ()
    destination_passing_style: bool = True  # outputs are given as the last arguments, nothing is returned
    binding: str = "torch"
    compile_options: Mapping[str, tuple[str, ...]] | None = None
    description: str = ""

    @property
    def entry_file(self) -> str:
        return self.entry_point.partition("::")[0]

    @property
    def entry_function(self) -> str:
        return self.entry_point.partition("::")[2]

    @property
    def is_python(self) -> bool:
        return PYTHON.issuperset(self.languages)

    def content_hash(self) -> str:
        """SHA-1, in hexadecimal, of all that decides what runs."""
        digest = hashlib.sha1(usedforsecurity=False)
        parts = [self.name, self.definition, *self.languages, self.entry_point, self.binding, *self.dependencies]
        for part in (*parts, *(part for source in self.sources for part in (source.path, source.content))):
            digest.update(part.encode() + b"\0")
        return digest.hexdigest()

    def to_json(self) -> dict[str, Any]:
        """As the official solution.json has it."""
        spec: dict[str, Any] = {
            "languages": list(self.languages), "target_hardware": list(self.target_hardware),
            "entry_point": self.entry_point, "dependencies": list(self.dependencies),
            "destination_passing_style": self.destination_passing_style, "binding": self.binding,
        }  # fmt: skip
        if self.compile_options is not None:
            spec["compile_options"] = {name: list(flags) for name, flags in self.compile_options.items()}
        return {
            "name": self.name, "definition": self.definition, "author": self.author, "description": self.description,
            "spec": spec, "sources": [{"path": source.path, "content": source.content} for source in self.sources],
        }  # fmt: skip


def load_solution(path: Path) -> Solution:
    """A solution.json; sources without content are read from the files beside it."""
    solution = parse_solution(parse_json(read_text(path), str(path)), str(path))
    root = path.parent.resolve()
    filled = []
    for source in solution.sources:
        if not source.content:
            file = (root / source.path).resolve()
            if not file.is_relative_to(root):  # a symbolic link
                wrong(str(path), f"the source {shown(source.path)} lies outside its folder", "put it inside")
            source = Source(source.path, read_text(file))
        filled.append(source)
    return replace(solution, sources=tuple(filled))


def parse_solution(raw: object, where: str) -> Solution:
    fields = mapping(raw, where)
    spec = mapping(fields.get("spec"), f"{where}: spec")
    at = f"{where}: spec"
    languages = _texts(spec.get("languages"), f"{at}.languages")
    hardware = _texts(spec.get("target_hardware"), f"{at}.target_hardware")
    if not languages or not (PYTHON.issuperset(languages) or CPP.issuperset(languages)):
        wrong(f"{at}.languages", f"is {shown(list(languages))}",
              f"choose from {', '.join(sorted(PYTHON))}, or from {', '.join(sorted(CPP))}")  # fmt: skip
    if not hardware or not HARDWARE.issuperset(hardware):
        wrong(f"{at}.target_hardware", f"is {shown(list(hardware))}", f"choose from {', '.join(sorted(HARDWARE))}")
    sources = _sources(fields.get("sources"), f"{where}: sources")
    entry = text(spec.get("entry_point"), f"{at}.entry_point")
    _check_entry(entry, sources, PYTHON.issuperset(languages), f"{at}.entry_point")
    if (binding := spec.get("binding", "torch")) != "torch":
        wrong(f"{at}.binding", f"is {shown(binding)}", "it must be torch")
    options = spec.get("compile_options")
    return Solution(
        name=text(fields.get("name"), f"{where}: name"),
        definition=text(fields.get("definition"), f"{where}: definition"),
        author=text(fields.get("author"), f"{where}: author"),
        languages=languages,
        entry_point=entry,
        sources=sources,
        target_hardware=hardware,
        dependencies=_texts(spec.get("dependencies") or [], f"{at}.dependencies"),
        destination_passing_style=boolean(
            spec.get("destination_passing_style", True), f"{at}.destination_passing_style"
        ),
        compile_options=None if options is None else _options(options, f"{at}.compile_options"),
        description=optional_text(fields.get("description"), f"{where}: description") or "",
    )  # fmt: skip


def _texts(raw: object, where: str) -> tuple[str, ...]:
    return tuple(text(item, where) for item in sequence(raw, where))


def _options(raw: object, where: str) -> dict[str, tuple[str, ...]]:
    fields = mapping(raw, where)
    return {name: _texts(fields[name], f"{where}.{name}") if name in fields else plain for name, plain in FLAGS.items()}


def _sources(raw: object, where: str) -> tuple[Source, ...]:
    items = sequence(raw, where)
    if not 0 < len(items) <= MAX_SOURCES:
        wrong(where, f"holds {len(items)} files", f"give 1 to {MAX_SOURCES}")
    found: dict[str, Source] = {}
    for number, item in enumerate(items):
        at = f"{where}[{number}]"
        fields = mapping(item, at)
        path = inner_path(fields.get("path"), f"{at}.path")
        if path in found:
            wrong(at, f"{shown(path)} appears twice", "keep one of the two")
        found[path] = Source(path, text(fields.get("content", ""), f"{at}.content", empty=True))
    return tuple(found.values())


def _check_entry(entry: str, sources: tuple[Source, ...], python: bool, where: str) -> None:
    file, mark, function = entry.partition("::")
    if not mark or not function.isidentifier():
        wrong(where, f"is {shown(entry)}", "write it as file::function")
    if file not in {source.path for source in sources}:
        wrong(where, f"{shown(file)} is not among the sources", "add it, spelled alike")
    endings = (".py",) if python else (".cu", ".cpp")
    if PurePosixPath(file).suffix not in endings:
        wrong(where, f"{shown(file)} does not fit the languages", f"the file must end with {' or '.join(endings)}")
