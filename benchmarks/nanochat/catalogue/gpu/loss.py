"""Techniques of the loss: what else the features are trained for, beside the next token."""

from __future__ import annotations

from benchmarks import edits
from benchmarks.catalogue import Sources, Technique, Tunable, Tunables
from benchmarks.nanochat.catalogue.gpu.embedding import TOKEN_EDGES, filled
from benchmarks.nanochat.catalogue.gpu.places import adamw, model_parts, with_rate

LOSS = "compute_loss"
FEATURES = "x = x.flatten(0, 1)"  # x is [B, T, C] above it and [N, C] below
RETURNED = "return loss"


def token_after_next(sources: Sources, tunables: Tunables) -> Sources:
    model = model_parts(sources["model.py"], "self.ahead = Linear(WIDTH, WIDTH)  # of the token after the next")
    train = edits.before(
        sources["train.py"], FEATURES, """
        ahead = norm(model.ahead(x[:, :-1:AHEAD_EVERY]))  # [B, T / AHEAD_EVERY, C]
        ahead_loss = HeadLoss.apply(ahead.flatten(0, 1), model.head.weight, targets[:, 1::AHEAD_EVERY].flatten())
        """, LOSS,
    )  # fmt: skip
    train = edits.before(train, RETURNED, "loss = loss + AHEAD_WEIGHT * ahead_loss", LOSS)
    train = edits.new_constant(train, "AHEAD_WEIGHT", tunables["weight"], "of the loss of the token after the next")
    train = edits.new_constant(train, "AHEAD_EVERY", tunables["every"], "positions have such a loss, to save time")
    train = edits.swap(train, "from model import SOFTCAP, build", "from model import SOFTCAP, build, norm")
    return sources | {"model.py": model, "train.py": train}


def first_byte(sources: Sources, tunables: Tunables) -> Sources:
    sources = adamw(sources, "[model.byte_head]", "BYTE_HEAD_RATE")
    model = model_parts(
        sources["model.py"], """
        self.register_buffer("token_edges", torch.zeros(VOCAB_SIZE, 2, dtype=torch.int64))  # set by the training
        self.byte_head = nn.Parameter(torch.zeros(256, WIDTH))  # in training alone
        """,
    )  # fmt: skip
    train = edits.after(
        sources["train.py"], "targets = targets.flatten()", """
        byte_scores = F.linear(x, model.byte_head.to(x.dtype)).float()  # [N, 256]
        byte_loss = F.cross_entropy(byte_scores, model.token_edges[targets, 0])
        """, LOSS,
    )  # fmt: skip
    train = edits.before(train, RETURNED, "loss = loss + BYTE_LOSS_WEIGHT * byte_loss", LOSS)
    train = edits.new_constant(train, "BYTE_LOSS_WEIGHT", tunables["weight"], "of the loss of first bytes")
    train = edits.new_import(train, "import torch.nn.functional as F")
    if "def token_edges(" not in train:
        train = edits.define_before(train, LOSS, TOKEN_EDGES)
        train = filled(train, "model.token_edges.copy_(token_edges(torch.as_tensor(harness.token_bytes)))")
    return with_rate(
        sources | {"model.py": model, "train.py": train}, "BYTE_HEAD_RATE", 0.004, "of the head of first bytes"
    )


def z_loss(sources: Sources, tunables: Tunables) -> Sources:
    lines = """
        losses = losses + Z_WEIGHT * total.log().square()
        gradient = gradient + 2 * Z_WEIGHT * total.log() * weights / total * (4 * half * (1 - half))
    """
    train = edits.before(sources["train.py"], "return losses.squeeze(-1)...", lines, "capped_cross_entropy")
    train = edits.new_constant(train, "Z_WEIGHT", tunables["weight"], "of the square of the log of the normaliser")
    return sources | {"train.py": train}


TECHNIQUES = (
    Technique(
        name="token_after_next",
        title="predict the token after the next too",
        family="loss",
        hypothesis="Features that also foretell the token after the next plan ahead and are worth the second head.",
        source="Gloeckle et al. 2024, Multi-token Prediction; modded-nanogpt record 53; worse by time in nanochat, and "
        "dropped by Recursive 2026 for the steps it costs",
        apply=token_after_next,
        tunables=(Tunable("weight", 0.2, 0.02, 1.0, log=True), Tunable("every", 4, choices=(1, 2, 4, 8))),
        prior_gain=-0.004,
        prior_sd=0.006,
    ),
    Technique(
        name="first_byte",
        title="predict the first byte of the next token too",
        family="loss",
        hypothesis="The first byte is what many tokens share; learning it apart helps rare tokens.",
        source="modded-nanogpt record 88 (prefix token prediction: 15 steps fewer)",
        apply=first_byte,
        tunables=(Tunable("weight", 0.1, 0.01, 1.0, log=True),),
        prior_gain=0.001,
        prior_sd=0.005,
    ),
    Technique(
        name="z_loss",
        title="a loss on the normaliser",
        family="loss",
        hypothesis="Holding the log of the normaliser near zero keeps scores in the middle of the softcap.",
        source="Chowdhery et al. 2022, PaLM; worse on the CPU lane of this benchmark",
        apply=z_loss,
        tunables=(Tunable("weight", 1e-4, 1e-5, 1e-2, log=True),),
        prior_gain=-0.003,
        prior_sd=0.004,
    ),
)
