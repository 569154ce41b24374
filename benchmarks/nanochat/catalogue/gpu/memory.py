"""Techniques of short-context memory: what a position takes from the few before it without attention."""

from __future__ import annotations

from textwrap import dedent

from benchmarks import edits
from benchmarks.catalogue import Sources, Technique, Tunable, Tunables
from benchmarks.nanochat.catalogue.gpu.places import (
    ATTENTION,
    BLOCK,
    MLP,
    adamw,
    as_values,
    attention_parts,
    block_parts,
    is_modern,
    on_values,
    with_rate,
    with_shift,
)

ATTENTION_INPUT = "attention_input = ..."  # the line of a block that norms the stream for its attention
MLP_INPUT = "mlp_input = ..."
QUERIES_KEYS = "qk = norm(qk)"  # where `modern` has both, [B, T, 2H, D], before their norm


def of_blocks(part: str) -> str:
    """A Python list of one parameter of every block."""
    return f"[block.{part} for block in model.blocks]"


def query_key_shift(sources: Sources, tunables: Tunables) -> Sources:
    sources = adamw(sources, "[b.attention.query_key_shift for b in model.blocks]", "QUERY_KEY_SHIFT_RATE")
    model = edits.new_constant(
        sources["model.py"], "QUERY_KEY_SHIFT", tunables["share"], "of the query and key before, at first"
    )
    model = with_shift(
        attention_parts(
            model, "self.query_key_shift = nn.Parameter(torch.full((2 * WIDTH,), QUERY_KEY_SHIFT))  # of q, of k"
        )
    )
    if is_modern(model):
        line = "qk = qk + self.query_key_shift.to(qk.dtype).view(2 * HEADS, -1) * shift(qk, 1)"
        model = edits.before(model, QUERIES_KEYS, line, ATTENTION)
    else:
        lines = """
            of_q, of_k = self.query_key_shift.to(v.dtype).chunk(2)
            q = q + of_q * shift(q, 1)
            k = k + of_k * shift(k, 1)
        """
        model = on_values(model, lines)
    sources = sources | {"model.py": model}
    return with_rate(sources, "QUERY_KEY_SHIFT_RATE", tunables["rate"], "of the shares of the query and key before")


def value_shift(sources: Sources, tunables: Tunables) -> Sources:
    sources = adamw(sources, "[b.attention.value_shift for b in model.blocks]", "VALUE_SHIFT_RATE")
    model = edits.new_constant(sources["model.py"], "VALUE_SHIFT", tunables["share"], "of the value before, at first")
    model = attention_parts(model, "self.value_shift = nn.Parameter(torch.full((WIDTH,), VALUE_SHIFT))")
    share = as_values(model, "self.value_shift.to(v.dtype)")
    model = on_values(with_shift(model), f"v = v + {share} * shift(v, 1)")
    sources = sources | {"model.py": model}
    return with_rate(sources, "VALUE_SHIFT_RATE", tunables["rate"], "of the shares of the value before")


def short_convolution(sources: Sources, tunables: Tunables) -> Sources:
    sources = adamw(sources, of_blocks("taps"), "TAP_RATE")
    model = edits.new_constant(sources["model.py"], "TAPS", tunables["taps"], "positions before, that a block takes in")
    model = block_parts(model, "self.taps = nn.Parameter(torch.zeros(TAPS, WIDTH))")
    model = edits.after(
        with_shift(model), ATTENTION_INPUT, """
        taps = self.taps.to(attention_input.dtype)
        attention_input = attention_input + sum(tap * shift(attention_input, lag) for lag, tap in enumerate(taps, 1))
        """, BLOCK,
    )  # fmt: skip
    return with_rate(sources | {"model.py": model}, "TAP_RATE", tunables["rate"], "of the taps of a block")


def mlp_shift(sources: Sources, tunables: Tunables) -> Sources:
    sources = adamw(sources, of_blocks("mlp_shift"), "MLP_SHIFT_RATE")
    model = edits.new_constant(
        sources["model.py"], "MLP_SHIFT", tunables["share"], "of the position before, at first, in what the MLP reads"
    )
    model = block_parts(model, "self.mlp_shift = nn.Parameter(torch.full((WIDTH,), MLP_SHIFT))")
    line = "mlp_input = mlp_input + self.mlp_shift.to(mlp_input.dtype) * shift(mlp_input, 1)"
    model = edits.after(with_shift(model), MLP_INPUT, line, BLOCK)
    sources = sources | {"model.py": model}
    return with_rate(sources, "MLP_SHIFT_RATE", tunables["rate"], "of the shares of the position before")


def light_state(sources: Sources, tunables: Tunables) -> Sources:
    sources = adamw(sources, of_blocks("state_gate"), "STATE_RATE")
    model = edits.new_constant(
        sources["model.py"], "STATE", {1: 0.15, 2: 0.08, 4: 0.04}, "weight of the position so many before"
    )
    model = edits.new_constant(model, "STATE_GATE", tunables["gate"], "first value of the gates, before the sigmoid")
    model = block_parts(model, "self.state_gate = nn.Parameter(torch.full((WIDTH,), STATE_GATE))")
    model = edits.before(
        with_shift(model), ATTENTION_INPUT, """
        state = sum(weight * shift(x, lag) for lag, weight in STATE.items())
        x = x + torch.sigmoid(self.state_gate).to(x.dtype) * state
        """, BLOCK,
    )  # fmt: skip
    return with_rate(sources | {"model.py": model}, "STATE_RATE", tunables["rate"], "of the gates of the state")


def partial_key_offset(sources: Sources, tunables: Tunables) -> Sources:
    """Before the rotation, so that it works under any: the channels of the slow half of the rotary pairs."""
    model = edits.new_constant(
        sources["model.py"], "KEY_OFFSET_SHARE", tunables["share"], "of the channels of a key, slow to turn, come late"
    )
    pairs = """
        place = torch.arange(WIDTH, device=v.device) % (WIDTH // HEADS // 2)  # turns the slower, the later it comes
        is_late = place >= (1 - KEY_OFFSET_SHARE) * (WIDTH // HEADS // 2)  # [C]
    """
    if is_modern(model):
        lines = """
            is_late = torch.cat((torch.zeros_like(is_late), is_late)).view(2 * HEADS, -1)  # of keys alone
            qk = torch.where(is_late, shift(qk, 1), qk)
        """
        model = edits.before(model, QUERIES_KEYS, dedent(pairs) + dedent(lines).lstrip("\n"), ATTENTION)
    else:
        model = on_values(model, dedent(pairs) + "k = torch.where(is_late, shift(k, 1), k)")
    return sources | {"model.py": with_shift(model)}


def hidden_shift(sources: Sources, tunables: Tunables) -> Sources:
    """Each hidden channel of the MLP of one share sees the position before instead of its own."""
    model = edits.new_constant(
        sources["model.py"], "SHIFTED_HIDDEN", tunables["share"], "of the hidden channels come from the position before"
    )
    model = edits.before(
        with_shift(model), "h = self.contract(h)", """
        late, own = h.split((int(SHIFTED_HIDDEN * MLP_WIDTH), MLP_WIDTH - int(SHIFTED_HIDDEN * MLP_WIDTH)), dim=-1)
        h = torch.cat((shift(late, 1), own), dim=-1)
        """, MLP,
    )  # fmt: skip
    return sources | {"model.py": model}


RATE = Tunable("rate", 0.02, 0.002, 0.2, log=True)

TECHNIQUES = (
    Technique(
        name="query_key_shift",
        title="queries and keys take in the token before",
        family="memory",
        hypothesis="Queries and keys that hold a learned share of those of the token before match pairs of tokens in "
        "one layer instead of two.",
        source="Recursive 2026, First Steps Toward Automated AI Research (causal token shift of queries and keys, 0.30 "
        "at first); Peng et al. 2023, RWKV",
        apply=query_key_shift,
        tunables=(Tunable("share", 0.3, 0.0, 0.6), RATE),
        prior_gain=0.008,
        prior_sd=0.007,
    ),
    Technique(
        name="value_shift",
        title="values take in the token before",
        family="memory",
        hypothesis="Values that hold a learned share of the value before carry pairs of tokens to where they matter.",
        source="So et al. 2021, Primer (convolution behind the projections); Recursive 2026 left values unshifted",
        apply=value_shift,
        tunables=(Tunable("share", 0.0, 0.0, 0.5), RATE),
        prior_gain=0.002,
        prior_sd=0.006,
    ),
    Technique(
        name="short_convolution",
        title="short convolution before each attention",
        family="memory",
        hypothesis="A few learned taps a channel move the last tokens along in every layer and leave attention the "
        "longer way.",
        source="Allen-Zhu 2025, Physics of Language Models 4.1 (Canon layers)",
        apply=short_convolution,
        tunables=(Tunable("taps", 3, choices=(1, 2, 3)), RATE),
        prior_gain=0.008,
        prior_sd=0.008,
        excludes=("light_state",),
    ),
    Technique(
        name="mlp_shift",
        title="the MLP reads the token before too",
        family="memory",
        hypothesis="An MLP that sees a share of the position before computes with pairs of positions at no product "
        "more.",
        source="Recursive 2026, First Steps Toward Automated AI Research (shift-blended MLP input, 0.15); Peng et al. "
        "2023, RWKV (channel mixing)",
        apply=mlp_shift,
        tunables=(Tunable("share", 0.15, 0.0, 0.5), RATE),
        prior_gain=0.004,
        prior_sd=0.006,
    ),
    Technique(
        name="light_state",
        title="gated sum of the positions 1, 2 and 4 before",
        family="memory",
        hypothesis="A small state of the last positions in the stream itself gives every layer short context at once.",
        source="Recursive 2026, First Steps Toward Automated AI Research (shifts by 1, 2 and 4 under a sigmoid gate)",
        apply=light_state,
        tunables=(Tunable("gate", -2.0, -4.0, 1.0), RATE),
        prior_gain=0.004,
        prior_sd=0.008,
        excludes=("short_convolution",),
    ),
    Technique(
        name="partial_key_offset",
        title="a part of each key comes a token late",
        family="memory",
        hypothesis="Keys whose slow channels are those of the token before let one layer find what followed the last "
        "equal token.",
        source="modded-nanogpt record 49 (partial key offset: 1.4 s of 130 s)",
        apply=partial_key_offset,
        tunables=(Tunable("share", 0.5, choices=(0.25, 0.5)),),
        prior_gain=0.003,
        prior_sd=0.005,
    ),
    Technique(
        name="hidden_shift",
        title="some hidden channels of the MLP come a token late",
        family="memory",
        hypothesis="Features of the token before, computed once and read twice, are worth those they replace.",
        source="Wang et al. 2021 (token shift of channels); Peng et al. 2023, RWKV",
        apply=hidden_shift,
        tunables=(Tunable("share", 0.125, choices=(0.0625, 0.125, 0.25)),),
        prior_gain=0.0,
        prior_sd=0.006,
    ),
)
