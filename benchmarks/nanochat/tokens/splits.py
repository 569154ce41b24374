"""Which text goes where: train, or one of the validation sets. Whole texts only.

Where files are named `train*`, `val_screen*`, `val_confirm*` or `val_final*`, those names decide, and every file that
confirms is a part of its own. Beside `train*` there may be `val*`, `valid*`, `dev*` or `test*` instead: together they
fill all validation sets. Sets that no file is named for are filled as of unnamed text: with whole texts of the train
text in the order of a hash of their name, near copies of others left out.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Iterable, Iterator, Sequence, Set
from dataclasses import dataclass
from itertools import count, groupby
from pathlib import PurePosixPath

import numpy as np

from benchmarks.nanochat import overlap
from benchmarks.nanochat.overlap import Hashes
from benchmarks.nanochat.prepare import (
    CONFIRM,
    FINAL,
    LARGEST_PAGE,
    MOST_CONFIRM_PARTS,
    NEAR_COPY,
    SCREEN,
    SPLIT_SALT,
    TRAIN,
    VALIDATION_SHARE,
    PrepareError,
)
from benchmarks.nanochat.tokens.texts import Document

NAMED = re.compile(rf"({TRAIN}|{SCREEN}|{CONFIRM}|{FINAL})(?![a-z])")
HELD = re.compile(r"(val|valid|validation|dev|test)(?![a-z_])")
MOST_OF_NEED = 3  # a validation set of more than this times what is scored only costs train text
LARGEST_SHARE = 1 / 3  # of all text, for validation


@dataclass(frozen=True)
class Text:
    """One text as a first reading left it: nothing of its content but a hash and a sample of its windows."""

    name: str
    file: str
    size: int
    digest: bytes
    windows: Hashes


@dataclass(frozen=True)
class Plan:
    """Where each text goes: by its name, else by its file, else to train. `dropped`: copies, and what is not needed."""

    of_file: dict[str, str]
    of_text: dict[str, str]
    dropped: frozenset[str]
    splits: list[str]  # train, then the validation sets in the order they are used

    def split_of(self, text: str, file: str) -> str | None:
        return None if text in self.dropped else self.of_text.get(text) or self.of_file.get(file, TRAIN)


def read(documents: Iterable[Document], every: int, progress: Callable[[int], None]) -> Iterator[Text]:
    """A first reading. One in `every` 64-byte windows is kept to find near copies."""
    for (name, file), parts in groupby(documents, key=lambda document: (document.text, document.file)):
        digest, size, windows = hashlib.sha256(), 0, []
        for document in parts:
            digest.update(document.content)
            size += len(document.content)
            windows.append(overlap.windows(document.content, every))
            progress(len(document.content))
        yield Text(name, file, size, digest.digest()[:16], windows[0] if len(windows) == 1 else np.concatenate(windows))


def plan(texts: Sequence[Text], needed: int, held: Set[str] = frozenset()) -> Plan:
    """`needed`: bytes of a validation set that the longest scoring reads; `held`: files that fill those sets alone.

    Raises PrepareError where the text is too little, or its files are named in part only.
    """
    kept, dropped = _without_copies(texts)
    files = list(dict.fromkeys(text.file for text in texts))
    held = held or _held(files)
    of_file = {} if held else _named(files)
    named = list(dict.fromkeys(split for split in of_file.values() if split != TRAIN))
    free = [text for text in kept if (text.file in held if held else of_file.get(text.file, TRAIN) == TRAIN)]
    total = sum(text.size for text in free)
    room = total if held else int(total * LARGEST_SHARE)
    size = int(min(max(needed, VALIDATION_SHARE * total), MOST_OF_NEED * needed))
    wanted = _missing_sets(named, room, size)
    of_text = _filled(free, wanted, size, room)
    unused = {text.name for text in free if text.file in held and text.name not in of_text}
    found = Plan(of_file, of_text, frozenset({*dropped, *unused}), [TRAIN, SCREEN, *_confirm([*named, *wanted]), FINAL])
    if TRAIN not in {found.split_of(text.name, text.file) for text in kept}:
        raise PrepareError("No text is left to train on. Give more text, or name files train*.")
    return found


def found_elsewhere(texts: Sequence[Text], plan: Plan) -> dict[str, float]:
    """Of each split, the share of its 64-byte windows that occurs in another one, too."""
    of_split: dict[str, list[Hashes]] = {split: [np.empty(0, dtype=np.uint64)] for split in plan.splits}
    for text in texts:
        if split := plan.split_of(text.name, text.file):
            of_split[split].append(text.windows)
    groups = [np.concatenate(windows) for windows in of_split.values()]
    return dict(zip(of_split, overlap.share_elsewhere(groups), strict=True))


def _without_copies(texts: Sequence[Text]) -> tuple[list[Text], list[str]]:
    first: dict[bytes, Text] = {}
    dropped = [text.name for text in texts if first.setdefault(text.digest, text) is not text]
    return list(first.values()), dropped


def _held(files: Sequence[str]) -> frozenset[str]:
    """Files that fill all validation sets, where every other one is named `train*`."""
    found = frozenset(file for file in files if HELD.match(PurePosixPath(file).name))
    others = {match[1] if (match := _split_in(file)) else "" for file in files if file not in found}
    return found if others == {TRAIN} else frozenset()


def _split_in(file: str) -> re.Match[str] | None:
    return NAMED.match(PurePosixPath(file).name)


def _named(files: Sequence[str]) -> dict[str, str]:
    """File -> split, where names decide; empty where none is named so."""
    found = {file: match[1] for file in files if (match := _split_in(file))}
    if not found:
        return {}
    if strange := [file for file in files if file not in found]:
        raise PrepareError(
            f"{strange[0]} is named for no split, although {next(iter(found))} is: name every file "
            f"{TRAIN}*, {SCREEN}*, {CONFIRM}* or {FINAL}*, or none."
        )
    if TRAIN not in found.values():
        raise PrepareError(f"No file is named {TRAIN}*: name the text to train on so.")
    numbers = count(1)
    for file, split in found.items():
        if split == CONFIRM and (number := next(numbers)) > 1:
            found[file] = f"{CONFIRM}_{number}"
    return found


def _missing_sets(named: Sequence[str], room: int, size: int) -> list[str]:
    """Sets to be filled; as many that confirm as there is room for."""
    missing = [split for split in (SCREEN, FINAL) if split not in named]
    if not _confirm(named):
        parts = max(1, min(MOST_CONFIRM_PARTS, room // size - len(missing) - 1))
        missing += [CONFIRM, *(f"{CONFIRM}_{number}" for number in range(2, parts + 1))]
    return missing


def _confirm(splits: Sequence[str]) -> list[str]:
    return sorted((one for one in splits if one.startswith(CONFIRM)), key=lambda name: (len(name), name))


def _filled(texts: Sequence[Text], wanted: Sequence[str], size: int, room: int) -> dict[str, str]:
    """Text -> set. Small ones first, so that none colours a set; where they do not fill it, the smallest."""
    copies = overlap.share_elsewhere([text.windows for text in texts]) if wanted else []
    apart = [text for text, share in zip(texts, copies, strict=False) if share <= NEAR_COPY]
    small = sorted((text for text in apart if text.size <= size // LARGEST_PAGE), key=_order)
    large = sorted((text for text in apart if text.size > size // LARGEST_PAGE), key=lambda text: text.size)
    waiting = iter([*small, *large])
    chosen: dict[str, str] = {}
    spent = 0
    for split in wanted:
        filled = 0
        while filled < size:
            text = next(waiting, None)
            if text is None or spent + text.size > room:
                raise PrepareError(
                    f"Too little text to fill {split}: {len(wanted)} validation sets of {size:,} bytes are needed, of "
                    f"whole texts that are no near copies, {room:,} bytes at most. Give more text, or smaller files."
                )
            chosen[text.name] = split
            filled, spent = filled + text.size, spent + text.size
    return chosen


def _order(text: Text) -> str:
    return hashlib.sha256(f"{SPLIT_SALT}\n{text.name}".encode()).hexdigest()
