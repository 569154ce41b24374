"""The compile cache of a commit: files its warm-up wrote, kept as a tar outside every sandbox.

A compiler's cache would be a way out of the sandbox: what a trial learned, or the validation tokens its model was
asked about, could wait in it for the next seed. So it is read once, before any data is sent, and every step gets a
copy of its own that is thrown away with it. The first snapshot of a commit stays the only one: warm-ups do not add up.

The content is the candidate's and is trusted with nothing: plain bytes of plain files, unpacked only in the sandbox.
"""

from __future__ import annotations

import contextlib
import hashlib
import io
import os
import stat
import tarfile
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

FOLDER = "cache"  # below the scratch folder; the sandbox's /cache
LARGEST = 64 << 20  # bytes of one snapshot
MOST_ENTRIES = 4096
DEEPEST = 12
STORE_BYTES = 8 << 30  # of all snapshots kept; the ones not used for longest go first
_OPEN = os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC


class CacheTooLarge(Exception):
    """This cache is not kept; the message says which limit it passed."""


def take(scratch: int, largest: int = LARGEST, most_entries: int = MOST_ENTRIES) -> bytes:
    """The regular files below `scratch`/cache as a tar whose bytes depend on their names and content alone.

    `scratch` is a descriptor of the folder. No link is followed, so nothing outside it can be read. Empty where
    there is no file. Raises CacheTooLarge.
    """
    try:
        top = os.open(FOLDER, _OPEN | os.O_DIRECTORY, dir_fd=scratch)
    except OSError:  # the step removed it, or put something else in its place
        return b""
    target, files = (
        io.BytesIO(),
        sorted(_files(top, "", _Tally(largest, most_entries)), key=lambda file: os.fsencode(file[0])),
    )
    if not files:
        return b""
    with tarfile.open(fileobj=target, mode="w", format=tarfile.GNU_FORMAT) as archive:
        for name, content in files:
            entry = tarfile.TarInfo(name)
            entry.size, entry.mode = len(content), 0o700
            archive.addfile(entry, io.BytesIO(content))
    return target.getvalue()


def without(content: bytes, folder: str) -> bytes:
    """A snapshot less what lies in folders of this name; empty where nothing is left."""
    if not content:
        return b""
    target, kept = io.BytesIO(), 0
    with (
        tarfile.open(fileobj=io.BytesIO(content)) as old,
        tarfile.open(fileobj=target, mode="w", format=tarfile.GNU_FORMAT) as new,
    ):
        for entry in old:
            if folder not in entry.name.split("/")[:-1]:
                new.addfile(entry, old.extractfile(entry))
                kept += 1
    return target.getvalue() if kept else b""


@dataclass
class _Tally:
    largest: int
    most_entries: int
    entries: int = 0
    bytes: int = 0

    def add(self, size: int) -> None:
        self.bytes += size
        if self.bytes > self.largest:
            raise CacheTooLarge(f"its compile cache holds more than {self.largest >> 20} MB")


def _files(folder: int, prefix: str, tally: _Tally, depth: int = 1) -> Iterator[tuple[str, bytes]]:
    """(name, content) of what can be read below an open folder, which is closed here."""
    try:
        with os.scandir(folder) as entries:
            for entry in entries:
                tally.entries += 1
                if tally.entries > tally.most_entries or depth > DEEPEST:
                    raise CacheTooLarge(f"its compile cache has over {tally.most_entries} entries or {DEEPEST} levels")
                with contextlib.suppress(OSError):  # gone, closed, or a link: not part of it
                    if entry.is_dir(follow_symlinks=False):
                        below = os.open(entry.name, _OPEN | os.O_DIRECTORY, dir_fd=folder)
                        yield from _files(below, f"{prefix}{entry.name}/", tally, depth + 1)
                    else:
                        below = os.open(entry.name, _OPEN | os.O_NONBLOCK, dir_fd=folder)
                        if (content := _read(below, tally)) is not None:
                            yield f"{prefix}{entry.name}", content
    finally:
        os.close(folder)


def _read(fd: int, tally: _Tally) -> bytes | None:
    """Content of a regular file, None for a pipe or a device; closes it."""
    with open(fd, "rb", buffering=0) as file:
        about = os.fstat(fd)
        if not stat.S_ISREG(about.st_mode):
            return None
        tally.add(about.st_size)
        content = bytearray()
        while len(content) < about.st_size and (block := file.read(about.st_size - len(content))):
            content += block
        return bytes(content)


def key(*parts: str) -> str:
    """The name of a snapshot: whatever has to be the same for it to be used again."""
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()


@dataclass(frozen=True)
class Store:
    """Snapshots on disk, one a key. Safe among several workers: the first one stays."""

    folder: Path

    def holds(self, name: str) -> bool:
        return (self.folder / f"{name}.tar").is_file()

    def get(self, name: str) -> bytes:
        """The snapshot, empty where there is none."""
        path = self.folder / f"{name}.tar"
        try:
            content = path.read_bytes()
            os.utime(path)
        except FileNotFoundError:
            return b""
        return content

    def keep(self, name: str, content: bytes) -> bool:
        """Store a snapshot that is not there yet. True where it was stored."""
        path = self.folder / f"{name}.tar"
        if not content or path.exists():
            return False
        self.folder.mkdir(parents=True, exist_ok=True)
        self._make_room(len(content))
        with tempfile.NamedTemporaryFile(dir=self.folder, prefix=".", suffix=".partial") as partial:
            partial.write(content)
            partial.flush()
            with contextlib.suppress(FileExistsError):
                os.link(partial.name, path)
                return True
        return False

    def _make_room(self, wanted: int) -> None:
        held = []
        for path in self.folder.glob("*.tar"):
            with contextlib.suppress(FileNotFoundError):
                held.append((path.stat().st_mtime, path.stat().st_size, path))
        total = wanted + sum(size for _, size, _ in held)
        for _, size, path in sorted(held):
            if total <= STORE_BYTES:
                return
            path.unlink(missing_ok=True)
            total -= size
