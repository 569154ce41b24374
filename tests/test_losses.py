"""What the token lane's judge works out for itself: losses from scores, the positions it keeps, its reference."""

from __future__ import annotations

import math
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from tests import token_play as play

pytestmark = pytest.mark.torch
ROOT = Path(__file__).resolve().parent.parent


def test_the_kernel_does_in_the_interpreter_what_the_naive_way_does(tmp_path: Path) -> None:
    """In a process of its own: Triton decides at its first import whether it interprets."""
    (tmp_path / "pytest.ini").write_text("[pytest]\n")
    command = [sys.executable, "-m", "pytest", "-q", "--noconftest", "-p", "no:django", "-p", "no:cacheprovider"]
    command += ["-c", str(tmp_path / "pytest.ini"), str(ROOT / "tests/interpreted/losses.py")]
    environment = os.environ | {"TRITON_INTERPRET": "1", "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    environment |= {"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}  # they take three seconds to load
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-2000:]


HOPPER = """
import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource
from benchmarks.nanochat.losses import _row

for dtype in ("*bf16", "*fp32"):
    signature = {"scores": dtype, "targets": "*i64", "found": "*fp32", "width": "i32", "stride": "i32"}
    source = ASTSource(_row, {**signature, "BLOCK": "constexpr"}, {"BLOCK": 8192})
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options={"num_warps": 8})
    print(dtype, len(made.asm["cubin"]) > 0)
"""


@pytest.mark.slow
def test_the_kernel_compiles_for_hopper_without_a_gpu(tmp_path: Path) -> None:
    environment = os.environ | {"PYTHONPATH": str(ROOT), "TRITON_CACHE_DIR": str(tmp_path), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-W", "ignore", "-c", HOPPER]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=120)
    assert done.stdout == "*bf16 True\n*fp32 True\n", done.stderr[-2000:]


def test_the_best_positions_and_the_drawn_ones_are_kept_whole() -> None:
    import torch

    from benchmarks.nanochat.kept import Kept

    drawn = torch.Generator().manual_seed(1)
    scores, gains = torch.randn(90, 7, generator=drawn), torch.randn(90, generator=drawn)
    kept = Kept(np.array([0, 29, 30, 88]), 5, 7, torch.device("cpu"))
    for at in range(0, 90, 30):
        kept.add(at, scores[at : at + 30], gains[at : at + 30])
    positions, said = kept.best()
    assert sorted(positions) == sorted(gains.topk(5).indices.tolist())
    torch.testing.assert_close(said, torch.log_softmax(scores[torch.from_numpy(positions)], 1))
    positions, said = kept.drawn()
    torch.testing.assert_close(said, torch.log_softmax(scores[torch.from_numpy(positions)], 1))


@pytest.mark.parametrize("vocabulary", [512, 8192])
def test_the_reference_knows_which_pairs_are_common(tmp_path: Path, vocabulary: int) -> None:
    import torch

    from benchmarks.nanochat.reference import Reference

    chain = np.tile(np.arange(1, 101), 50).astype("<u2")  # 1 2 3 ... 100 1 2 ...
    (tmp_path / "train.bin").write_bytes(chain.tobytes())
    reference = Reference(tmp_path / "train.bin", vocabulary, torch.device("cpu"))
    inputs = np.array([[5, 5, 300]], dtype=np.uint16)
    likely, unlikely, unseen = reference.losses(inputs, torch.tensor([[6, 9, 9]]), None)[0].tolist()
    assert likely < 0.2 and unlikely > 4 and unseen > 4


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_rehearsal_scores_and_audits_as_a_trial_does(tmp_path: Path, dtype: str) -> None:
    """Of zeros all tokens are equally likely, whatever stands around them."""
    import torch

    from benchmarks.nanochat.exchange import Rehearsal
    from benchmarks.nanochat.judge import windows
    from benchmarks.nanochat.token_judge import TokenJudge

    play.write_data(tmp_path / "data")
    judge = TokenJudge(tmp_path / "data", torch.device("cpu"))
    judge.rehearse()
    assert judge.sheet is None
    request = {
        "split": "val_screen", "rows": 21, "length": 64, "vocabulary": play.VOCABULARY, "seed": 3, "reference": None,
        "keep_losses": None, "random": 20, "targeted": 9, "stream_rows": 1, "sample": False,
    }  # fmt: skip
    nobody = Rehearsal(64, play.VOCABULARY, torch.device("cpu"), getattr(torch, dtype))
    told = judge.score(nobody, request)
    _, targets = windows(np.fromfile(tmp_path / "data" / "val_screen.bin", dtype="<u2"), 21, 64, "tokens")
    sizes = np.load(tmp_path / "data" / "token_bytes.npy")[targets].astype(np.int64)
    assert told["bytes"] == sizes.sum()
    assert told["score"] == pytest.approx(math.log2(play.VOCABULARY) * (sizes > 0).sum() / sizes.sum(), rel=1e-6)
    report = judge.audit(nobody, request)
    nobody.close()
    asked = {part: report[part]["asked"] for part in ("streamed", "targeted", "random", "rescored")}
    assert asked == {"streamed": 8 * 64, "targeted": 9, "random": 20, "rescored": 64}
    assert all(report[part]["failed"] == 0 and report[part]["worst"] < 1e-5 for part in asked)
