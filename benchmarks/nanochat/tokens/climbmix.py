"""The public text: shards of ClimbMix, as the public results of autoresearch and nanochat are measured on.

Source: Diao et al. 2025, "CLIMB: CLustering-based Iterative Data Mixture Bootstrapping for Language Model Pre-training"
(NVIDIA), shuffled and cut into 6,543 shards by A. Karpathy. The last shard is validation. Its licence stands on its
page; nothing of the text is kept beyond the data folder.
"""

from __future__ import annotations

from pathlib import Path

from benchmarks.nanochat.prepare import PrepareError, Progress
from benchmarks.nanochat.tokens import texts
from benchmarks.nanochat.tokens.fetch import fetch

URL = "https://huggingface.co/datasets/karpathy/climbmix-400b-shuffle/resolve/main"
LAST = 6542
SHARDS = 10  # to train on, as the public scripts take
MAGIC = b"PAR1"  # at both ends of a parquet file


def shard(number: int) -> str:
    return f"shard_{number:05d}.parquet"


VALIDATION = frozenset({shard(LAST)})


def read(folder: Path, shards: int, url: str, progress: Progress) -> texts.Source:
    """Fetch what `folder` lacks: the first `shards` shards and the one for validation."""
    if not 1 <= shards <= LAST:
        raise PrepareError(f"--shards must be 1 to {LAST}, not {shards}.")
    files = {}
    for done, number in enumerate([LAST, *range(shards)]):
        name = shard(number)
        files[name] = fetch(f"{url.rstrip('/')}/{name}", folder / name, progress, _no_parquet)
        progress(f"{name} is whole, {done + 1} of {shards + 1}")
    return texts.of_files(f"ClimbMix, {shards} shards", dict(sorted(files.items())))


def _no_parquet(path: Path) -> str:
    with path.open("rb") as file:
        first = file.read(len(MAGIC))
        file.seek(-min(len(MAGIC), path.stat().st_size), 2)
        return "" if first == MAGIC == file.read() else "it is no parquet file"
