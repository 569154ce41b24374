"""The model of the program that was brought, rebuilt for scoring: script.py runs, on zeros, to its first forward pass.

What is computed there in lower precision, by autocast, is so here, too.
"""

import prepare
import torch
from torch import nn
from train import run_script


class Scored(nn.Module):
    def __init__(self, network, precision):
        super().__init__()
        self.network = network
        self.kind, self.dtype, self.enabled = precision

    def forward(self, tokens):  # [B, T] int64 -> [B, T, V]
        with torch.autocast(self.kind, dtype=self.dtype, enabled=self.enabled):
            return self.network(tokens)


def build():
    device = torch.get_default_device()
    torch.set_default_device("cpu")  # as the program expects it
    try:
        with torch.compiler.set_stance("force_eager"):
            run_script()
    except prepare.Rebuilt as found:
        return Scored(found.network, found.precision)
    finally:
        torch.set_default_device(device)
    raise RuntimeError("script.py ends without a forward pass of its model")
