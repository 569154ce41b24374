"""The data of the nanochat benchmark: one folder of text becomes one training file and several validation files.

Protected, and free of torch. Text is split by whole file, so no page is half in train and half in validation, and a
page that is mostly found in another one stays in train. What confirms is in several parts, used one after another.
The default text is the documentation of a pinned Django release, fetched by pip from the index the user has
configured and checked against the hash below. A folder of the user's own text serves as well; the data id
tells the two apart, and scores on different data are never compared. Tokens are bytes: there is no tokenizer.
"""

import hashlib
import json
import os
import shutil
import subprocess
import sys
import tarfile
import tempfile
import time
from collections.abc import Callable, Set
from dataclasses import asdict, dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from benchmarks.data import DataError
from benchmarks.nanochat import overlap

DJANGO_VERSION = "5.2.8"
DJANGO_SHA256 = "23254866a5bb9a2cfa6004e8b809ec6246eba4b58a7589bc2772f1bcc8456c7f"
DJANGO_ARCHIVE = f"django-{DJANGO_VERSION}.tar.gz"
DOWNLOAD_TIMEOUT = 600  # seconds

TRAIN = "train"
SCREEN, CONFIRM, FINAL = "val_screen", "val_confirm", "val_final"
MOST_CONFIRM_PARTS = 4  # val_confirm, val_confirm_2 ...; a small text has fewer
NEAR_COPY = 0.5  # a file of which so much is found in other files
SPLIT_SALT = "nanochat split 1"  # changing it changes every data id
VALIDATION_SHARE = 0.04  # of all bytes, each set
LARGEST_PAGE = 4  # one file fills at most 1/4 of a validation set
MINIMUM_VALIDATION_BYTES = 200_000  # each set: below this, the noise of the set drowns a 1 % gain
MINIMUM_TRAIN_BYTES = 1_000_000
MINIMUM_BYTES = MINIMUM_TRAIN_BYTES + 3 * MINIMUM_VALIDATION_BYTES
VOCABULARY = 256  # tokens are bytes
SEPARATOR = b"\x00"  # between two files; it occurs in no text file

MANIFEST = "manifest.json"
MANIFEST_FORMAT = 2  # 1 had one val_confirm and no figure of overlap; it can still be read
NAMED_FILES = 10  # an error names at most this many
STALE_PARTIAL_AGE = 3600  # seconds; younger ones may belong to another process at work

Progress = Callable[[str], None]


class PrepareError(DataError):
    """The data cannot be made or cannot be trusted; the message says what to do."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


@dataclass(frozen=True)
class Text:
    path: str  # relative, with forward slashes
    content: bytes


@dataclass(frozen=True)
class Source:
    name: str  # for people: "django-5.2.8 docs" or the name of the folder
    sha256: str
    texts: list[Text]  # sorted by path


@dataclass(frozen=True)
class SplitFile:
    bytes: int
    sha256: str
    texts: list[str]  # paths of the texts in it, in order


@dataclass(frozen=True)
class Manifest:
    format: int
    data_id: str
    source: str
    source_sha256: str
    duplicates: list[str]  # paths dropped because an earlier file has the same bytes
    files: dict[str, SplitFile]  # "train.bin", "val_screen.bin", ...
    overlap: dict[str, float]  # file name -> share of its 64-byte windows that occur in another file, too

    @classmethod
    def parse(cls, text: str) -> "Manifest":
        """Raise ValueError, KeyError or TypeError where the text is no manifest of this format."""
        row = json.loads(text)
        if row["format"] not in (1, MANIFEST_FORMAT):
            raise ValueError(f"format {row['format']}")
        files = {name: SplitFile(**part) for name, part in row["files"].items()}
        if missing := {file_name(part) for part in (TRAIN, SCREEN, CONFIRM, FINAL)} - set(files):
            raise KeyError(", ".join(sorted(missing)))
        return cls(**{"overlap": {}, **row, "files": files})


def prepare(out: Path, data: Path | None, progress: Progress, older: Path | None = None) -> Manifest:
    """Make `out` from the folder `data`, or from the pinned archive; at once if it is there and whole.

    A whole folder of an older format is left as it is: projects are measured on it. `older` may name one, so that
    its text need not be fetched again.
    """
    out = out.absolute()
    if out.is_dir() and any(out.iterdir()):
        manifest = verify(out)
        expect_source(manifest, out, data)
        progress(f"{out}: already prepared, data id {manifest.data_id[:12]}")
        return manifest
    if out.exists() and not out.is_dir():
        raise PrepareError(f"{out} is a file; name a folder that is new or empty.")
    if data is not None and out.is_relative_to(data.absolute()):
        raise PrepareError(f"{out} lies inside {data}, the text it would be made from; name a folder elsewhere.")
    if data is not None:
        source = read_folder(data)
    elif older is not None and (older / MANIFEST).is_file():
        source = read_prepared(older)
    else:
        source = read_pinned_archive(progress)
    texts, duplicates = drop_duplicates(source.texts)
    progress(f"{len(texts)} files, {sum(len(text.content) for text in texts):,} bytes; splitting")
    seen = Windows(texts)
    parts = split(texts, seen.near_copies())
    shares = seen.found_elsewhere(parts)
    progress("found elsewhere, too: " + ", ".join(f"{share:.1%} of {name}" for name, share in shares.items()))
    return write(out, source, parts, duplicates, shares)


def verify(out: Path) -> Manifest:
    """Check every file of a prepared folder against its manifest. 6 MB take about 10 ms."""
    remedy = f"Delete the folder {out} and prepare again."
    try:
        manifest = Manifest.parse((out / MANIFEST).read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise PrepareError(f"{out} is not empty and has no {MANIFEST}. {remedy}") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise PrepareError(f"{out / MANIFEST} cannot be read ({error}). {remedy}") from error
    for name, expected in manifest.files.items():
        path = out / name
        if not path.is_file():
            raise PrepareError(f"{path} is missing. {remedy}")
        if sha256(path.read_bytes()) != expected.sha256:
            raise PrepareError(f"{path} is damaged: its hash is not the one in {MANIFEST}. {remedy}")
    if manifest.data_id != data_id(manifest.files):
        raise PrepareError(f"{out / MANIFEST} is damaged: its data id does not fit its files. {remedy}")
    return manifest


def expect_source(manifest: Manifest, out: Path, data: Path | None) -> None:
    """Refuse a folder that was prepared from other text than is now asked for."""
    wanted = DJANGO_SHA256 if data is None else read_folder(data).sha256
    if manifest.source_sha256 != wanted:
        asked = DJANGO_ARCHIVE if data is None else str(data)
        raise PrepareError(
            f"{out} was prepared from other text ({manifest.source}) than {asked} now holds. "
            f"Name another folder, or delete {out} and prepare again."
        )


# Where text comes from


def read_pinned_archive(progress: Progress) -> Source:
    """docs/**/*.txt of the pinned archive: 640 files, 6.1 MB."""
    with tempfile.TemporaryDirectory(prefix="nanochat-") as folder:
        progress(f"downloading {DJANGO_ARCHIVE} with pip")
        archive = download(Path(folder))
        found = sha256(archive.read_bytes())
        if found != DJANGO_SHA256:
            raise PrepareError(f"{DJANGO_ARCHIVE} has sha256 {found}, expected {DJANGO_SHA256}.")
        texts = read_docs(archive)
    return Source(f"django-{DJANGO_VERSION} docs", DJANGO_SHA256, texts)


def docs_folder(folder: Path, progress: Progress) -> Path:
    """The default text as files in `folder`; at once where they are there."""
    if not folder.is_dir():
        partial = folder.with_name(f".{folder.name}.partial")
        shutil.rmtree(partial, ignore_errors=True)
        for text in read_pinned_archive(progress).texts:
            path = partial / text.path
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(text.content)
        partial.rename(folder)
    return folder


def download(folder: Path) -> Path:
    """One run of pip, so that the user's own index, proxy and certificates apply."""
    requirement = folder / "requirement.txt"
    requirement.write_text(f"django=={DJANGO_VERSION} --hash=sha256:{DJANGO_SHA256}\n", encoding="utf-8")
    options = ["--quiet", "--disable-pip-version-check", "--no-input", "--no-deps", "--no-binary", "django"]
    options += ["--require-hashes", "--requirement", str(requirement), "--dest", str(folder)]
    command = [sys.executable, "-m", "pip", "download", *options]
    remedy = "Check the network and pip's index, or give a folder of your own text with --data FOLDER."
    try:
        pip = subprocess.run(command, capture_output=True, text=True, timeout=DOWNLOAD_TIMEOUT, check=False)
    except subprocess.TimeoutExpired:
        raise PrepareError(f"pip took longer than {DOWNLOAD_TIMEOUT} s. {remedy}") from None
    archive = folder / DJANGO_ARCHIVE
    if pip.returncode != 0 or not archive.is_file():
        last_lines = "\n".join(pip.stderr.strip().splitlines()[-3:])
        raise PrepareError(f"pip could not download {DJANGO_ARCHIVE}. {remedy}\n{last_lines}")
    return archive


def read_docs(archive: Path) -> list[Text]:
    """Read in memory; nothing of the archive is unpacked."""
    texts = []
    with tarfile.open(archive) as tar:
        for member in tar:
            path = PurePosixPath(member.name)
            if member.isfile() and path.suffix == ".txt" and path.parts[1:2] == ("docs",):
                content = tar.extractfile(member)
                assert content is not None  # a regular file
                texts.append(Text("/".join(path.parts[2:]), content.read()))
    return sorted(texts, key=lambda text: text.path)


def read_folder(folder: Path) -> Source:
    """Every file below `folder` that is not hidden; all must be UTF-8."""
    if not folder.is_dir():
        raise PrepareError(f"{folder} is not a folder.")
    texts = []
    not_utf8 = []
    for path in folder.rglob("*"):
        relative = path.relative_to(folder)
        if not path.is_file() or any(part.startswith(".") for part in relative.parts):
            continue
        text = Text(relative.as_posix(), path.read_bytes())
        texts.append(text)
        if not is_utf8(text.content):
            not_utf8.append(text.path)
    if not_utf8:
        raise PrepareError(f"Not UTF-8 text in {folder}: {listed(sorted(not_utf8))}. Convert or remove them.")
    texts.sort(key=lambda text: text.path)
    names_and_hashes = (f"{text.path} {sha256(text.content)}\n" for text in texts)
    return Source(folder.absolute().name, sha256("".join(names_and_hashes).encode()), texts)


def read_prepared(folder: Path) -> Source:
    """The texts of a folder that was prepared before."""
    manifest = verify(folder)
    texts = [
        Text(path, content)
        for name, part in manifest.files.items()
        for path, content in zip(part.texts, (folder / name).read_bytes().split(SEPARATOR), strict=True)
    ]
    return Source(manifest.source, manifest.source_sha256, sorted(texts, key=lambda text: text.path))


def is_utf8(content: bytes) -> bool:
    try:
        content.decode("utf-8")
    except UnicodeDecodeError:
        return False
    return True


def listed(names: list[str]) -> str:
    more = len(names) - NAMED_FILES
    return ", ".join(names[:NAMED_FILES]) + (f" and {more} more" if more > 0 else "")


# From text to files


def drop_duplicates(texts: list[Text]) -> tuple[list[Text], list[str]]:
    """Keep the first of files with the same bytes, drop empty ones; a copy must not sit in train and validation."""
    kept: dict[bytes, Text] = {}
    duplicates = []
    for text in texts:
        if text.content in kept:
            duplicates.append(text.path)
        elif text.content:
            kept[text.content] = text
    return list(kept.values()), duplicates


class Windows:
    """The 64-byte windows of each text, hashed once."""

    def __init__(self, texts: list[Text]) -> None:
        every = 1 + sum(len(text.content) for text in texts) // overlap.MOST_WINDOWS
        self._of = {text.path: overlap.windows(text.content, every) for text in texts}

    def near_copies(self) -> set[str]:
        """Paths of texts that are mostly found in others."""
        shares = overlap.share_elsewhere(list(self._of.values()))
        return {path for path, share in zip(self._of, shares, strict=True) if share > NEAR_COPY}

    def found_elsewhere(self, parts: dict[str, list[Text]]) -> dict[str, float]:
        groups = [np.concatenate([self._of[text.path] for text in texts]) for texts in parts.values()]
        return dict(zip(map(file_name, parts), overlap.share_elsewhere(groups), strict=True))


def validation_sets(total: int, set_size: int) -> list[str]:
    """Names of the sets, in the order they are filled; as many confirm parts as leave enough to train on."""
    fitting = (total - MINIMUM_TRAIN_BYTES) // set_size - 2
    confirm = [CONFIRM, *(f"{CONFIRM}_{number}" for number in range(2, min(MOST_CONFIRM_PARTS, fitting) + 1))]
    return [SCREEN, *confirm, FINAL]


def split(texts: list[Text], near_copies: Set[str] = frozenset()) -> dict[str, list[Text]]:
    """Fill the validation sets one after another in the order of a hash of the path; the rest is train.

    A file of more than a quarter of a set stays in train, so that no one page colours a set. (Django's list of
    security releases, 62 KB of hashes, once was a fifth of a set and raised its entropy from 4.9 to 5.1 bits.)
    So do near copies of other files.
    """
    total = sum(len(text.content) for text in texts)
    if total < MINIMUM_BYTES:
        raise PrepareError(f"Too little text: {total:,} bytes without copies; at least {MINIMUM_BYTES:,} are needed.")
    set_size = max(MINIMUM_VALIDATION_BYTES, int(VALIDATION_SHARE * total))
    largest = set_size // LARGEST_PAGE
    fit = (text for text in texts if len(text.content) <= largest and text.path not in near_copies)
    waiting = sorted(fit, key=hash_order, reverse=True)
    chosen: dict[str, list[Text]] = {}
    for name in validation_sets(total, set_size):
        chosen[name] = []
        size = 0
        while size < set_size and waiting:
            chosen[name].append(waiting.pop())
            size += len(chosen[name][-1].content)
        if size < set_size:
            raise PrepareError(
                f"Too few small files to fill {name}: text is split by whole files, and only files of up to "
                f"{largest:,} bytes go to validation. Cut long files into pieces of that size."
            )
    validation = {text.path for members in chosen.values() for text in members}
    train = [text for text in texts if text.path not in validation]
    members = {TRAIN: train, **chosen}
    if sum(len(text.content) for text in train) < MINIMUM_TRAIN_BYTES:
        raise PrepareError(f"Too little text is left to train on; at least {MINIMUM_TRAIN_BYTES:,} bytes are needed.")
    return {name: sorted(texts, key=lambda text: text.path) for name, texts in members.items()}


def hash_order(text: Text) -> str:
    return sha256(f"{SPLIT_SALT}\n{text.path}".encode())


def write(
    out: Path, source: Source, parts: dict[str, list[Text]], duplicates: list[str], shares: dict[str, float]
) -> Manifest:
    """Write into a folder beside `out` and rename it: whoever sees `out` sees all of it."""
    out.parent.mkdir(parents=True, exist_ok=True)
    remove_stale_partials(out)
    partial = out.parent / f".{out.name}.{os.getpid()}.partial"
    partial.mkdir()
    try:
        files = {}
        for part, texts in parts.items():
            content = SEPARATOR.join(text.content for text in texts)
            name = file_name(part)
            (partial / name).write_bytes(content)
            files[name] = SplitFile(len(content), sha256(content), [text.path for text in texts])
        manifest = Manifest(MANIFEST_FORMAT, data_id(files), source.name, source.sha256, duplicates, files, shares)
        (partial / MANIFEST).write_text(json.dumps(asdict(manifest), indent=1) + "\n", encoding="utf-8")
        partial.rename(out)
    except OSError as error:
        if out.is_dir() and any(out.iterdir()):  # another process was quicker
            return verify(out)
        raise PrepareError(f"{out} cannot be written: {error}") from error
    finally:
        shutil.rmtree(partial, ignore_errors=True)
    return manifest


def remove_stale_partials(out: Path) -> None:
    """What a killed prepare left behind."""
    for partial in out.parent.glob(f".{out.name}.*.partial"):
        if time.time() - partial.stat().st_mtime > STALE_PARTIAL_AGE:
            shutil.rmtree(partial, ignore_errors=True)


def file_name(part: str) -> str:
    return f"{part}.bin"


def data_id(files: dict[str, SplitFile]) -> str:
    """One name for the data: sha256 over the names and hashes of the split files, in the order they were filled."""
    return sha256("".join(f"{name} {part.sha256}\n" for name, part in files.items()).encode())


def sha256(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()
