"""Programs of the public one-file format, written for these tests: a small GPT, trained in several ways."""

from __future__ import annotations

MODEL = '''"""A small GPT in one file."""

from __future__ import annotations

import gc
import math
import time
from dataclasses import dataclass

import torch
import torch.nn as nn
import torch.nn.functional as F

from prepare import MAX_SEQ_LEN, TIME_BUDGET, Tokenizer, make_dataloader, evaluate_bpb


@dataclass
class GPTConfig:
    sequence_len: int = 64
    vocab_size: int = 512
    n_layer: int = 1
    n_head: int = 2
    n_embd: int = 32


def norm(x):
    return F.rms_norm(x, (x.size(-1),))


class Block(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.heads = config.n_head
        self.qkv = nn.Linear(config.n_embd, 3 * config.n_embd, bias=False)
        self.out = nn.Linear(config.n_embd, config.n_embd, bias=False)
        self.up = nn.Linear(config.n_embd, 4 * config.n_embd, bias=False)
        self.down = nn.Linear(4 * config.n_embd, config.n_embd, bias=False)

    def forward(self, x):
        B, T, C = x.shape
        q, k, v = (part.view(B, T, self.heads, -1).transpose(1, 2) for part in self.qkv(norm(x)).chunk(3, dim=-1))
        y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        x = x + self.out(y.transpose(1, 2).reshape(B, T, C))
        return x + self.down(F.relu(self.up(norm(x))).square())


class GPT(nn.Module):
    def __init__(self, config):
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.h = nn.ModuleList([Block(config) for _ in range(config.n_layer)])
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self.register_buffer("scale", torch.ones(config.sequence_len), persistent=False)

    @torch.no_grad()
    def init_weights(self):
        nn.init.normal_(self.wte.weight, std=1.0)
        nn.init.zeros_(self.lm_head.weight)
        for block in self.h:
            for matrix in (block.qkv, block.up):
                nn.init.normal_(matrix.weight, std=0.1)
            nn.init.zeros_(block.out.weight)
            nn.init.zeros_(block.down.weight)
        self.scale = torch.linspace(1.0, 1.1, self.config.sequence_len, device=self.wte.weight.device)

    def forward(self, idx, targets=None, reduction='mean'):
        x = norm(self.wte(idx)) * self.scale[: idx.size(1), None]
        for block in self.h:
            x = block(x)
        logits = self.lm_head(norm(x)).float()
        logits = 15 * torch.tanh(logits / 15)
        if targets is not None:
            return F.cross_entropy(logits.view(-1, logits.size(-1)), targets.view(-1), reduction=reduction)
        return logits

'''

FLAT = """
t_start = time.time()
torch.manual_seed(42)
device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
tokenizer = Tokenizer.from_directory()
config = GPTConfig(sequence_len=MAX_SEQ_LEN, vocab_size=tokenizer.get_vocab_size())
with torch.device("meta"):
    model = GPT(config)
model.to_empty(device=device)
model.init_weights()
print("first weights", model.wte.weight.sum().item())
optimizer = torch.optim.AdamW(model.parameters(), lr=0.02)
for group in optimizer.param_groups:
    group["initial_lr"] = group["lr"]
train_loader = make_dataloader(tokenizer, 8, MAX_SEQ_LEN, "train")
x, y, epoch = next(train_loader)
total_training_time = 0
step = 0
while True:
    t0 = time.time()
    for micro_step in range(2):
        loss = model(x, y)
        (loss / 2).backward()
        x, y, epoch = next(train_loader)
    progress = min(total_training_time / TIME_BUDGET, 1.0)
    for group in optimizer.param_groups:
        group["lr"] = group["initial_lr"] * (1 - 0.9 * progress)
    optimizer.step()
    model.zero_grad(set_to_none=True)
    if math.isnan(loss.item()):
        print("FAIL")
        exit(1)
    dt = time.time() - t0
    if step > 10:
        total_training_time += dt
    if step == 0:
        gc.collect()
        gc.freeze()
    step += 1
    if step > 10 and total_training_time >= TIME_BUDGET:
        break
print(f"progress {progress:.3f} of {step} steps")
model.eval()
val_bpb = evaluate_bpb(model, tokenizer, 8)
print(f"val_bpb: {val_bpb:.6f}")
"""

MUON = """
class Muon(torch.optim.Optimizer):
    def __init__(self, params):
        super().__init__(params, defaults=dict(lr=0.02, momentum=0.9))

    @torch.no_grad()
    def step(self):
        for group in self.param_groups:
            for p in group["params"]:
                state = self.state[p]
                if "held" not in state:
                    state["held"] = torch.zeros_like(p)
                update = state["held"].lerp_(p.grad, 1 - group["momentum"])
                X = update / (update.norm() + 1e-7)
                for _ in range(5):
                    A = X @ X.T
                    X = 3.4445 * X + (2.0315 * A @ A - 4.7750 * A) @ X
                p.sub_(X, alpha=group["lr"])


def main():
    torch.manual_seed(1337)
    tokenizer = Tokenizer.from_directory()
    loader = make_dataloader(tokenizer, 8, MAX_SEQ_LEN, "train")
    inputs, targets, _ = next(loader)
    network = Net(GPTConfig(sequence_len=MAX_SEQ_LEN, vocab_size=tokenizer.get_vocab_size()))
    network.init_weights()
    matrices = [p for p in network.h.parameters()]
    rest = [network.wte.weight, network.lm_head.weight]
    optimizers = [Muon(matrices), torch.optim.AdamW(rest, lr=0.02)]
    spent, i = 0.0, 0
    while spent < TIME_BUDGET:
        began = time.perf_counter()
        with torch.autocast("cpu", dtype=torch.bfloat16):
            loss = network(inputs, labels=targets)
        loss.backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
        inputs, targets, _ = next(loader)
        if i >= 5:
            spent = spent + (time.perf_counter() - began)
        i += 1
    print("val_bpb:", evaluate_bpb(network, tokenizer, 8))


if __name__ == "__main__":
    main()
"""


def flat() -> str:
    return MODEL + FLAT


def muon() -> str:
    """Other names, a main function, two optimizers, lower precision, and batches before there is a model."""
    return (
        (MODEL + MUON)
        .replace("class GPT(", "class Net(")
        .replace("targets=None", "labels=None")
        .replace("if targets is", "if labels is")
        .replace("targets.view", "labels.view")
    )


def cheat() -> str:
    """Scores itself, and would train on for ever."""
    own = "\nTIME_BUDGET = 1e9\n\n\ndef evaluate_bpb(model, tokenizer, batch_size):\n    return 0.0\n\n"
    return MODEL + own + FLAT


def by_the_wall() -> str:
    """Counts nothing: a stopwatch around the loop."""
    head, loop = FLAT.split("total_training_time = 0\n")
    loop = loop.replace("min(total_training_time / TIME_BUDGET, 1.0)", "min((time.time() - t_loop) / TIME_BUDGET, 1.0)")
    loop = loop.replace("    if step > 10:\n        total_training_time += dt\n", "")
    loop = loop.replace("step > 10 and total_training_time >= TIME_BUDGET", "time.time() - t_loop >= TIME_BUDGET")
    return MODEL + head + "t_loop = time.time()\n" + loop
