"""Text as it lies in files: folders of .txt, .txt.xz and .parquet, read one document after another.

A *text* is what is never divided between training and validation: a file, what stands between two lines that hold only
the byte 0x1E, or a row of a parquet file. A text of more than a megabyte is read as several documents, cut at blank
lines. Nothing is held in memory but one piece, so that a file may be larger than the machine.
"""

from __future__ import annotations

import hashlib
import lzma
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from benchmarks.nanochat.prepare import PrepareError, listed

KINDS = (".txt", ".txt.xz", ".parquet")
DOCUMENT_BYTES = 1 << 20
BLOCK_BYTES = 4 << 20
SEPARATOR = b"\n\x1e\n"  # a line of its own between two texts of one file
COLUMN = "text"
ROWS = 1024  # of a parquet file at a time


@dataclass(frozen=True)
class Document:
    text: str  # FILE#NUMBER: the text that it belongs to
    file: str
    content: bytes


@dataclass(frozen=True)
class Source:
    """Files that will be read, in order, and what tells them from others."""

    name: str  # for people
    sha256: str
    files: dict[str, Path]
    left_alone: tuple[str, ...] = ()

    def documents(self) -> Iterator[Document]:
        for name, path in self.files.items():
            yield from _parquet(name, path) if name.endswith(".parquet") else _plain(name, path)


def of_folder(folder: Path) -> Source:
    """Every text file below `folder` that is not hidden; files of other kinds are left alone."""
    if not folder.is_dir():
        raise PrepareError(f"{folder} is not a folder.")
    found = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    shown = {name: path for name, path in sorted(found.items()) if not any(p[0] == "." for p in Path(name).parts)}
    files = {name: path for name, path in shown.items() if name.endswith(KINDS)}
    if not files:
        raise PrepareError(
            f"There is no text in {folder}: name a folder of {', '.join(KINDS[:-1])} or {KINDS[-1]} files."
        )
    return of_files(folder.absolute().name, files, tuple(name for name in shown if name not in files))


def of_files(name: str, files: dict[str, Path], left_alone: tuple[str, ...] = ()) -> Source:
    digest = hashlib.sha256()
    for file, path in files.items():
        digest.update(f"{file} {file_sha256(path)}\n".encode())
    return Source(name, digest.hexdigest(), files, left_alone)


def file_sha256(path: Path) -> str:
    try:
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise PrepareError(f"{path} cannot be read: {error.strerror or error}.") from error


def _plain(name: str, path: Path) -> Iterator[Document]:
    number = 0
    with _opened(name, path) as stream:
        for content, ends in pieces(stream):
            if content:
                _check_utf8(name, content)
                yield Document(f"{name}#{number}", name, content)
            number += ends


def pieces(stream: IO[bytes], limit: int = DOCUMENT_BYTES) -> Iterator[tuple[bytes, bool]]:
    """Pieces of at most `limit` bytes, and whether a text ends with each. Separator lines belong to none of them."""
    rest, more = b"", True
    while more:
        block = stream.read(BLOCK_BYTES)
        rest, more = rest + block, bool(block)
        while True:
            if rest.startswith(SEPARATOR[1:]):  # at the begin of a file, or two in a row
                rest = rest[len(SEPARATOR) - 1 :]
            elif (end := rest.find(SEPARATOR, 0, limit + len(SEPARATOR))) >= 0:
                yield rest[: end + 1], True
                rest = rest[end + len(SEPARATOR) :]
            elif len(rest) > limit + len(SEPARATOR):
                cut = place_to_cut(rest, limit)
                yield rest[:cut], False
                rest = rest[cut:]
            else:
                break
    yield rest, True


def place_to_cut(content: bytes, limit: int) -> int:
    """Behind the last blank line before `limit`; where there is none, a line's end, a space, a whole character."""
    for ends in ((b"\n\n", b"\n\r\n"), (b"\n",), (b" ",)):
        if cuts := [at + len(end) for end in ends if (at := content.rfind(end, 1, limit)) > 0]:
            return max(cuts)
    cut = limit
    while cut > 1 and content[cut] & 0xC0 == 0x80:  # inside a character
        cut -= 1
    return cut


def _parquet(name: str, path: Path) -> Iterator[Document]:
    arrow, parquet = _arrow(name)
    try:
        with parquet.ParquetFile(path) as file:
            if COLUMN not in file.schema_arrow.names:
                has = ", ".join(file.schema_arrow.names)
                raise PrepareError(f"{name} has no column {COLUMN!r}, only {has}: rename the one that holds the text.")
            number = 0
            for batch in file.iter_batches(batch_size=ROWS, columns=[COLUMN]):
                for row in batch.column(0).to_pylist():
                    content = row.encode() if isinstance(row, str) else row or b""
                    yield from _row(name, number, content)
                    number += 1
    except (arrow.ArrowException, OSError, UnicodeError) as error:
        said = " ".join(str(error).split())[:200]
        raise PrepareError(
            f"{name} is no whole parquet file of UTF-8 text: {said}. Fetch or write it again."
        ) from error


def _row(name: str, number: int, content: bytes) -> Iterator[Document]:
    while content:
        cut = len(content) if len(content) <= DOCUMENT_BYTES else place_to_cut(content, DOCUMENT_BYTES)
        _check_utf8(name, content[:cut])
        yield Document(f"{name}#{number}", name, content[:cut])
        content = content[cut:]


def _arrow(name: str) -> tuple[Any, Any]:
    try:
        import pyarrow
        import pyarrow.parquet
    except ImportError as error:
        raise PrepareError(f"To read {name}, pyarrow is needed: pip install 'recursive-lab[parquet]'.") from error
    return pyarrow, pyarrow.parquet


@contextmanager
def _opened(name: str, path: Path) -> Iterator[IO[bytes]]:
    try:
        with lzma.open(path) if name.endswith(".xz") else path.open("rb") as stream:
            yield stream
    except (lzma.LZMAError, EOFError) as error:
        raise PrepareError(f"{name} is no whole .xz file: {error}. Fetch or write it again.") from error
    except OSError as error:
        raise PrepareError(f"{name} cannot be read: {error.strerror or error}.") from error


def _check_utf8(name: str, content: bytes) -> None:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError as error:
        bad = content[max(0, error.start - 20) : error.start + 20]
        raise PrepareError(f"{name} is not UTF-8 text: look near {bad!r}. Convert or remove it.") from error


def said_left_alone(source: Source) -> str:
    return f"left alone, being neither {', '.join(KINDS[:-1])} nor {KINDS[-1]}: {listed(list(source.left_alone))}"
