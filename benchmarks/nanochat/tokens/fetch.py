"""Large files over HTTP: a cut connection goes on where it stopped, and what arrived is checked before it counts.

Beside FILE lies FILE.part with what has arrived so far, FILE.part.json with what the server called it. Its size is the
server's; its sha256 is the server's too where it says one (`X-Linked-ETag`, as Hugging Face does of large files), and
is kept in any case: a file that changed since is fetched again.
"""

from __future__ import annotations

import errno
import hashlib
import http.client
import json
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import IO, Any

from benchmarks.nanochat.prepare import PrepareError, Progress

CHECKSUMS = "checksums.json"
TIMEOUT = 30.0  # seconds without a byte
ATTEMPTS = 6  # in a row without progress
FIRST_PAUSE = 1.0  # seconds; doubled at each attempt
BLOCK = 1 << 20
SAID_EVERY = 5.0  # seconds between two lines of progress
SHA256 = re.compile(r'(?:W/)?"?([0-9a-f]{64})"?')
SPARE_DISK = 256 << 20
OF_THE_DISK = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES}
LOST = (OSError, http.client.HTTPException)  # a cut, a time-out, a name that is not found


@dataclass
class Remote:
    """What the server says about a file. Parts of different ones are never put together."""

    size: int
    tag: str = ""
    sha256: str = ""


class Refused(PrepareError):
    """The server answered, and will answer the same again."""


class _Redirects(urllib.request.HTTPRedirectHandler):
    """Follows, and remembers the sha256 that only the first answer names."""

    def __init__(self) -> None:
        self.linked = ""

    def redirect_request(self, req: Any, fp: Any, code: int, msg: str, headers: Any, newurl: str) -> Any:
        self.linked = self.linked or headers.get("X-Linked-ETag", "")
        return super().redirect_request(req, fp, code, msg, headers, newurl)


def fetch(
    url: str, path: Path, progress: Progress, check: Callable[[Path], str] = lambda path: "", pause: float = FIRST_PAUSE
) -> Path:
    """`path`, whole. `check` says in a line what is wrong with its content, or nothing. Raises PrepareError."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file():
        kept, digest = _kept(path.parent).get(path.name), _sha256(path)
        if digest == kept or (kept is None and not check(path)):  # None: somebody put it there
            _keep(path, digest)
            return path
        progress(f"{path.name} is not what was fetched; fetching it again")
        path.unlink()
    for again in (True, False):
        remote = _arrived(url, path, progress, pause)
        part = _part(path)
        wrong = _wrong(part, remote) or check(part)
        if not wrong:
            _keep(path, _sha256(part))
            part.replace(path)
            _note(path).unlink(missing_ok=True)
            return path
        _forget(path)
        if not again:
            raise PrepareError(
                f"{url} came damaged twice: {wrong}. Try again later, or name another server with --url."
            )
        progress(f"{path.name} came damaged ({wrong}); fetching it again")
    raise AssertionError("unreachable")


def _arrived(url: str, path: Path, progress: Progress, pause: float) -> Remote:
    """Fetch until the part is as long as the server says. Only attempts that brought nothing count."""
    failed, waited = 0, pause
    while True:
        before = _size(_part(path))
        try:
            remote = _receive(url, path, progress)
        except Refused:
            raise
        except LOST as error:
            remote, why = None, str(getattr(error, "reason", error)) or type(error).__name__
            if isinstance(error, OSError) and error.errno in OF_THE_DISK:
                raise PrepareError(
                    f"{path} cannot be written: {error.strerror}. Make room, then prepare again."
                ) from error
        else:
            why = "the connection ended early"
        if remote is not None and _size(_part(path)) >= remote.size:
            return remote
        failed = 0 if _size(_part(path)) > before else failed + 1
        if failed >= ATTEMPTS:
            raise PrepareError(
                f"{url} cannot be fetched: {why}. Check the network, then prepare again: it goes on where it stopped."
            )
        if failed:
            time.sleep(waited)
            waited *= 2
        else:
            waited = pause


def _receive(url: str, path: Path, progress: Progress) -> Remote:
    """One connection: append to the part what the server still has of it."""
    part, known = _part(path), _read_note(path)
    have = _size(part) if known else 0
    request = urllib.request.Request(url, headers={"User-Agent": "recursive-lab", "Accept-Encoding": "identity"})
    if known and 0 < have < known.size:
        request.add_header("Range", f"bytes={have}-")
        if known.tag and not known.tag.startswith("W/"):  # a weak one never matches
            request.add_header("If-Range", known.tag)
    redirects = _Redirects()
    try:
        answer = urllib.request.build_opener(redirects).open(request, timeout=TIMEOUT)
    except urllib.error.HTTPError as error:
        with error:
            if error.code == 416:  # the part is longer than the file is now
                _forget(path)
                raise ConnectionError("the file on the server has changed") from None
            if error.code in (408, 429) or error.code >= 500:
                raise ConnectionError(f"the server says {error.code} {error.reason}") from None
            words = f"{url}: the server says {error.code} {error.reason}."
            raise Refused(f"{words} Check the address, or name another server with --url.") from error
    with answer:
        remote, at = _described(answer, redirects.linked)
        if at and (known is None or at != have or remote.size != known.size):
            _forget(path)
            raise ConnectionError("the file on the server has changed")
        _check_room(path, remote.size - at)
        if not at:
            _note(path).write_text(json.dumps(asdict(remote)))
        with part.open("r+b" if part.exists() else "wb") as file:
            file.truncate(at)
            file.seek(at)
            _copy(answer, file, at, remote.size, path.name, progress)
    return remote


def _described(answer: Any, linked: str) -> tuple[Remote, int]:
    """What is being sent, and from which byte on."""
    headers = answer.headers
    found = SHA256.fullmatch(linked or headers.get("X-Linked-ETag", ""))
    at, size = 0, headers.get("Content-Length", "")
    if answer.status == 206:
        span = re.fullmatch(r"bytes (\d+)-\d+/(\d+)", headers.get("Content-Range", ""))
        if span is None:
            raise ConnectionError("the server does not say which part it sends")
        at, size = int(span[1]), span[2]
    if not size.isdigit():
        raise Refused(f"{answer.url}: the server does not say how large the file is. Name another server with --url.")
    return Remote(int(size), headers.get("ETag", ""), found[1] if found else ""), at


def _copy(answer: Any, file: IO[bytes], at: int, size: int, name: str, progress: Progress) -> None:
    said = time.monotonic()
    while at < size and (block := answer.read(min(BLOCK, size - at))):
        file.write(block)
        at += len(block)
        if time.monotonic() - said > SAID_EVERY:
            said = time.monotonic()
            progress(f"{name}: {at >> 20} of {size >> 20} MiB")


def _wrong(part: Path, remote: Remote) -> str:
    if (size := _size(part)) != remote.size:
        return f"{size:,} bytes of {remote.size:,}"
    known = _read_note(part.with_name(part.name.removesuffix(".part")))
    wanted = remote.sha256 or (known.sha256 if known else "")
    return "its sha256 is not the server's" if wanted and _sha256(part) != wanted else ""


def _check_room(path: Path, size: int) -> None:
    free = shutil.disk_usage(path.parent).free
    if size + SPARE_DISK > free:
        raise PrepareError(
            f"{path.name} needs {size >> 20:,} MiB, {path.parent} has {free >> 20:,} left. "
            "Make room, or fetch fewer with --shards."
        )


def _part(path: Path) -> Path:
    return path.with_name(f"{path.name}.part")


def _note(path: Path) -> Path:
    return path.with_name(f"{path.name}.part.json")


def _read_note(path: Path) -> Remote | None:
    try:
        return Remote(**json.loads(_note(path).read_text()))
    except (OSError, ValueError, TypeError):
        return None


def _forget(path: Path) -> None:
    _part(path).unlink(missing_ok=True)
    _note(path).unlink(missing_ok=True)


def _size(path: Path) -> int:
    try:
        return path.stat().st_size
    except FileNotFoundError:
        return 0


def _kept(folder: Path) -> dict[str, str]:
    try:
        found: dict[str, str] = json.loads((folder / CHECKSUMS).read_text())
    except (OSError, ValueError):
        return {}
    return found


def _keep(path: Path, digest: str) -> None:
    partial = path.parent / f".{CHECKSUMS}.{os.getpid()}"
    partial.write_text(json.dumps(_kept(path.parent) | {path.name: digest}, indent=1) + "\n")
    partial.replace(path.parent / CHECKSUMS)


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
