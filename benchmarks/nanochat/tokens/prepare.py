"""Token data in one folder: `train.bin`, `val_screen.bin`, `val_confirm.bin` and more parts, `val_final.bin`.

Each is uint16 little-endian, its documents begin with BOS (id 0). Beside them lie `tokenizer.json`, `token_bytes.npy`
(uint16 [V], the bytes each token stands for) and `manifest.json`. The text is read three times: to plan the splits, to
train the tokenizer on train text, to encode. All of it happens in a hidden folder beside the one that is asked for,
which is renamed when it is whole; an interrupted run goes on there.
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np

from benchmarks.contract import Benchmark, Preset
from benchmarks.nanochat import overlap
from benchmarks.nanochat.prepare import MANIFEST, TRAIN, PrepareError, Progress, file_name
from benchmarks.nanochat.tokens import climbmix, splits
from benchmarks.nanochat.tokens import tokenizer as bpe
from benchmarks.nanochat.tokens.encode import PROGRESS, encode
from benchmarks.nanochat.tokens.splits import Plan, Text
from benchmarks.nanochat.tokens.texts import Source, file_sha256, of_folder, said_left_alone

FORMAT = "tokens 1"
BYTES_A_TOKEN = 5.0  # of text, at most: what validation sets are sized by; English has 3.9 to 4.7 at 8,192 tokens
SAMPLE_BYTES = 40 << 20  # of train text, for the tokenizer
SAMPLE_LENGTH = 10_000  # of one document at a time
PLAN = "plan.json"
STALE_AGE = 7 * 86_400.0  # seconds
SAID_EVERY = 5.0  # seconds


@dataclass(frozen=True)
class TokenFile:
    bytes: int  # of text
    tokens: int
    documents: int
    sha256: str


@dataclass(frozen=True)
class Manifest:
    format: str
    data_id: str
    source: str
    source_sha256: str
    vocabulary: int
    dropped: int  # texts that are copies of others, or were not needed
    tokenizer: dict[str, str]  # file -> sha256
    files: dict[str, TokenFile]
    overlap: dict[str, float]  # split file -> share of its 64-byte windows that occur in another one, too

    @classmethod
    def read(cls, folder: Path) -> Manifest:
        """Raises PrepareError where the folder holds no manifest of this format."""
        try:
            row = json.loads((folder / MANIFEST).read_text(encoding="utf-8"))
            if row["format"] != FORMAT:
                raise ValueError(f"format {row['format']}")
            return cls(**row | {"files": {name: TokenFile(**part) for name, part in row["files"].items()}})
        except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
            raise PrepareError(
                f"{folder / MANIFEST} cannot be read ({error}). Delete the folder {folder} and prepare again."
            ) from error


def needed_tokens(contract: Benchmark, preset: Preset) -> int:
    """Tokens that a validation set must have for every preset that reads the same data."""
    alike = [one for one in contract.presets.values() if (one.data, one.vocabulary) == (preset.data, preset.vocabulary)]
    return max(one.score_rows * (one.sequence_length + 1) for one in alike)


def prepare(root: Path, source: Source, vocabulary: int, needed: int, progress: Progress) -> tuple[Path, Manifest]:
    """The prepared folder below `root` and its manifest; at once where it is there and whole.

    `needed`: tokens that every validation set must have. Raises PrepareError with one line that says what to do.
    """
    out = root / f"tokens-{source.sha256[:12]}-{vocabulary}-{FORMAT.split()[1]}"
    root.mkdir(parents=True, exist_ok=True)
    with _alone(root, progress):
        if out.is_dir():
            manifest = verify(out)
            progress(f"{out}: already prepared, data id {manifest.data_id[:12]}")
        else:
            if source.left_alone:
                progress(said_left_alone(source))
            partial = root / f".{out.name}.partial"
            partial.mkdir(exist_ok=True)
            try:
                manifest = _make(partial, source, vocabulary, needed, progress)
                (partial / PROGRESS).unlink(missing_ok=True)
                (partial / PLAN).unlink(missing_ok=True)
                partial.rename(out)
                _remove_stale(root)
            except OSError as error:
                raise PrepareError(f"{out} cannot be written: {error}. Make room, then prepare again.") from error
    _check_sizes(out, manifest, needed)
    return out, manifest


def _make(partial: Path, source: Source, vocabulary: int, needed: int, progress: Progress) -> Manifest:
    plan, shares = _planned(partial, source, int(needed * BYTES_A_TOKEN), progress)
    if not (partial / bpe.TOKENIZER).is_file():
        (partial / PROGRESS).unlink(missing_ok=True)
        progress(f"training a tokenizer of {vocabulary:,} tokens")
        tokenizer = bpe.train(_samples(source, plan), vocabulary)
        new = partial / f"{bpe.TOKENIZER}.new"
        tokenizer.save(str(new))
        new.replace(partial / bpe.TOKENIZER)
    np.save(partial / bpe.TOKEN_BYTES, bpe.token_bytes(partial))
    counts = encode(source.documents(), plan, bpe.load(partial), partial, Said(progress, "encoded"))
    files = {
        file_name(name): TokenFile(one.bytes, one.tokens, one.documents, file_sha256(partial / file_name(name)))
        for name, one in counts.items()
    }
    tokenizer_files = {name: file_sha256(partial / name) for name in (bpe.TOKENIZER, bpe.TOKEN_BYTES)}
    manifest = Manifest(
        FORMAT, _data_id(tokenizer_files, files), source.name, source.sha256, vocabulary, len(plan.dropped),
        tokenizer_files, files, {file_name(name): share for name, share in shares.items()},
    )  # fmt: skip
    (partial / MANIFEST).write_text(json.dumps(asdict(manifest), indent=1) + "\n", encoding="utf-8")
    return manifest


def _planned(partial: Path, source: Source, needed: int, progress: Progress) -> tuple[Plan, dict[str, float]]:
    """The plan of an earlier run of the same text, or a new one. A changed plan begins anew."""
    try:
        row = json.loads((partial / PLAN).read_text())
        if row["needed"] == needed:
            progress(f"going on in {partial}")
            plan = Plan(row["of_file"], row["of_text"], frozenset(row["dropped"]), row["splits"])
            return plan, row["shares"]
    except (OSError, ValueError, KeyError, TypeError):
        pass
    for leftover in partial.iterdir():
        leftover.unlink()
    on_disk = sum(path.stat().st_size for path in source.files.values())
    every = 1 + 4 * on_disk // overlap.MOST_WINDOWS
    texts: list[Text] = list(splits.read(source.documents(), every, Said(progress, "read")))
    held = climbmix.VALIDATION & source.files.keys()
    plan = splits.plan(texts, needed, held)
    shares = splits.found_elsewhere(texts, plan)
    progress("found elsewhere, too: " + ", ".join(f"{share:.1%} of {name}" for name, share in shares.items()))
    row = asdict(plan) | {"dropped": sorted(plan.dropped), "needed": needed, "shares": shares}
    new = partial / f"{PLAN}.new"
    new.write_text(json.dumps(row))
    new.replace(partial / PLAN)
    return plan, shares


def _samples(source: Source, plan: Plan) -> Iterator[str]:
    """Stretches of at most 10,000 bytes at even distances over the train text, 40 MiB in all."""
    train = sum(len(d.content) for d in source.documents() if plan.split_of(d.text, d.file) == TRAIN)
    step = SAMPLE_LENGTH * max(1.0, train / SAMPLE_BYTES)
    at, following = 0, 0.0
    for document in source.documents():
        if plan.split_of(document.text, document.file) != TRAIN:
            continue
        end = at + len(document.content)
        while following < end:
            begin = int(following) - at
            yield document.content[begin : begin + SAMPLE_LENGTH].decode("utf-8", "ignore")
            following += step
        at = end


def verify(folder: Path) -> Manifest:
    """Check every file of a prepared folder against its manifest: a second for 200 million tokens."""
    manifest = Manifest.read(folder)
    remedy = f"Delete the folder {folder} and prepare again."
    for name, wanted in {**manifest.tokenizer, **{n: one.sha256 for n, one in manifest.files.items()}}.items():
        if not (folder / name).is_file():
            raise PrepareError(f"{folder / name} is missing. {remedy}")
        if file_sha256(folder / name) != wanted:
            raise PrepareError(f"{folder / name} is damaged: its hash is not the one in {MANIFEST}. {remedy}")
    if manifest.data_id != _data_id(manifest.tokenizer, manifest.files):
        raise PrepareError(f"{folder / MANIFEST} is damaged: its data id does not fit its files. {remedy}")
    return manifest


def _check_sizes(out: Path, manifest: Manifest, needed: int) -> None:
    for name, one in manifest.files.items():
        if name != file_name(TRAIN) and one.tokens < needed:
            raise PrepareError(
                f"{name} of {out.name} has {one.tokens:,} tokens, scoring needs {needed:,}: give it more text."
            )


def _data_id(tokenizer: dict[str, str], files: dict[str, TokenFile]) -> str:
    named = {**tokenizer, **{name: one.sha256 for name, one in files.items()}}
    return hashlib.sha256("".join(f"{name} {digest}\n" for name, digest in named.items()).encode()).hexdigest()


def _remove_stale(root: Path) -> None:
    """What interrupted runs over other text left behind, once nobody went on with it for days."""
    for partial in root.glob(".tokens-*.partial"):
        if time.time() - partial.stat().st_mtime > STALE_AGE:
            shutil.rmtree(partial, ignore_errors=True)


@contextmanager
def _alone(root: Path, progress: Progress) -> Iterator[None]:
    """One preparation at a time: two would write the same files."""
    with (root / ".prepare.lock").open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            progress("another preparation is at work; waiting for it")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


class Said:
    """Counts bytes of text, and says every few seconds how far it is."""

    def __init__(self, progress: Progress, verb: str) -> None:
        self._progress, self._verb = progress, verb
        self._bytes, self._said = 0, time.monotonic()

    def __call__(self, count: int) -> None:
        self._bytes += count
        if time.monotonic() - self._said > SAID_EVERY:
            self._said = time.monotonic()
            self._progress(f"{self._verb}: {self._bytes >> 20:,} MiB of text")


def from_folder(folder: Path, root: Path) -> Source:
    """The user's own text. Raises PrepareError where the data folder lies inside it."""
    if root.absolute().is_relative_to(folder.absolute()):
        raise PrepareError(f"{root} lies inside {folder}, the text it would be made from; keep them apart.")
    return of_folder(folder)
