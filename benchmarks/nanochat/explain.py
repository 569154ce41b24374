"""What whoever writes a change must know of the sandbox it runs in, read from where each limit is kept.

For the brief of agents outside. Nothing here is enforced, and no number is written here: they would drift.
"""

from __future__ import annotations

import ast
from pathlib import Path

from benchmarks.contract import Preset
from benchmarks.nanochat import bounds, evaluate, sizes
from runners.jail import Limits

MEBI = 1 << 20


def explain(preset: Preset, data: Path) -> list[str]:
    """One line each, markdown."""
    limits, bound = Limits(), bounds.of(preset)
    in_tokens = preset.vocabulary != evaluate.BYTES
    asked_by = evaluate.INSIDE.parent / "exchange.py" if in_tokens else evaluate.INSIDE / "run_forward.py"
    batch = _constant(asked_by, "GROUP" if in_tokens else "BATCH")
    text = data / "train.bin"
    length = f" ({text.stat().st_size:,} bytes)" if text.is_file() else ""
    calls = "; ".join(f"`{call}`: {says}" for call, says in _functions(evaluate.INSIDE / "harness.py"))
    asks = bound.warm_up_asks or evaluate.WARM_UP_SHARE * preset.budget_seconds
    shared = f"{asks:g} s" + ("" if bound.warm_up_asks else " of CPU")
    return [
        "Training calls `main()` of `train.py`. Scoring imports `model.py` afresh: `build()` makes the module, your "
        f"weights are loaded strictly, and tokens int64 [B, T] become scores [B, T, {preset.vocabulary}]. Both see "
        f"all files of the commit, new ones too, at most {sizes.TREE_BYTES // 1024:,} KiB together.",
        f"`import harness` offers {calls}. Its `seed`, `sequence_length` ({preset.sequence_length}), `vocab_size` "
        "and `budget_seconds` are values. What you print is the log; what `harness.log` sends is a curve.",
        f"`start_clock` gives the training text{length}. Before it {bound.warm_up_wall:g} s of warm-up are free "
        f"(above {shared} a reader is asked). The clock ends when the lab holds the weights: making and handing over "
        f"what `submit` gets counts, so leave time for it. At most {bound.weights_bytes // MEBI:,} MiB of weights.",
        f"Scoring {preset.score_rows} rows, {batch} at a time, has {bound.forward_wall:g} s, and auditing them "
        f"again as much. Limits: {limits.memory_bytes // MEBI:,} MiB of memory, {limits.scratch_bytes // MEBI} MiB "
        f"of scratch in it, {limits.processes} processes and threads, no network.",
    ]


def _functions(path: Path) -> list[tuple[str, str]]:
    """Of each public function how it is called, and the first sentence of its docstring."""
    found = [node for node in ast.parse(path.read_text(encoding="utf-8")).body if isinstance(node, ast.FunctionDef)]
    return [(_call(node), _first(node)) for node in found if not node.name.startswith("_")]


def _call(node: ast.FunctionDef) -> str:
    names = [argument.arg for argument in node.args.args]
    more = [f"**{node.args.kwarg.arg}"] if node.args.kwarg else []
    return f"{node.name}({', '.join([*names, *more])})"


def _first(node: ast.FunctionDef) -> str:
    words = " ".join((ast.get_docstring(node) or "").split())
    said = words.partition(". ")[0].rstrip(".")
    return said[:1].lower() + said[1:]


def _constant(path: Path, name: str) -> int:
    """A whole number that a program inside the sandbox sets; importing it here would import torch."""
    for node in ast.parse(path.read_text(encoding="utf-8")).body:
        if isinstance(node, ast.Assign) and any(getattr(target, "id", "") == name for target in node.targets):
            return int(ast.literal_eval(node.value))
    raise LookupError(f"{path.name} sets no {name}")
