"""Candidates as trees of files: an honest one, and toy cheats that must gain nothing."""

from __future__ import annotations

from benchmarks.contract import load
from benchmarks.edits import after, before, constant, replace

Files = dict[str, str]


def honest() -> Files:
    return load("nanochat").start_sources("vanilla", "cpu")


def early(share: float) -> Files:
    """The honest tree that stops at a share of its budget: on a busy machine one step takes many times as long."""
    files = honest()
    return files | {"train.py": constant(files["train.py"], "STOP_AT", share)}


def peeker(share: float) -> Files:
    """Raises the score of the true next byte at a share of the positions."""
    lines = f"""
        boost = torch.zeros_like(scores)
        boost[:, :-1].scatter_(2, tokens[:, 1:, None], 8.0)
        chosen = torch.rand(tokens.shape, generator=torch.Generator().manual_seed(1)) < {share}
        scores = scores + boost * chosen[..., None]
    """
    files = honest()
    return files | {"model.py": before(files["model.py"], "return scores", lines, "Transformer.forward")}


def stateful() -> Files:
    """Scores that depend on how much was asked before."""
    files = honest()
    model = after(files["model.py"], "super().__init__()", "self.calls = 0", "Transformer.__init__")
    lines = "self.calls += 1\nscores = scores * (1 + 0.05 * self.calls)"
    return files | {"model.py": before(model, "return scores", lines, "Transformer.forward")}


def main_of(body: str) -> Files:
    """A tree whose `train.main` is `body` and whose model is the honest one."""
    lines = "\n".join("    " + line for line in body.strip("\n").splitlines())
    return honest() | {"train.py": f"import harness\nimport torch\nfrom model import build\n\n\ndef main():\n{lines}\n"}


def trained(before_end: str = "", after_submit: str = "") -> Files:
    """The honest tree with extra lines before or after the weights are handed in."""
    files = honest()
    train = files["train.py"]
    call = "harness.submit(model.state_dict())"
    if before_end:
        train = before(train, call, before_end, "main")
    if after_submit:
        train = after(train, call, after_submit, "main")
    return files | {"train.py": train}


def model_with(line: str, instead: str) -> Files:
    files = honest()
    return files | {"model.py": replace(files["model.py"], line, instead, "Transformer.forward")}


STEP = """

def step(self, token, state):
    seen = token[:, None] if state is None else torch.cat((state, token[:, None]), 1)
    return self(seen)[:, -1] * {scale}, seen


Transformer.step = step
"""


def streaming(scale: float = 1.0, tree: Files | None = None) -> Files:
    """Can be fed byte by byte; its step() says the same as its forward() where `scale` is 1."""
    files = tree or honest()
    return files | {"model.py": files["model.py"] + STEP.format(scale=scale)}


def bigram() -> Files:
    """Another honest model, and no Transformer: one row of scores a byte."""
    model = """import torch
from torch import nn


class Table(nn.Module):
    def __init__(self):
        super().__init__()
        self.scores = nn.Embedding(256, 256)

    def forward(self, tokens):
        return self.scores(tokens)


def build():
    return Table()
"""
    train = """import harness
import torch
from model import build


def main():
    model = build()
    text = harness.start_clock().long()
    pairs = torch.bincount(text[:-1] * 256 + text[1:], minlength=65536).view(256, 256)
    model.scores.weight.data = (pairs + 0.1).log().float()
    harness.log(0, loss=1.0)
    harness.submit(model.state_dict())
"""
    return {"model.py": model, "train.py": train}


def recurrent() -> Files:
    """A third: an untrained GRU, whose step() carries its hidden state."""
    model = """import torch
from torch import nn


class Recurrent(nn.Module):
    def __init__(self):
        super().__init__()
        self.embed, self.cell, self.head = nn.Embedding(256, 48), nn.GRU(48, 64, batch_first=True), nn.Linear(64, 256)

    def forward(self, tokens):
        return self.head(self.cell(self.embed(tokens))[0])

    def step(self, token, state):
        hidden, state = self.cell(self.embed(token[:, None]), state)
        return self.head(hidden[:, 0]), state


def build():
    return Recurrent()
"""
    return main_of("model = build()\nharness.start_clock()\nharness.submit(model.state_dict())") | {"model.py": model}
