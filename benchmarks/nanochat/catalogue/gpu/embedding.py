"""Techniques of what enters the first block and leaves the last: bytes of a token, its first size, its last word."""

from __future__ import annotations

from benchmarks import edits
from benchmarks.catalogue import Sources, Technique, Tunable, Tunables
from benchmarks.nanochat.catalogue.gpu.places import (
    WARM_UP,
    adamw,
    after_blocks,
    at_start,
    constant_of,
    model_parts,
    on_embedding,
    with_rate,
    with_shift,
)

BUILT = "model = build()"  # the one line of train.py that makes the model

BYTE_FEATURES = """
def byte_features(token_bytes):  # uint8 [V, L], zeros behind the last byte -> [V, 769], about one long
    is_byte = (token_bytes > 0).float()  # [V, L]
    length = is_byte.sum(dim=1).clamp(min=1).long()
    last = token_bytes.gather(1, length.unsqueeze(1) - 1).squeeze(1)
    counts = (F.one_hot(token_bytes.long(), 256) * is_byte.unsqueeze(-1)).sum(dim=1)  # [V, 256]
    first = F.one_hot(token_bytes[:, 0].long(), 256)
    last = F.one_hot(last.long(), 256)
    size = length / token_bytes.size(1)
    return torch.cat((counts / length.unsqueeze(1), first, last, size.unsqueeze(1)), dim=1)
"""

TOKEN_EDGES = """
def token_edges(token_bytes):  # uint8 [V, L], zeros behind the last byte -> int64 [V, 2], its first and its last byte
    length = (token_bytes > 0).sum(dim=1).clamp(min=1)
    last = token_bytes.gather(1, length.unsqueeze(1) - 1)
    return torch.cat((token_bytes[:, :1], last), dim=1).long()
"""


def filled(train: str, line: str) -> str:
    """Fill a buffer of the model from what the harness knows of the tokens, before anything is compiled."""
    return edits.before(train, WARM_UP, line, "main")


def byte_content(sources: Sources, tunables: Tunables) -> Sources:
    model = edits.new_constant(
        sources["model.py"], "BYTE_FEATURES", 769, "of a token: its bytes, its first, its last, how many"
    )
    model = edits.new_constant(model, "BYTE_WEIGHT", tunables["weight"], "of what the bytes of a token add, at first")
    model = model_parts(
        model, """
        self.register_buffer("byte_features", torch.zeros(VOCAB_SIZE, BYTE_FEATURES))  # set by the training
        self.byte_projection = nn.Parameter(BYTE_WEIGHT * torch.randn(WIDTH, BYTE_FEATURES))
        """,
    )  # fmt: skip
    model = on_embedding(
        model, """
        spelling = F.linear(self.byte_features, self.byte_projection)  # [V, C]: tokens that share bytes share vectors
        token_embedding = token_embedding + F.embedding(tokens, spelling.to(token_embedding.dtype))
        """,
    )  # fmt: skip
    train = edits.define_before(sources["train.py"], "compute_loss", BYTE_FEATURES)
    train = edits.new_import(train, "import torch.nn.functional as F")
    train = filled(train, "model.byte_features.copy_(byte_features(torch.as_tensor(harness.token_bytes)))")
    return sources | {"model.py": model, "train.py": train}


def byte_boundary(sources: Sources, tunables: Tunables) -> Sources:
    model = edits.new_constant(
        sources["model.py"], "BOUNDARY_STD", tunables["std"], "first size of the vectors of pairs of bytes"
    )
    model = model_parts(
        model, """
        self.register_buffer("token_edges", torch.zeros(VOCAB_SIZE, 2, dtype=torch.int64))  # set by the training
        self.boundary_embedding = nn.Embedding(256 * 256, WIDTH)
        """,
    )  # fmt: skip
    model = on_embedding(
        with_shift(model), """
        edges = F.embedding(tokens, self.token_edges)  # [B, T, 2], first and last byte
        boundary = 256 * shift(edges[..., 1], 1) + edges[..., 0]  # the last byte before and the first of this token
        token_embedding = token_embedding + self.boundary_embedding(boundary)
        """,
    )  # fmt: skip
    model = at_start(model, "nn.init.normal_(model.boundary_embedding.weight, std=BOUNDARY_STD)")
    train = edits.define_before(sources["train.py"], "compute_loss", TOKEN_EDGES)
    train = filled(train, "model.token_edges.copy_(token_edges(torch.as_tensor(harness.token_bytes)))")
    return sources | {"model.py": model, "train.py": train}


def smear(sources: Sources, tunables: Tunables) -> Sources:
    sources = adamw(sources, "[model.smear_weight]", "SMEAR_RATE")
    model = edits.new_constant(
        sources["model.py"], "SMEAR_CHANNELS", tunables["channels"], "of a token, that say how much of the one before"
    )
    model = model_parts(
        model, """
        self.smear_gate = nn.Parameter(torch.zeros(1, SMEAR_CHANNELS))
        self.smear_weight = nn.Parameter(torch.zeros(WIDTH))
        """,
    )  # fmt: skip
    model = on_embedding(
        with_shift(model), """
        smear_gate = self.smear_gate.to(token_embedding.dtype)
        smear = torch.sigmoid(F.linear(token_embedding[..., :SMEAR_CHANNELS], smear_gate))  # [B, T, 1]
        smear = self.smear_weight.to(smear.dtype) * smear  # [B, T, C]
        token_embedding = token_embedding + smear * shift(token_embedding, 1)
        """,
    )  # fmt: skip
    return with_rate(sources | {"model.py": model}, "SMEAR_RATE", tunables["rate"], "of the weight of the smear")


def output_table(sources: Sources, tunables: Tunables) -> Sources:
    model = edits.new_constant(
        sources["model.py"], "OUTPUT_TABLE_WEIGHT", tunables["weight"], "of the table of last tokens before the head"
    )
    model = model_parts(model, "self.output_table = nn.Embedding(VOCAB_SIZE, WIDTH)  # what tends to follow a token")
    model = after_blocks(model, "x = x + OUTPUT_TABLE_WEIGHT * self.output_table(tokens)")
    model = at_start(model, "nn.init.zeros_(model.output_table.weight)")
    return sources | {"model.py": model}


INDUCTION = """
def followers(tokens, length):  # [B, T] -> what followed the last equal `length` tokens in the row; 0 where none were
    key = tokens
    for lag in range(1, length):
        key = key * 1_000_003 + shift(tokens, lag)
    place = torch.arange(tokens.size(1), device=tokens.device)
    key, order = key.sort(dim=1, stable=True)  # equal ones stay in their order
    is_same = F.pad(key[:, 1:] == key[:, :-1], (1, 0))
    before = torch.where(is_same, F.pad(order[:, :-1], (1, 0)), -1)  # the place of the last equal one
    latest = torch.empty_like(before).scatter(1, order, before)  # [B, T]
    return torch.where(latest >= 0, tokens.gather(1, (latest + 1).clamp(min=0, max=tokens.size(1) - 1)), 0)
"""


def induction(sources: Sources, tunables: Tunables) -> Sources:
    sources = adamw(sources, "[model.induction_weight]", "INDUCTION_RATE")
    model = edits.new_constant(
        sources["model.py"], "INDUCTION_LENGTH", tunables["length"], "tokens that must have stood in the row before"
    )
    model = edits.new_constant(
        model, "INDUCTION_WEIGHT", tunables["weight"], "of the token that followed them, at first"
    )
    model = model_parts(
        model, """
        self.follower_embedding = nn.Embedding(VOCAB_SIZE, WIDTH)  # row 0: nothing followed
        self.induction_weight = nn.Parameter(torch.full((WIDTH,), INDUCTION_WEIGHT))
        """,
    )  # fmt: skip
    model = on_embedding(
        with_shift(model), """
        follower = followers(tokens, INDUCTION_LENGTH)  # [B, T]
        induction = self.induction_weight.to(token_embedding.dtype) * self.follower_embedding(follower)
        token_embedding = token_embedding + induction
        """,
    )  # fmt: skip
    model = edits.define_before(model, "split_heads", INDUCTION)
    model = at_start(model, "nn.init.normal_(model.follower_embedding.weight, std=1.0)")
    return with_rate(sources | {"model.py": model}, "INDUCTION_RATE", 0.02, "of the weight of what followed last time")


TECHNIQUES = (
    Technique(
        name="byte_content",
        title="a vector from the bytes of a token",
        family="embedding",
        hypothesis="A learned projection of which bytes a token has lets tokens of one spelling teach each other, "
        "which rare ones need within 60 s.",
        source="Recursive 2026, First Steps Toward Automated AI Research (byte-content embedding: histogram, first and "
        "last byte, length); Bojanowski et al. 2017",
        apply=byte_content,
        tunables=(Tunable("weight", 0.02, 0.003, 0.3, log=True),),
        prior_gain=0.005,
        prior_sd=0.008,
    ),
    Technique(
        name="byte_boundary",
        title="a vector for the bytes where two tokens meet",
        family="embedding",
        hypothesis="The last byte before and the first byte of a token tell words from their insides, at once and for "
        "all pairs of tokens.",
        source="Recursive 2026, First Steps Toward Automated AI Research (byte-boundary embedding)",
        apply=byte_boundary,
        tunables=(Tunable("std", 0.01, 0.001, 0.3, log=True),),
        prior_gain=0.004,
        prior_sd=0.007,
    ),
    Technique(
        name="smear",
        title="gated share of the previous embedding",
        family="memory",
        hypothesis="A gate that adds the embedding before saves the first layer a head for the previous token.",
        source="modded-nanogpt record 34 (smear); kept by the second round of nanochat",
        apply=smear,
        tunables=(Tunable("channels", 12, 4, 24, integer=True), Tunable("rate", 0.02, 0.002, 0.2, log=True)),
        prior_gain=0.004,
        prior_sd=0.005,
    ),
    Technique(
        name="output_table",
        title="table of last tokens before the head",
        family="embedding",
        hypothesis="A vector for the last token, added behind the last block, learns the pairs of tokens directly.",
        source="Recursive 2026, First Steps Toward Automated AI Research (output vector for each input token)",
        apply=output_table,
        tunables=(Tunable("weight", 0.05, 0.005, 1.0, log=True),),
        prior_gain=0.004,
        prior_sd=0.008,
    ),
    Technique(
        name="induction",
        title="the token that followed last time",
        family="memory",
        hypothesis="Names and phrases repeat within a row; the token that followed the last equal pair, looked up "
        "without attention, is there from the first step on.",
        source="Olsson et al. 2022, In-context Learning and Induction Heads; Tencent 2026, Hyra (induction features)",
        apply=induction,
        tunables=(Tunable("length", 2, choices=(1, 2, 3)), Tunable("weight", 0.3, 0.05, 1.0, log=True)),
        prior_gain=0.01,
        prior_sd=0.01,
    ),
    Technique(
        name="token_std",
        title="another size of the first embedding",
        family="embedding",
        hypothesis="Token vectors that begin smaller turn further with each step and are learned sooner.",
        source="Yang et al. 2022, Tensor Programs V (size of the input layer); autoresearch (initial scale x 0.68)",
        apply=constant_of("model.py", TOKEN_STD="std"),
        tunables=(Tunable("std", 0.5, 0.05, 2.0, log=True),),
        prior_gain=0.0,
        prior_sd=0.004,
    ),
)
