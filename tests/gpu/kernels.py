"""The GPU lane's kernels, checked and timed beside eager torch and torch.compile: `python -m tests.gpu.kernels`.

One JSON object on the last line, and exit code 1 where a part failed or erred too much. For each part: the errors
against float64, and milliseconds at the sizes of training (64 rows of 2,048 tokens, width 512, 8,192 scores, 8 layers
of two tables of 2^19 rows). Each part runs in a process of its own, so that one that fails costs only itself. Without
a GPU, `TRITON_INTERPRET=1` plays it at tiny sizes.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import os
import subprocess
import sys
from pathlib import Path

import torch

from tests.gpu.kernel_parts import PARTS
from tests.gpu.kernel_timing import TINY, Size, machine


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.gpu.kernels", description=__doc__)
    parser.add_argument("--only", nargs="+", choices=PARTS, default=list(PARTS), help="parts, all where not given")
    parser.add_argument("--tune", action="store_true", help="time other tiles, warps and blocks too")
    parser.add_argument("--rounds", type=int, default=20, help="timed rounds, 20 where not given")
    parser.add_argument("--data", type=Path, help="a folder with train.bin, uint16: its tokens instead of drawn ones")
    parser.add_argument("--here", action="store_true", help="in this process, not one for each part")
    return parser.parse_args()


def size_for(args: argparse.Namespace) -> Size:
    """Real on a GPU, tiny in the interpreter; a clear line and exit code 2 where neither is there."""
    interpreted = os.environ.get("TRITON_INTERPRET") == "1"
    if not interpreted and not torch.cuda.is_available():
        sys.exit(_refuse("no CUDA device: run this on a GPU machine, or with TRITON_INTERPRET=1 for a dry run"))
    if args.rounds < 1:
        sys.exit(_refuse(f"--rounds {args.rounds}: at least 1"))
    size = TINY if interpreted else Size(rounds=args.rounds)
    text = args.data / "train.bin" if args.data else None
    if text is not None and (not text.is_file() or text.stat().st_size < 2 * size.count):
        sys.exit(_refuse(f"{text}: no file with {size.count} tokens of two bytes; prepare the text first"))
    return dataclasses.replace(size, tune=args.tune, text=text)


def _refuse(line: str) -> int:
    print(line, file=sys.stderr)
    return 2


def apart(name: str, args: argparse.Namespace) -> dict[str, object]:
    """One part in a process of its own, which may fail."""
    command = [sys.executable, "-m", "tests.gpu.kernels", "--here", "--only", name, "--rounds", str(args.rounds)]
    command += ["--tune"] * args.tune + (["--data", str(args.data)] if args.data else [])
    done = subprocess.run(command, capture_output=True, text=True)
    if not done.stdout:  # an unsound part tells what it found, a failed one does not
        return {"sound": False, "error": done.stderr.strip().splitlines()[-12:]}
    found: dict[str, object] = json.loads(done.stdout.splitlines()[-1])[name]
    return found


def sound(found: object) -> bool:
    """Whether no part failed and no error was larger than it may be."""
    if not isinstance(found, dict):
        return True
    return found.get("sound", True) is True and all(sound(value) for value in found.values())


def main() -> None:
    args = arguments()
    size = size_for(args)
    torch.manual_seed(0)
    found: dict[str, object] = {}
    for name in args.only:
        found[name] = PARTS[name](size) if args.here else apart(name, args)
        print(json.dumps({name: found[name]}), file=sys.stderr, flush=True)
    if not args.here:
        found["machine"] = machine(size)
    found["sound"] = sound(found)
    print(json.dumps(found))
    sys.exit(0 if found["sound"] else 1)


if __name__ == "__main__":
    main()
