"""From text to token files, batch by batch; an interrupted run goes on behind the last whole batch.

Every document is BOS and its tokens, and the bytes that its tokens stand for must be as many as it has. What is written
counts only when `progress.json` says so: a run that goes on cuts off what stands behind it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO

import numpy as np
from numpy.typing import NDArray

from benchmarks.nanochat.prepare import PrepareError, file_name
from benchmarks.nanochat.tokens import tokenizer as bpe
from benchmarks.nanochat.tokens.splits import Plan
from benchmarks.nanochat.tokens.texts import Document

if TYPE_CHECKING:
    from tokenizers import Tokenizer

BATCH_BYTES = 16 << 20  # of text: two seconds of two cores, a quarter of a second of sixteen
PROGRESS = "progress.json"
TOKEN = np.dtype("<u2")


@dataclass
class Counts:
    """What one split holds so far."""

    documents: int = 0
    tokens: int = 0
    bytes: int = 0  # of text


@dataclass
class Done:
    """How far a run has come: documents read from the source, and what came of them."""

    read: int = 0
    splits: dict[str, Counts] = field(default_factory=dict)

    @classmethod
    def of(cls, folder: Path, names: list[str]) -> Done:
        """Where an earlier run stopped; the begin where there was none or its note cannot be read."""
        try:
            row = json.loads((folder / PROGRESS).read_text())
            splits = {name: Counts(**row["splits"][name]) for name in names}
            whole = all((folder / file_name(name)).stat().st_size >= 2 * one.tokens for name, one in splits.items())
            return cls(int(row["read"]), splits) if whole else cls(0, {name: Counts() for name in names})
        except (OSError, ValueError, KeyError, TypeError):
            return cls(0, {name: Counts() for name in names})

    def keep(self, folder: Path) -> None:
        partial = folder / f"{PROGRESS}.new"
        partial.write_text(json.dumps(asdict(self)))
        partial.replace(folder / PROGRESS)


def encode(
    documents: Iterable[Document], plan: Plan, tokenizer: Tokenizer, folder: Path, progress: Callable[[int], None]
) -> dict[str, Counts]:
    """Write `SPLIT.bin` of every split, uint16 little-endian. The library encodes while the next batch is read."""
    done = Done.of(folder, plan.splits)
    sizes = bpe.token_bytes(folder)
    with ExitStack() as stack, ThreadPoolExecutor(1) as reader:
        files = {
            name: stack.enter_context(_opened(folder / file_name(name), done.splits[name])) for name in plan.splits
        }
        batches = _batches(documents, done.read, progress)
        following = reader.submit(next, batches, None)
        while batch := following.result():
            following = reader.submit(next, batches, None)
            wanted = [(document, split) for document in batch if (split := plan.split_of(document.text, document.file))]
            encoded = bpe.encode(tokenizer, [document.content.decode("utf-8") for document, _ in wanted])
            for (document, split), tokens in zip(wanted, encoded, strict=True):
                _check(document, tokens, sizes)
                files[split].write(tokens.astype(TOKEN, copy=False).tobytes())
                counts = done.splits[split]
                counts.documents, counts.tokens = counts.documents + 1, counts.tokens + len(tokens)
                counts.bytes += len(document.content)
            for file in files.values():
                file.flush()
                os.fsync(file.fileno())
            done.read += len(batch)
            done.keep(folder)
    return done.splits


def _batches(documents: Iterable[Document], skip: int, progress: Callable[[int], None]) -> Iterator[list[Document]]:
    batch: list[Document] = []
    size = 0
    for number, document in enumerate(documents):
        progress(len(document.content))
        if number < skip:
            continue
        batch.append(document)
        size += len(document.content)
        if size >= BATCH_BYTES:
            yield batch
            batch, size = [], 0
    if batch:
        yield batch


def _opened(path: Path, counts: Counts) -> BinaryIO:
    file = path.open("r+b" if path.exists() else "w+b")
    file.truncate(2 * counts.tokens)
    file.seek(0, os.SEEK_END)
    return file


def _check(document: Document, tokens: NDArray[np.uint16], sizes: NDArray[np.uint16]) -> None:
    """No byte may be lost or added: the score divides by the bytes that tokens stand for."""
    if (found := int(sizes[tokens].sum(dtype=np.int64))) != len(document.content):
        raise PrepareError(f"{document.text}: its tokens stand for {found:,} bytes, it has {len(document.content):,}.")
