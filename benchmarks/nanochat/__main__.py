"""The nanochat benchmark without the lab: `python -m benchmarks.nanochat prepare | train | evaluate`."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path

from benchmarks.contract import Assignment, Benchmark, ContractError, Outcome, Preset, TrialFailed, load
from benchmarks.data import DataError, data_folder, data_id, use
from benchmarks.nanochat import evaluate, prepare
from benchmarks.nanochat.tokens import climbmix
from benchmarks.nanochat.tokens import prepare as tokens
from benchmarks.nanochat.weights import Weights
from benchmarks.tar import pack
from runners import device
from runners.sandbox import Sandbox, SandboxBroken

CLIMBMIX = "climbmix"  # the data of `official`
INTERRUPTED = 130  # as a shell says it


def main() -> int:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.nanochat", description=__doc__)
    commands = parser.add_subparsers(dest="command", required=True)
    make = commands.add_parser("prepare", help="fetch or read the text and split it")
    make.add_argument("--preset", default="cpu", help="whose data: bytes for cpu and smoke, tokens for the others")
    make.add_argument("--data", type=Path, help="a folder of your own text instead of the default")
    make.add_argument("--shards", type=int, default=climbmix.SHARDS, help="of ClimbMix, to train on")
    make.add_argument("--url", default=climbmix.URL, help="where the shards of ClimbMix lie")
    make.add_argument("--json", action="store_true")
    for name, text in (("train", "train a tree in the sandbox, then score and audit it"),
                       ("evaluate", "score and audit weights that were trained before")):  # fmt: skip
        command = commands.add_parser(name, help=text)
        command.add_argument("--tree", type=Path, help="folder with train.py, model.py, optim.py")
        command.add_argument("--start", default="vanilla", help="a start of the benchmark, where no --tree is given")
        command.add_argument("--preset", default="cpu")
        command.add_argument("--split", default="val_screen")
        command.add_argument("--weights", type=Path, required=name == "evaluate", help="safetensors file")
        command.add_argument("--json", action="store_true")
        if name == "train":
            command.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    try:
        return {"prepare": run_prepare, "train": run_train, "evaluate": run_evaluate}[options.command](options)
    except KeyboardInterrupt:
        print("stopped" + "; the same command goes on from here" * (options.command == "prepare"), file=sys.stderr)
        return INTERRUPTED
    except (ContractError, DataError, SandboxBroken, FileNotFoundError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2


def run_prepare(options: argparse.Namespace) -> int:
    """Make the data folder, let it be what the preset reads, print what is there."""
    contract = load("nanochat")
    preset = contract.preset(options.preset)
    if preset.vocabulary > prepare.VOCABULARY:
        print(json.dumps(install_tokens(contract, preset, options.data, options.shards, options.url)))
        return 0
    manifest = install_data(options.data)
    sizes = {file: part.bytes for file, part in manifest.files.items()}
    print(json.dumps({"data_id": manifest.data_id, "source": manifest.source, "bytes": sizes}))
    return 0


def install(name: str) -> None:
    """Prepare the default data of a preset that needs no GPU: bytes or tokens of a small text, there in seconds."""
    contract = load("nanochat")
    preset = contract.preset(name)
    if preset.vocabulary > prepare.VOCABULARY:
        install_tokens(contract, preset)
    else:
        install_data()


def install_tokens(
    contract: Benchmark, preset: Preset, folder: Path | None = None, shards: int = climbmix.SHARDS,
    url: str = climbmix.URL,
) -> dict[str, object]:  # fmt: skip
    """Tokens of the given folder, or of ClimbMix, for every preset that reads the same data.

    At tiny size, without a GPU, the default is the text of the byte lane: it is there in seconds.
    """
    began, root = time.monotonic(), data_folder("nanochat")
    if folder is None and preset.device == "cpu" and url == climbmix.URL:
        source = tokens.from_folder(prepare.docs_folder(root / "docs", say), root / preset.data)
    elif folder is None:
        source = climbmix.read(root / "climbmix", shards, url, say)
    elif preset.data == CLIMBMIX:
        raise ContractError(f"{preset.name} is measured on ClimbMix alone; for text of your own take gpu-300s")
    else:
        source = tokens.from_folder(folder, root)
    out, made = tokens.prepare(root, source, preset.vocabulary, tokens.needed_tokens(contract, preset), say)
    use(out, preset.data, made.data_id)
    return {
        "data_id": made.data_id, "source": made.source, "vocabulary": made.vocabulary,
        "tokens": {file: part.tokens for file, part in made.files.items()},
        "bytes": {file: part.bytes for file, part in made.files.items()},
        "documents": {file: part.documents for file, part in made.files.items()},
        "overlap": made.overlap, "seconds": round(time.monotonic() - began, 1),
    }  # fmt: skip


def say(line: str) -> None:
    print(line, file=sys.stderr, flush=True)


def install_data(folder: Path | None = None) -> prepare.Manifest:
    """Prepared in the present format, beside what older projects are measured on; `current` names it."""
    root = data_folder("nanochat")
    older = "django-docs" if folder is None else f"text-{prepare.read_folder(folder).sha256[:12]}"
    name = f"{older}-{prepare.MANIFEST_FORMAT}"
    manifest = prepare.prepare(root / name, folder, say, older=root / older)
    use(root / name, "", manifest.data_id)
    return manifest


def run_train(options: argparse.Namespace) -> int:
    task = assignment(options, options.seed)
    points = 0

    def show(metric: str, steps, values) -> None:  # type: ignore[no-untyped-def]
        nonlocal points
        points += len(steps)
        if metric == "loss":
            print(f"step {int(steps[-1]):6d}  loss {float(values[-1]):.4f}", file=sys.stderr)

    evaluator = evaluate.Evaluator()
    with _box(task) as box:
        began = time.monotonic()
        outcome = evaluator.run(task, box, show, keep_weights=options.weights)
        outcome.seconds["wall"] = time.monotonic() - began
    evaluator.close()
    return report(outcome, options)


def run_evaluate(options: argparse.Namespace) -> int:
    task = assignment(options, seed=0)
    outcome = Outcome()
    evaluator = evaluate.Evaluator()
    with _box(task) as box, Weights.of(options.weights.read_bytes()) as weights:
        try:
            outcome.score = evaluator.score(task, box, weights, outcome)
            evaluator.audit(task, box, weights, outcome)
        except TrialFailed as failed:
            outcome.score, outcome.failure = None, failed.failure
    evaluator.close()
    return report(outcome, options)


def report(outcome: Outcome, options: argparse.Namespace) -> int:
    """The result as `name: value` lines, or as one JSON object."""
    row: dict[str, object] = {"bits_per_byte": outcome.score}
    if outcome.failure:
        row["failure"] = f"{outcome.failure.kind}: {outcome.failure.message}"
    row["findings"] = [f"{seen.kind}: {'; '.join(seen.evidence)}" for seen in outcome.observations]
    row |= {"seconds": outcome.seconds, "metrics": outcome.metrics, "hashes": outcome.hashes}
    if options.json:
        print(json.dumps(row))
    else:
        for name, value in row.items():
            print(f"{name}: {value}")
    return 1 if outcome.failure else 0


def assignment(options: argparse.Namespace, seed: int) -> Assignment:
    contract = load("nanochat")
    preset = contract.preset(options.preset)
    identity = data_id("nanochat", preset)
    return Assignment(
        benchmark="nanochat", preset=preset, commit="", tree=tree_of(contract, options),
        seed=seed, split=options.split, confirming=options.split.startswith(prepare.CONFIRM),
        data=data_folder("nanochat") / identity[:16],
    )  # fmt: skip


def tree_of(contract: Benchmark, options: argparse.Namespace) -> bytes:
    if options.tree is None:
        return pack(contract.start_files(options.start, options.preset))
    if not (options.tree / "train.py").is_file():
        raise FileNotFoundError(f"{options.tree} holds no train.py; name the folder of a candidate")
    if links := [path.name for path in sorted(options.tree.iterdir()) if path.is_symlink()]:
        raise ContractError(
            f"{options.tree} holds links ({', '.join(links)}), which could lead to hidden text; copy files"
        )
    return pack({path.name: path.read_bytes() for path in sorted(options.tree.glob("*.py"))})


def _box(task: Assignment) -> Sandbox:
    return Sandbox.start(
        0, inside=evaluate.INSIDE, preload=evaluate.PRELOAD, setup_statement=evaluate.SETUP,
        **device.sandbox_options(task.preset.device),
    )  # fmt: skip


if __name__ == "__main__":
    sys.exit(main())
