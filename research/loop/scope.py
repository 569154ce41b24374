"""Which of many problems a thread or an idea is about, and what of a tree a session is shown for that. Used by steps.

In a benchmark of one problem all files are shown; of 235 problems those of the few at hand, the others by name.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path

from research.models import Idea, Project, Thread
from research.repository import Repository
from research.researchers.llm.quoting import quoted

TEXTS = (".py", ".json", ".jsonl")
MOST_NAMES = 6_000  # characters of names of problems that an opening lists


@lru_cache(maxsize=8)
def texts_of(repository: Path, commit: str) -> dict[str, str]:
    """What a session may read of a commit: its code, and the definitions and workloads beside it."""
    files = Repository(repository).files(commit)
    return {path: content.decode("utf-8") for path, content in files.items() if path.endswith(TEXTS)}


def steered(thread: Thread) -> list[str]:
    """The problems that steering leaves: those that a label of its focus covers. Empty where it leaves all."""
    project = thread.project
    focus, forbid = (set(thread.directives.get(name, ())) for name in ("focus", "forbid"))
    covered = [name for name, labels in project.labels.items() if focus & (labels | {name})]
    mine = focus.union(project.touched(path for name in covered for path in project.described[name]["files"]))
    left = [name for name in project.problems if name not in forbid]
    return [name for name in left if name in mine] if focus else left if len(left) < len(project.problems) else []


def named(project: Project, text: str) -> list[str]:
    """The problems whose names stand in a text."""
    words = {word.rstrip(".") for word in re.findall(r"[\w.-]+", text)}
    return [name for name in project.problems if name in words]


def about(idea: Idea) -> list[str]:
    """The problems that an idea names; else those of its thread."""
    words = " ".join([idea.title, idea.hypothesis, idea.plan, *map(str, idea.tags)])
    return named(idea.thread.project, words) or steered(idea.thread)


def of_these(paths: Iterable[str], problems: Collection[str]) -> list[str]:
    """Those of the paths that lie in the folders of these problems; all where none is named."""
    return [path for path in paths if not problems or _folder(path) in problems]


def shown(project: Project, commit: str, room: int, problems: Collection[str]) -> str:
    """The files at hand, in full those that fit into so many characters; then the names of the other problems."""
    texts = texts_of(project.repository_path, commit)
    others = [name for name in project.problems if name not in problems]
    listed = _listed(texts, others, min(MOST_NAMES, room // 2)) if others else ""
    room -= len(listed)
    found = []
    for path, text in sorted(texts.items()):
        if _folder(path) in others:
            continue
        if len(text) <= room:
            room -= len(text)
            found.append(quoted(path, text, len(text) + 1))
        else:
            found.append(f"{path}: {len(text.splitlines())} lines, not shown; read_file shows them")
    return "\n".join([*found, listed] if listed else found)


def _listed(texts: Mapping[str, str], names: Sequence[str], most: int) -> str:
    """Names of problems, as many as fit, and what lies in the folder of each."""
    files = sorted({path.partition("/")[2] for path in texts if _folder(path) == names[0]})
    kept = [name for name, end in zip(names, accumulate(len(name) + 2 for name in names), strict=True) if end <= most]
    more = f" and {len(names) - len(kept)} more, which list_files names" if len(kept) < len(names) else ""
    return f"Problems not shown, a folder each with {', '.join(files)}: {', '.join(kept)}{more}. read_file shows them."


def _folder(path: str) -> str:
    return path.partition("/")[0]
