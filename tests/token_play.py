"""A tiny world of the token lane, made by hand: data with a structure to learn, and candidates that count pairs.

No fixture here. The data are a chain of tokens whose next one is known at two of three places; the candidates are small
enough for a CPU, honest ones and cheats.
"""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import numpy as np

from benchmarks.contract import Assignment, Preset, load
from benchmarks.tar import pack

VOCABULARY, BOS, DOCUMENT = 512, 0, 200
TINY = replace(load("nanochat").preset("gpu-tiny"), budget_seconds=1.0, score_rows=30)

Files = dict[str, str]


def write_data(folder: Path, vocabulary: int = VOCABULARY, tokens: int = 60_000, validation: int = 6_000) -> None:
    """A prepared folder as the lane's preparation leaves one, without a tokenizer."""
    folder.mkdir(parents=True)
    random = np.random.default_rng(5)
    sizes = random.integers(1, 9, vocabulary).astype(np.uint16)
    sizes[BOS] = 0
    np.save(folder / "token_bytes.npy", sizes)
    follower = random.permutation(vocabulary)
    files = {}
    for name, count in (("train", tokens), ("val_screen", validation), ("val_confirm", validation)):
        documents = random.integers(1, vocabulary, (count // DOCUMENT, DOCUMENT)).astype(np.uint16)
        known = random.random(documents.shape) < 2 / 3
        for at in range(1, DOCUMENT):
            documents[:, at] = np.where(known[:, at], follower[documents[:, at - 1]], documents[:, at])
        documents[:, 0] = BOS
        chain = documents.ravel()
        content = chain.astype("<u2").tobytes()
        (folder / f"{name}.bin").write_bytes(content)
        total = int(sizes[chain].astype(np.int64).sum())
        about = {"sha256": hashlib.sha256(content).hexdigest(), "tokens": len(chain), "bytes": total}
        files[f"{name}.bin"] = about
    (folder / "manifest.json").write_text(json.dumps({"data_id": "0" * 64, "files": files}))


def task(files: Files, data: Path, preset: Preset = TINY, **more: object) -> Assignment:
    tree = pack({name: text.encode() for name, text in files.items()})
    return Assignment("nanochat", preset, "", tree, 1, "val_screen", data, **more)  # type: ignore[arg-type]


MODEL = """
import torch
from torch import nn


class Table(nn.Module):
    def __init__(self):
        super().__init__()
        self.scores = nn.Embedding({vocabulary}, {vocabulary})
        self.calls = 0

    def forward(self, tokens):
        scores = self.scores(tokens)
{change}
        return scores
{step}

def build():
    return Table()
"""

TRAIN = """
import harness
import torch
from model import build


def main():
    torch.set_default_device(harness.device)
    model = build()
    harness.reserve(model.state_dict())
    text = harness.start_clock()
    assert text.dtype == torch.uint16, text.dtype
    text = text.long().to(harness.device)
    size = harness.vocab_size
    pairs = torch.bincount(text[:-1] * size + text[1:], minlength=size * size).view(size, size)
    model.scores.weight.data = (pairs + 0.1).log().float()
    harness.log(0, loss=1.0)
{before_end}
    harness.submit(model.state_dict())
"""

STEP = """
    def step(self, token, state):
        return self.scores(token) * {scale}, state
"""


def _indented(lines: str, by: int) -> str:
    return "\n".join(" " * by + line for line in lines.strip("\n").splitlines())


def table(change: str = "", step: str = "", before_end: str = "", vocabulary: int = VOCABULARY) -> Files:
    """A table of pair counts. `change` alters `scores` [B, T, V], which follow from `tokens` [B, T]."""
    model = MODEL.format(vocabulary=vocabulary, change=_indented(change, 8), step=step)
    return {"model.py": model, "train.py": TRAIN.format(before_end=_indented(before_end, 4))}


def peeker(share: float, boost: float = 8.0) -> str:
    """Raises the score of the true next token at a share of the positions, chosen by what stands before it."""
    return f"""
boosted = torch.zeros_like(scores)
boosted[:, :-1].scatter_(2, tokens[:, 1:, None], {boost})
code = (tokens * (7919 * torch.arange(tokens.size(1), device=tokens.device) + 1)).cumsum(1)
scores = scores + boosted * (code % {round(1 / share)} == 0)[..., None].to(scores.dtype)
"""


STATEFUL = "self.calls += 1\nscores = scores * (1 + 0.05 * self.calls)"
