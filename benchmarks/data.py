"""Where prepared data lies and which data a preset has: one folder per data id, outside every sandbox mount.

A benchmark may have several prepared texts in use at once, one for each `data` that its lanes and presets name: the
file `current` names the folder of the nameless one, `current-NAME` that of NAME.
"""

from __future__ import annotations

import json
import os
from pathlib import Path

from benchmarks.contract import Preset

BYTES = 256  # the vocabulary of data without a tokenizer


class DataError(RuntimeError):
    """The benchmark's data are missing or broken; the text says which command mends it."""


def data_folder(benchmark: str) -> Path:
    """The folder of prepared data sets of a benchmark (`$LAB_DATA/datasets/NAME`)."""
    root = Path(os.environ.get("LAB_DATA") or Path(__file__).resolve().parent.parent / "data")
    return root.absolute() / "datasets" / benchmark


def prepare_command(benchmark: str, preset: str, data: str) -> list[str]:
    """The arguments to Python that prepare the data of a preset; `data`: what the preset calls them."""
    return ["-m", f"benchmarks.{benchmark}", "prepare", *(["--preset", preset] if data else [])]


def data_id(benchmark: str, preset: Preset) -> str:
    """The id of the data in use for a preset. Raises DataError where nothing is prepared."""
    folder = data_folder(benchmark)
    current = _pointer(folder, preset.data)
    command = " ".join(["python", *prepare_command(benchmark, preset.name, preset.data)])
    if not current.is_file():
        raise DataError(f"{benchmark} has no data{f' for {preset.name}' * bool(preset.data)} yet: run `{command}`")
    manifest = folder / current.read_text().strip() / "manifest.json"
    if not manifest.is_file():
        raise DataError(f"{benchmark}'s data folder is incomplete: run `{command}`")
    made = json.loads(manifest.read_text())
    if (vocabulary := made.get("vocabulary", BYTES)) != preset.vocabulary:
        raise DataError(
            f"{benchmark}'s data has {vocabulary:,} tokens, {preset.name} needs {preset.vocabulary:,}: run `{command}`"
        )
    return str(made["data_id"])


def use(folder: Path, data: str, identity: str) -> None:
    """From now on `folder`, prepared whole, is what `data` names; found by its id, too."""
    link = folder.parent / identity[:16]
    if not link.exists():
        link.symlink_to(folder.name)
    partial = folder.parent / f".current{data}"
    partial.write_text(folder.name)
    partial.replace(_pointer(folder.parent, data))


def parts_of(folder: Path, split: str) -> tuple[str, ...]:
    """The parts of a validation split in prepared data: `val_confirm`, `val_confirm_2` ...; at least itself."""
    more = [path.stem for path in folder.glob(f"{split}_*.bin")]
    return (split, *sorted(more, key=lambda name: (len(name), name)))


def _pointer(folder: Path, data: str) -> Path:
    return folder / (f"current-{data}" if data else "current")
