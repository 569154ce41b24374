"""Candidates as trees of files: an honest one, and toy cheats that must gain nothing."""

from __future__ import annotations

from benchmarks.contract import load
from benchmarks.edits import after, before, replace

Files = dict[str, str]


def honest() -> Files:
    tree = load("nanochat").start_files("vanilla")
    return {name: content.decode() for name, content in tree.items() if name.endswith(".py")}


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
