"""Where prepared data lies and which data a benchmark has: one folder per data id, outside every sandbox mount."""

from __future__ import annotations

import json
import os
from pathlib import Path


class DataError(RuntimeError):
    """The benchmark's data are missing or broken; the text says which command mends it."""


def data_folder(benchmark: str) -> Path:
    """The folder of prepared data sets of a benchmark (`$LAB_DATA/datasets/NAME`)."""
    root = Path(os.environ.get("LAB_DATA") or Path(__file__).resolve().parent.parent / "data")
    return root.absolute() / "datasets" / benchmark


def data_id(benchmark: str) -> str:
    """The id of the data in use: what `current` names. Raises DataError where nothing is prepared."""
    folder = data_folder(benchmark)
    current = folder / "current"
    if not current.is_file():
        raise DataError(f"{benchmark} has no data yet: run `python -m benchmarks.{benchmark} prepare`")
    manifest = folder / current.read_text().strip() / "manifest.json"
    if not manifest.is_file():
        raise DataError(f"{benchmark}'s data folder is incomplete: run `python -m benchmarks.{benchmark} prepare`")
    return str(json.loads(manifest.read_text())["data_id"])


def parts_of(folder: Path, split: str) -> tuple[str, ...]:
    """The parts of a validation split in prepared data: `val_confirm`, `val_confirm_2` ...; at least itself."""
    more = [path.stem for path in folder.glob(f"{split}_*.bin")]
    return (split, *sorted(more, key=lambda name: (len(name), name)))
