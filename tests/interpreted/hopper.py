"""Compiles the GPU lane's kernels for Hopper at the sizes of training, without a GPU: `python hopper.py`, JSON.

For each: bytes of shared memory, registers a thread, bytes of stack (spills), and counts of two instructions: wgmma
(matmul on the tensor cores) and bulk copies (TMA). tests/test_kernels.py runs it beside copies of the kernels.
"""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import ngram_values as ngrams
import relu_squared as mlp
import row_update as updates
import softcap_cross_entropy as losses
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

HOPPER = GPUTarget("cuda", 90, 32)
# Types of arguments by name: what is not here is a 32-bit integer.
BFLOAT16 = "scores gradients value gates table out of_out of_gates of_found"
FLOAT32 = "losses logsums scale moments clocks"
INT64, INT32 = "targets order", "rows keys"
NUMBERS = "softcap divisor learning_rate beta2 log_beta2 log_decay epsilon shift"
DIVISIBLE = "row_stride vocabulary count value_stride gates_stride out_stride inner columns"


def kind_of(name: str) -> str:
    for names, kind in ((BFLOAT16, "*bf16"), (FLOAT32, "*fp32"), (INT64, "*i64"), (INT32, "*i32"), (NUMBERS, "fp32")):
        if name in names.split():
            return kind
    return "i32"


def built(
    kernel: Any, constants: dict[str, Any], types: dict[str, str] | None = None, **options: int
) -> dict[str, int]:
    """What ptxas says of one kernel; types are those that the name does not tell."""
    names = kernel.arg_names
    kinds = {name: "constexpr" if name in constants else (types or {}).get(name) or kind_of(name) for name in names}
    aligned = [name for name in names if kinds[name].startswith("*") or name in DIVISIBLE.split()]
    source = ASTSource(
        kernel, kinds,
        constexprs={(names.index(name),): value for name, value in constants.items()},
        attrs={(names.index(name),): [["tt.divisibility", 16]] for name in aligned if name not in constants},
    )  # fmt: skip
    made = triton.compile(source, target=HOPPER, options=options)
    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        Path(file.name).write_bytes(made.asm["cubin"])
        tool = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
        usage = subprocess.run([tool, "-res-usage", file.name], capture_output=True, text=True, check=True).stdout
    figures = {word.lower(): int(number) for word, number in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
    counts = {name: made.asm["ptx"].count(word) for name, word in (("wgmma", "wgmma.mma"), ("tma", "cp.async.bulk"))}
    return {"shared": made.metadata.shared, **figures, **counts}


def loss_kernels() -> dict[str, dict[str, int]]:
    rows = {
        f"loss, {'in place' if in_place else 'alone'}": built(
            losses._loss_kernel,
            {"CAPPED": True, "BOUNDED": True, "IN_PLACE": in_place, "EVEN": True, "BLOCK": 8192},
            num_warps=losses._warps(8192),
        )
        for in_place in (True, False)
    }
    return rows | {"gradient": built(losses._gradient_kernel, {"CAPPED": True, "BLOCK": 4096}, num_warps=4)}


def table_kernels() -> dict[str, dict[str, int]]:
    shape = {"HEADS_A_TABLE": 2, "HEAD": 128, "WIDE": 128, "TOKENS": ngrams._TOKENS}
    rows = {
        "lookup": built(ngrams._add_kernel, shape, num_warps=ngrams._WARPS),
        "lookup, backward": built(ngrams._add_backward_kernel, shape, num_warps=ngrams._WARPS),
    }
    for per_row in (True, False):
        constants = {"PER_ROW": per_row, "BY_VISITS": False, "WIDTH": 256, "WIDE": 256}
        constants |= {"FEW": updates._FEW, "MANY": updates._MANY}
        name = "update, a moment a row" if per_row else "update"
        rows[name] = built(updates._update_kernel, constants, num_warps=updates._WARPS)
    return rows


def matmul_kernels(tiles: list[mlp.Tile]) -> dict[str, dict[str, int]]:
    rows = {}
    for tile in tiles:
        for backward in (False, True):
            leaving = (tile.rows, tile.columns // 2 if tile.halves else tile.columns)
            coming = (tile.inner, tile.columns) if backward else (tile.columns, tile.inner)
            blocks = {"left": (tile.rows, tile.inner), "right": coming, "post": leaving, "out": leaving}
            rows[f"{'backward' if backward else 'forward'} {tuple(tile)}"] = built(
                mlp._tile_kernel,
                {
                    "BACKWARD": backward, "HALVES": tile.halves, "BLOCK_ROWS": tile.rows,
                    "BLOCK_COLUMNS": tile.columns, "BLOCK_INNER": tile.inner,
                },
                {name: f"tensordesc<bf16[{rows}, {columns}]>" for name, (rows, columns) in blocks.items()}
                | {"rows": "i32"},
                num_warps=tile.warps, num_stages=tile.stages,
            )  # fmt: skip
    return rows


if __name__ == "__main__":
    every = "--all" in sys.argv[1:]
    shipped = [mlp.FORWARD_TILE, mlp.BACKWARD_TILE][: 1 + (mlp.FORWARD_TILE != mlp.BACKWARD_TILE)]
    print(
        json.dumps(loss_kernels() | table_kernels() | matmul_kernels(list(mlp.TILES) if every else shipped), indent=1)
    )
