"""Techniques inside the attention: what may look where, how scores are scaled, what becomes of what was found."""

from __future__ import annotations

from benchmarks import edits
from benchmarks.catalogue import Sources, Technique, Tunable, Tunables
from benchmarks.edits import DoesNotApply
from benchmarks.nanochat.catalogue.gpu.places import (
    ATTENTION,
    HEADS_MERGED,
    adamw,
    as_values,
    attention_parts,
    constant_of,
    heads_first,
    is_modern,
    normed,
    on_queries,
    on_values,
    with_rate,
    with_tokens,
)


def by_head(model: str, gate: str) -> str:
    """A factor [B, T, H] or [H] in the shape that multiplies y: [B, H, T, 1] in `vanilla`, [B, T, H, 1] in `modern`."""
    return f"{gate}.transpose(-2, -1).unsqueeze(-1)" if heads_first(model) else f"{gate}.unsqueeze(-1)"


def a_head(model: str, name: str) -> str:
    """A parameter [H] in the shape that multiplies q, k, v or y."""
    return f"self.{name}.to(v.dtype).view(-1, 1" + (", 1)" if heads_first(model) else ")")


def head_gate(sources: Sources, tunables: Tunables) -> Sources:
    model = edits.new_constant(
        sources["model.py"], "HEAD_GATE_CHANNELS", tunables["channels"], "of the input, that the gates of heads see"
    )
    model = attention_parts(model, "self.head_gate = nn.Parameter(torch.zeros(HEADS, HEAD_GATE_CHANNELS))")
    factor = by_head(model, "head_gate")
    model = edits.before(
        model, HEADS_MERGED, f"""
        head_gate = F.linear(attention_input[..., :HEAD_GATE_CHANNELS], self.head_gate.to(attention_input.dtype))
        head_gate = 2 * torch.sigmoid(head_gate)  # [B, T, H], from 1
        y = {factor} * y
        """, ATTENTION,
    )  # fmt: skip
    return sources | {"model.py": model}


def head_norm(sources: Sources, tunables: Tunables) -> Sources:
    model = sources["model.py"]
    line = f"y = {normed(model, 'y')}  # every head as loud as any other"
    return sources | {"model.py": edits.before(model, HEADS_MERGED, line, ATTENTION)}


def exclusive_attention(sources: Sources, tunables: Tunables) -> Sources:
    sources = adamw(sources, "[b.attention.exclusion for b in model.blocks]", "EXCLUSION_RATE")
    model = edits.new_constant(
        sources["model.py"], "EXCLUSION", tunables["share"], "of its own value is taken out, at first"
    )
    model = attention_parts(model, "self.exclusion = nn.Parameter(torch.full((HEADS,), EXCLUSION))")
    model = edits.before(
        model, HEADS_MERGED, f"""
        own = F.normalize(v, dim=-1)
        y = y - {a_head(model, "exclusion")} * (y * own).sum(dim=-1, keepdim=True) * own
        """, ATTENTION,
    )  # fmt: skip
    sources = sources | {"model.py": model}
    return with_rate(sources, "EXCLUSION_RATE", 0.02, "of the shares of the own value")


def paired_heads(sources: Sources, tunables: Tunables) -> Sources:
    """Two heads side by side in one row of twice the length, in layers that see the whole row."""
    model = sources["model.py"]
    if not is_modern(model):
        raise DoesNotApply("the attention has no windows to tell layers apart by")
    definitions = """
        def pair(x):  # [B, T, H, D] -> [B, 2 T, H / 2, D], two heads one after the other at each position
            return x.unflatten(2, (-1, 2)).transpose(2, 3).flatten(1, 2)


        def unpair(x):  # [B, 2 T, H / 2, D] -> [B, T, H, D]
            return x.unflatten(1, (-1, 2)).transpose(2, 3).flatten(2, 3)
    """
    model = edits.define_before(model, "split_heads", definitions)
    model = edits.before(
        model, "y = attend(...", """
        window = self.window
        if self.window >= SEQUENCE_LENGTH:
            q, k, v = pair(q), pair(k), pair(v)  # a head sees the keys of the other as well
            window = 2 * window
        """, ATTENTION,
    )  # fmt: skip
    model = edits.swap(model, "attend(q, k, v, self.window,", "attend(q, k, v, window,", ATTENTION)
    model = edits.after(
        model, "y = attend(...", """
        if self.window >= SEQUENCE_LENGTH:
            y, v = unpair(y), unpair(v)
        """, ATTENTION,
    )  # fmt: skip
    return sources | {"model.py": model}


def attention_scale(sources: Sources, tunables: Tunables) -> Sources:
    sources = adamw(sources, "[b.attention.query_scale for b in model.blocks]", "QUERY_SCALE_RATE")
    model = edits.new_constant(sources["model.py"], "QUERY_SCALE", tunables["scale"], "of queries, at first")
    model = attention_parts(model, "self.query_scale = nn.Parameter(torch.full((HEADS,), QUERY_SCALE))")
    model = on_queries(model, f"q = {a_head(model, 'query_scale')} * q")
    sources = sources | {"model.py": model}
    return with_rate(sources, "QUERY_SCALE_RATE", tunables["rate"], "of the scales of queries")


def partial_rope(sources: Sources, tunables: Tunables) -> Sources:
    model = edits.new_constant(
        sources["model.py"], "ROPE_SHARE", tunables["share"], "of the pairs of channels turn; the slowest stand still"
    )
    line = "frequency = frequency * (torch.arange(half) < ROPE_SHARE * half)"
    model = edits.after(model, "frequency = ...", line, "rotary_angles")
    return sources | {"model.py": model}


def window_pattern(sources: Sources, tunables: Tunables) -> Sources:
    model = edits.constant(sources["model.py"], "WINDOWS", tunables["pattern"])
    comment = "positions that a query sees, its own among them"
    line = f"SHORT_WINDOW = SEQUENCE_LENGTH // {tunables['fraction']}  # {comment}"
    return sources | {"model.py": edits.replace(model, "SHORT_WINDOW = ...", line)}


def value_residual(sources: Sources, tunables: Tunables) -> Sources:
    """The embedding gives every layer a value of its own, in the place of that of the first layer."""
    sources = adamw(sources, "[b.attention.token_value_weight for b in model.blocks]", "TOKEN_VALUE_RATE")
    model = edits.new_constant(
        sources["model.py"], "TOKEN_VALUE_WEIGHT", tunables["weight"], "of the token's vector in each value, at first"
    )
    model = edits.after(
        with_tokens(model), "self.blocks = ...", """
        for block in self.blocks:
            block.attention.token_embedding = [self.token_embedding]  # in a list, for it is the model's
        """, "Transformer.__init__",
    )  # fmt: skip
    model = attention_parts(
        model, """
        self.token_value_weight = nn.Parameter(torch.full((WIDTH,), TOKEN_VALUE_WEIGHT))
        """,
    )  # fmt: skip
    weight = as_values(model, "self.token_value_weight.to(v.dtype)")
    vector = as_values(model, "self.token_embedding[0](tokens).to(v.dtype)")
    model = on_values(model, f"v = v + {weight} * {vector}")
    return with_rate(
        sources | {"model.py": model}, "TOKEN_VALUE_RATE", 0.02, "of the weights of the token's vector in the values"
    )


TECHNIQUES = (
    Technique(
        name="head_gate",
        title="a gate for each head",
        family="attention",
        hypothesis="A head that found nothing can be silenced by its gate instead of by a look at the first token.",
        source="Qiu et al. 2025, Gated Attention for Large Language Models; modded-nanogpt record 28; Recursive 2026",
        apply=head_gate,
        tunables=(Tunable("channels", 16, choices=(8, 16, 32)),),
        prior_gain=0.002,
        prior_sd=0.004,
    ),
    Technique(
        name="head_norm",
        title="the output of each head is normalised",
        family="attention",
        hypothesis="Heads of equal size keep those that spread their attention as loud as those that point.",
        source="Shleifer et al. 2021, NormFormer (head scale); Recursive 2026 (norm of each head before its gate)",
        apply=head_norm,
        prior_gain=0.003,
        prior_sd=0.005,
    ),
    Technique(
        name="exclusive_attention",
        title="attention without the own value",
        family="attention",
        hypothesis="What a head finds elsewhere is worth more once the own value, which the stream holds already, is "
        "taken out.",
        source="modded-nanogpt records 82 and 86 (XSA, learnable); a gain by step, not by time, in nanochat",
        apply=exclusive_attention,
        tunables=(Tunable("share", 0.5, 0.0, 1.0),),
        prior_gain=0.003,
        prior_sd=0.005,
    ),
    Technique(
        name="paired_heads",
        title="pairs of heads share their keys",
        family="attention",
        hypothesis="Two heads that look through each other's keys and values find more, worth twice the attention in "
        "the layers without a window.",
        source="modded-nanogpt record 58 (paired-head attention: 65 steps fewer)",
        apply=paired_heads,
        prior_gain=0.001,
        prior_sd=0.006,
    ),
    Technique(
        name="attention_scale",
        title="learned scale of the queries",
        family="attention",
        hypothesis="Normalised queries and keys bound the scores; a larger scale, learned by each head, lets it point.",
        source="Henry et al. 2020, Query-Key Normalization (learned scale); modded-nanogpt record 20; Recursive 2026",
        apply=attention_scale,
        tunables=(Tunable("scale", 1.2, 0.7, 2.0), Tunable("rate", 0.01, 0.001, 0.1, log=True)),
        prior_gain=0.002,
        prior_sd=0.004,
    ),
    Technique(
        name="rope_base",
        title="another base of the rotary positions",
        family="attention",
        hypothesis="A base above ten thousand leaves more channels to meaning and fewer to position.",
        source="autoresearch (200k: 0.0012 bits per byte at 300 s); Recursive 2026 (1e6 and 40k)",
        apply=constant_of("model.py", ROPE_BASE="base"),
        tunables=(Tunable("base", 100_000, choices=(1_000, 30_000, 100_000, 200_000, 1_000_000)),),
        prior_gain=0.001,
        prior_sd=0.002,
    ),
    Technique(
        name="partial_rope",
        title="some channels keep still",
        family="attention",
        hypothesis="Channels that do not turn match meaning at any distance.",
        source="modded-nanogpt record 17 (half-truncated RoPE); no gain in nanochat in two tries",
        apply=partial_rope,
        tunables=(Tunable("share", 0.5, choices=(0.25, 0.5, 0.75)),),
        prior_gain=0.0,
        prior_sd=0.003,
    ),
    Technique(
        name="window_pattern",
        title="other windows of the attention",
        family="attention",
        hypothesis="In 60 s hardly anything is learned beyond a few hundred tokens, so shorter windows buy steps.",
        source="autoresearch (short windows of an eighth: 0.0009 bits per byte); Recursive 2026 (512, 512, 512, full)",
        apply=window_pattern,
        tunables=(
            Tunable("pattern", "SSSL", choices=("L", "SL", "SSSL", "SSSSSSSL")),
            Tunable("fraction", 4, choices=(2, 4, 8, 16)),
        ),
        prior_gain=0.004,
        prior_sd=0.005,
    ),
    Technique(
        name="value_residual",
        title="values hold the token's own vector",
        family="attention",
        hypothesis="Values with a share of the token's embedding pass the token itself on from any depth.",
        source="Zhou et al. 2024, Value Residual Learning; Recursive 2026 (value residual from the input stream)",
        apply=value_residual,
        tunables=(Tunable("weight", 0.1, 0.0, 1.0),),
        prior_gain=0.0,
        prior_sd=0.005,
    ),
    Technique(
        name="heads",
        title="another number of heads",
        family="attention",
        hypothesis="More and narrower heads look at more places at a time.",
        source="nanochat (a head width of 128 beats 64)",
        apply=constant_of("model.py", HEADS="heads"),
        tunables=(Tunable("heads", 8, choices=(2, 8)),),
        prior_gain=-0.003,
        prior_sd=0.004,
        excludes=("width",),
    ),
)
