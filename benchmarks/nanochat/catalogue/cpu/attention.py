"""Techniques inside the attention: what queries, keys and values are made of, what may look where."""

from __future__ import annotations

from benchmarks import edits
from benchmarks.catalogue import Sources, Technique, Tunable, Tunables
from benchmarks.nanochat.catalogue.cpu.places import (
    BLOCKS_MADE,
    HEADS_MERGED,
    HEADS_SPLIT,
    MODEL,
    attention_parts,
    changed_model,
    with_shift,
    without,
)

FORWARD = "Attention.forward"


def qk_norm(sources: Sources, tunables: Tunables) -> Sources:
    model = edits.new_constant(sources["model.py"], "QK_SCALE", tunables["scale"], "of normalised queries")
    model = edits.after(
        model, HEADS_SPLIT, inside=FORWARD, lines="""
        q = QK_SCALE * F.rms_norm(q, (q.size(-1),))
        k = F.rms_norm(k, (k.size(-1),))
        """,
    )  # fmt: skip
    return changed_model(sources, model)


ROTATE = """
def rotate(x, angles):  # [B, H, T, D], [T', D / 2, 2] sine and cosine -> x turned by its position
    sine, cosine = angles[: x.size(-2)].unbind(-1)  # [T, D / 2]
    a, b = x.chunk(2, dim=-1)
    return torch.cat((a * cosine - b * sine, a * sine + b * cosine), dim=-1)
"""


def rope(sources: Sources, tunables: Tunables) -> Sources:
    model = edits.constant(sources["model.py"], "LONGEST_WAVELENGTH", tunables["base"])
    for line, inside in (
        ("self.position_embedding = nn.Embedding(SEQUENCE_LENGTH, WIDTH)", "Transformer.__init__"),
        ("positions = torch.arange(tokens.size(1), device=tokens.device)", MODEL),
        ("position_embedding = self.position_embedding(positions)  # [T, C]", MODEL),
        ("model.position_embedding.weight.copy_(sinusoids(SEQUENCE_LENGTH, WIDTH))", "init_weights"),
    ):
        model = without(model, line, inside)
    model = edits.swap(model, "token_embedding + position_embedding", "token_embedding", inside=MODEL)
    model = model.replace("with learned absolute positions.", "with rotary positions.")  # in the docstring
    model = attention_parts(
        model, """
        angles = sinusoids(SEQUENCE_LENGTH, WIDTH // HEADS).unflatten(-1, (-1, 2))  # [T, D / 2, 2]
        self.register_buffer("angles", angles, persistent=False)
        """,
    )  # fmt: skip
    model = edits.after(
        model, HEADS_SPLIT, inside=FORWARD, lines="""
        q = rotate(q, self.angles)
        k = rotate(k, self.angles)
        """,
    )  # fmt: skip
    return changed_model(sources, edits.define_before(model, "split_heads", ROTATE))


def attention_scale(sources: Sources, tunables: Tunables) -> Sources:
    model = edits.new_constant(
        sources["model.py"], "ATTENTION_SCALE", tunables["scale"], "first factor of each head's scores"
    )
    model = attention_parts(model, "self.attention_scale = nn.Parameter(torch.full((HEADS, 1, 1), ATTENTION_SCALE))")
    model = edits.after(model, HEADS_SPLIT, "q = q * self.attention_scale", inside=FORWARD)
    return changed_model(sources, model)


def attention_gate(sources: Sources, tunables: Tunables) -> Sources:
    model = edits.new_constant(
        sources["model.py"], "GATE_CHANNELS", tunables["channels"], "of the input, that the gate of each head sees"
    )
    model = attention_parts(model, "self.attention_gate = nn.Parameter(torch.zeros(GATE_CHANNELS, HEADS))")
    model = edits.before(
        model, HEADS_MERGED, inside=FORWARD, lines="""
        gate = 2 * torch.sigmoid(attention_input[..., :GATE_CHANNELS] @ self.attention_gate)  # [B, T, H], from 1
        y = y * gate.transpose(1, 2).unsqueeze(-1)
        """,
    )  # fmt: skip
    return changed_model(sources, model)


def key_shift(sources: Sources, tunables: Tunables) -> Sources:
    model = edits.new_constant(
        sources["model.py"], "SHIFTED_KEYS", tunables["share"], "of the key's channels come from one position before"
    )
    model = edits.before(
        model, "k = split_heads(k)", inside=FORWARD, lines="""
        shifted, own = k.unflatten(-1, (HEADS, -1)).tensor_split([int(SHIFTED_KEYS * WIDTH / HEADS)], dim=-1)
        k = torch.cat((shift(shifted, 1), own), dim=-1).flatten(-2)  # [B, T, C]
        """,
    )  # fmt: skip
    return changed_model(sources, with_shift(model))


def value_embeddings(sources: Sources, tunables: Tunables) -> Sources:
    """Hands the tokens down to every attention, which adds a row of its own table to the values."""
    model = edits.new_constant(sources["model.py"], "VALUE_GATE", tunables["gate"], "first weight of the value tables")
    model = attention_parts(
        model, """
        self.value_embedding = nn.Embedding(VOCAB_SIZE, WIDTH)
        self.value_gate = nn.Parameter(torch.full((WIDTH,), VALUE_GATE))
        """,
    )  # fmt: skip
    model = edits.after(
        model, "v = self.value(attention_input)", inside=FORWARD,
        lines="v = v + self.value_gate * self.value_embedding(tokens)",
    )  # fmt: skip
    model = edits.swap(model, "forward(self, attention_input", "forward(self, attention_input, tokens", inside=FORWARD)
    model = edits.swap(
        model, "self.attention(attention_input", "self.attention(attention_input, tokens", inside="Block.forward"
    )
    model = edits.swap(model, "forward(self, x", "forward(self, x, tokens", inside="Block.forward")
    model = edits.swap(model, "block(x", "block(x, tokens", inside=MODEL)
    return changed_model(sources, model)


WINDOW_MASK = """
def window_mask(length, window, device):  # -> bool [T, T], true where position t may look: t - window + 1 .. t
    lag = torch.arange(length, device=device)
    lag = lag[:, None] - lag
    return (lag >= 0) & (lag < window)
"""


def sliding_window(sources: Sources, tunables: Tunables) -> Sources:
    model = edits.new_constant(
        sources["model.py"], "WINDOW", tunables["window"], "positions each one looks at, its own included"
    )
    model = edits.swap(model, "is_causal=True", "attn_mask=window_mask(q.size(2), WINDOW, q.device)", inside=FORWARD)
    return changed_model(sources, edits.define_before(model, "split_heads", WINDOW_MASK))


def local_convolution(sources: Sources, tunables: Tunables) -> Sources:
    model = edits.new_constant(
        sources["model.py"], "LOCAL_TAPS", tunables["taps"], "positions before, mixed in channel by channel"
    )
    model = attention_parts(model, "self.local_taps = nn.Parameter(torch.zeros(LOCAL_TAPS, WIDTH))")
    model = edits.before(
        model, "q = self.query(attention_input)", inside=FORWARD, lines="""
        taps = [shift(attention_input, lag) * tap for lag, tap in enumerate(self.local_taps, 1)]
        attention_input = attention_input + sum(taps)
        """,
    )  # fmt: skip
    return changed_model(sources, with_shift(model))


NO_ATTENTION = """
class NoAttention(nn.Module):  # takes the place of a block's attention
    def forward(self, attention_input, *others):
        return torch.zeros_like(attention_input)
"""


def mlp_first(sources: Sources, tunables: Tunables) -> Sources:
    model = edits.new_constant(
        sources["model.py"], "MLP_BLOCKS", tunables["blocks"], "blocks without attention in front of the others"
    )
    model = edits.after(
        model, BLOCKS_MADE, inside="Transformer.__init__", lines="""
        for _ in range(MLP_BLOCKS):
            self.blocks.insert(0, Block())
            self.blocks[0].attention_norm = nn.Identity()
            self.blocks[0].attention = NoAttention()
        """,
    )  # fmt: skip
    return changed_model(sources, edits.define_before(model, "Block", NO_ATTENTION))


def heads(sources: Sources, tunables: Tunables) -> Sources:
    return changed_model(sources, edits.constant(sources["model.py"], "HEADS", tunables["heads"]))


TECHNIQUES = (
    Technique(
        name="qk_norm",
        title="normalised queries and keys",
        family="architecture",
        hypothesis="Queries and keys of fixed length keep attention scores in range, so that attention learns faster.",
        source="Henry et al. 2020, Query-Key Normalization for Transformers",
        apply=qk_norm,
        tunables=(Tunable("scale", 2.0, 0.5, 8.0, log=True),),
        prior_gain=0.005,
        prior_sd=0.02,
        tuned_here=True,
    ),
    Technique(
        name="rope",
        title="rotary positions instead of learned ones",
        family="architecture",
        hypothesis="Positions relative by construction need not be learned from few steps, so the loss falls faster.",
        source="Su et al. 2021, RoFormer: Enhanced Transformer with Rotary Position Embedding",
        apply=rope,
        tunables=(Tunable("base", 200, 30, 10_000, log=True, integer=True),),
        prior_gain=0.04,
        prior_sd=0.02,
        excludes=("position_scale",),
        tuned_here=True,
    ),
    Technique(
        name="attention_scale",
        title="learned temperature of each head",
        family="architecture",
        hypothesis="Heads that begin sharper and learn their temperature find the bytes that matter in fewer steps.",
        source="Henry et al. 2020, Query-Key Normalization for Transformers (learned scale in place of 1 / sqrt(D))",
        apply=attention_scale,
        tunables=(Tunable("scale", 2.0, 0.5, 4.0, log=True),),
        prior_sd=0.015,
    ),
    Technique(
        name="attention_gate",
        title="gate on the output of each head",
        family="architecture",
        hypothesis="A head that can shut itself off where it finds nothing writes less noise into the residual stream.",
        source="Qiu et al. 2025, Gated Attention for Large Language Models; modded-nanogpt record 28",
        apply=attention_gate,
        tunables=(Tunable("channels", 12, 4, 32, integer=True),),
        prior_sd=0.01,
    ),
    Technique(
        name="key_shift",
        title="part of each key from one position before",
        family="architecture",
        hypothesis="Keys that also hold the byte before let one layer continue what followed the same byte earlier.",
        source="modded-nanogpt record 49 (partial key offset)",
        apply=key_shift,
        tunables=(Tunable("share", 0.5, 0.25, 1.0),),
        prior_gain=0.01,
        prior_sd=0.015,
    ),
    Technique(
        name="value_embeddings",
        title="a table of bytes added to the values",
        family="architecture",
        hypothesis="Values with a row of their own for each byte carry its identity through every layer at no depth.",
        source="Zhou et al. 2024, Value Residual Learning; modded-nanogpt (value embeddings)",
        apply=value_embeddings,
        tunables=(Tunable("gate", 0.5, 0.1, 1.0),),
        prior_gain=0.01,
        prior_sd=0.015,
    ),
    Technique(
        name="sliding_window",
        title="attention to the nearest bytes alone",
        family="architecture",
        hypothesis="Within seven seconds only near bytes are of use, so hiding the far ones removes noise.",
        source="Beltagy et al. 2020, Longformer: The Long-Document Transformer",
        apply=sliding_window,
        tunables=(Tunable("window", 32, 8, 96, log=True, integer=True),),
        prior_sd=0.015,
    ),
    Technique(
        name="local_convolution",
        title="short depthwise convolution before attention",
        family="architecture",
        hypothesis="Mixing in the last few bytes before attention gives n-gram features without learning positions.",
        source="So et al. 2021, Primer: Searching for Efficient Transformers for Language Modeling",
        apply=local_convolution,
        tunables=(Tunable("taps", 3, 1, 6, integer=True),),
        prior_gain=0.01,
        prior_sd=0.015,
    ),
    Technique(
        name="mlp_first",
        title="an MLP in front of the first attention",
        family="architecture",
        hypothesis="Bytes that pass an MLP before they are attended to make better keys, worth the steps it costs.",
        source="Press et al. 2020, Improving Transformer Models by Reordering their Sublayers",
        apply=mlp_first,
        tunables=(Tunable("blocks", 1, choices=(1, 2)),),
        prior_gain=-0.1,
        prior_sd=0.1,
    ),
    Technique(
        name="heads",
        title="another number of heads",
        family="architecture",
        hypothesis="One wide head scores finer and costs less than two, and that pays for looking at fewer places.",
        source="Vaswani et al. 2017, Attention Is All You Need (table 3, row A)",
        apply=heads,
        tunables=(Tunable("heads", 1, choices=(1, 4, 8)),),
        prior_gain=-0.005,
        prior_sd=0.015,
        tuned_here=True,
    ),
)
