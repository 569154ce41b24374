"""Techniques that take `vanilla` step by step toward `modern`, which has them all."""

from __future__ import annotations

from benchmarks import edits
from benchmarks.catalogue import Sources, Technique, Tunable, Tunables
from benchmarks.nanochat.catalogue.gpu.places import (
    ATTENTION,
    MLP,
    at_start,
    attention_parts,
    before_blocks,
    before_each_block,
    model_parts,
    numbered,
    of_vanilla,
    on_values,
    with_gated,
    with_layer,
    with_tokens,
    without,
)

FORWARD = "Transformer.forward"


def rms_norm(sources: Sources, tunables: Tunables) -> Sources:
    return sources | {"model.py": of_vanilla(sources).replace("nn.LayerNorm(", "nn.RMSNorm(")}


def relu_squared(sources: Sources, tunables: Tunables) -> Sources:
    return sources | {"model.py": edits.replace(sources["model.py"], "h = F.gelu(h)", "h = F.relu(h).square()", MLP)}


def bias_free(sources: Sources, tunables: Tunables) -> Sources:
    model = of_vanilla(sources)
    for inside, parts in (
        ("Attention.__init__", ("query", "key", "value", "attention_output")),
        ("MLP.__init__", ("expand", "contract")),
    ):
        for part in parts:
            begin = f"self.{part} = nn.Linear("
            line = next((line.strip() for line in model.splitlines() if line.strip().startswith(begin)), begin)
            model = edits.replace(model, line, line.removesuffix(")") + ", bias=False)", inside)
    return sources | {"model.py": model}


ROTATE = """
def rotary_angles():  # -> [T, D / 2, 2], cosine and sine
    half = WIDTH // HEADS // 2
    frequency = ROPE_BASE ** -(torch.arange(half) / half)
    angle = torch.outer(torch.arange(SEQUENCE_LENGTH), frequency)  # [T, D / 2]
    return torch.stack((angle.cos(), angle.sin()), dim=-1)


def rotate(x, angles):  # [B, H, T, D] -> the same, each position turned by its angles
    cosine, sine = angles[: x.size(2)].unbind(-1)  # [T, D / 2]
    a, b = x.chunk(2, dim=-1)
    turned = torch.cat((a * cosine - b * sine, a * sine + b * cosine), dim=-1)
    return turned.to(x.dtype)
"""


def rope(sources: Sources, tunables: Tunables) -> Sources:
    model = of_vanilla(sources)
    for line, inside in (
        ("self.position_embedding = nn.Embedding(SEQUENCE_LENGTH, WIDTH)", "Transformer.__init__"),
        ("positions = torch.arange(tokens.size(1), device=tokens.device)", FORWARD),
        ("position_embedding = self.position_embedding(positions)  # [T, C]", FORWARD),
    ):
        model = without(model, line, inside)
    model = edits.swap(model, "x = token_embedding + position_embedding", "x = token_embedding", FORWARD)
    model = attention_parts(model, 'self.register_buffer("angles", rotary_angles(), persistent=False)')
    model = edits.after(
        model, "v = split_heads(v)", "q = rotate(q, self.angles)\nk = rotate(k, self.angles)", ATTENTION
    )
    model = edits.define_before(model, "split_heads", ROTATE)
    return sources | {"model.py": edits.new_constant(model, "ROPE_BASE", tunables["base"], "of the slowest rotation")}


def qk_norm(sources: Sources, tunables: Tunables) -> Sources:
    lines = "q = F.rms_norm(q, (q.size(-1),))\nk = F.rms_norm(k, (k.size(-1),))"
    model = edits.after(of_vanilla(sources), "v = split_heads(v)", lines, ATTENTION)
    return sources | {"model.py": model}


def zero_init(sources: Sources, tunables: Tunables) -> Sources:
    model = at_start(
        of_vanilla(sources), """
        for block in model.blocks:
            nn.init.zeros_(block.attention.attention_output.weight)
            nn.init.zeros_(block.mlp.contract.weight)
        """,
    )  # fmt: skip
    return sources | {"model.py": model}


def first_sizes(sources: Sources, tunables: Tunables) -> Sources:
    model = edits.new_constant(of_vanilla(sources), "TOKEN_STD", tunables["token"], "of the token embedding")
    model = edits.new_constant(model, "HEAD_STD", tunables["head"], "of the head")
    model = at_start(
        model, """
        nn.init.normal_(model.token_embedding.weight, std=TOKEN_STD)
        nn.init.normal_(model.head.weight, std=HEAD_STD)
        """,
    )  # fmt: skip
    return sources | {"model.py": model}


def token_norm(sources: Sources, tunables: Tunables) -> Sources:
    return sources | {"model.py": before_blocks(of_vanilla(sources), "x = F.rms_norm(x, (x.size(-1),))")}


def logit_softcap(sources: Sources, tunables: Tunables) -> Sources:
    line = "scores = SOFTCAP * torch.tanh(scores.float() / SOFTCAP)"
    model = edits.before(of_vanilla(sources), "return scores", line, FORWARD)
    return sources | {"model.py": edits.new_constant(model, "SOFTCAP", tunables["cap"], "no score is larger")}


def value_embeddings(sources: Sources, tunables: Tunables) -> Sources:
    model = with_gated(with_tokens(with_layer(of_vanilla(sources))))
    model = edits.new_constant(model, "VALUE_EVERY", tunables["every"], "layers; counted from the last one")
    model = edits.new_constant(model, "GATE_CHANNELS", 32, "of the input, that the gates of the values see")
    model = attention_parts(
        model, """
        self.has_values = (DEPTH - 1 - layer) % VALUE_EVERY == 0
        if self.has_values:
            self.value_embedding = nn.Embedding(VOCAB_SIZE, WIDTH)
            self.value_gate = nn.Parameter(torch.zeros(HEADS, GATE_CHANNELS))
        """,
    )  # fmt: skip
    model = on_values(
        model, """
        if self.has_values:
            value_gate = 2 * torch.sigmoid(F.linear(attention_input[..., :GATE_CHANNELS], self.value_gate))
            v = v + gated(value_gate, self.value_embedding(tokens))
        """,
    )  # fmt: skip
    return sources | {"model.py": model}


def embedding_skip(sources: Sources, tunables: Tunables) -> Sources:
    model = edits.new_constant(
        of_vanilla(sources), "X0_LAMBDA", tunables["weight"], "of the embedding before each block, at first"
    )
    model = model_parts(
        model, """
        self.residual_lambdas = nn.Parameter(torch.ones(DEPTH))
        self.x0_lambdas = nn.Parameter(torch.full((DEPTH,), X0_LAMBDA))
        """,
    )  # fmt: skip
    model = before_blocks(numbered(model), "x0 = x")
    model = before_each_block(model, "x = self.residual_lambdas[layer] * x + self.x0_lambdas[layer] * x0")
    return sources | {"model.py": model}


IN_MODERN = "from the start in nanochat and autoresearch"

TECHNIQUES = (
    Technique(
        name="rope",
        title="rotary positions",
        family="attention",
        hypothesis="Positions as rotations of queries and keys need not be learned, and few tokens are there to learn "
        "them from.",
        source="Su et al. 2021, RoFormer; modded-nanogpt record 2",
        apply=rope,
        tunables=(Tunable("base", 10_000, choices=(10_000, 100_000)),),
        prior_gain=0.02,
        prior_sd=0.01,
    ),
    Technique(
        name="qk_norm",
        title="normalised queries and keys",
        family="attention",
        hypothesis="Bounded scores of the attention bear higher rates.",
        source="Henry et al. 2020, Query-Key Normalization for Transformers; modded-nanogpt record 5",
        apply=qk_norm,
        prior_gain=0.008,
        prior_sd=0.008,
    ),
    Technique(
        name="rms_norm",
        title="RMSNorm instead of LayerNorm",
        family="architecture",
        hypothesis="Norms without mean and bias lose nothing and are read in one pass.",
        source="Zhang and Sennrich 2019, Root Mean Square Layer Normalization",
        apply=rms_norm,
        prior_gain=0.002,
        prior_sd=0.004,
    ),
    Technique(
        name="relu_squared",
        title="squared ReLU in the MLP",
        family="architecture",
        hypothesis="A squared ReLU learns faster by step than GELU and costs no more.",
        source="So et al. 2021, Primer; modded-nanogpt record 5",
        apply=relu_squared,
        prior_gain=0.006,
        prior_sd=0.006,
        excludes=("swiglu",),
    ),
    Technique(
        name="bias_free",
        title="linear layers without biases",
        family="architecture",
        hypothesis="Biases add nothing to the quality, and each is a launch and a pass over the output.",
        source="Chowdhery et al. 2022, PaLM (no biases)",
        apply=bias_free,
        prior_gain=0.002,
        prior_sd=0.004,
    ),
    Technique(
        name="zero_init",
        title="output projections begin at zero",
        family="architecture",
        hypothesis="Blocks that begin as the identity disturb the first steps less.",
        source="Zhang et al. 2019, Fixup Initialization; modded-nanogpt record 5",
        apply=zero_init,
        prior_gain=0.003,
        prior_sd=0.005,
        excludes=("output_init",),
    ),
    Technique(
        name="first_sizes",
        title="larger embedding and smaller head at first",
        family="architecture",
        hypothesis="A head near zero begins at the even distribution, and an embedding of size one fills the stream.",
        source=f"Yang et al. 2022, Tensor Programs V; {IN_MODERN} (1 and 0.001)",
        apply=first_sizes,
        tunables=(Tunable("token", 0.5, 0.02, 1.0, log=True), Tunable("head", 0.001, 0.0003, 0.02, log=True)),
        prior_gain=0.008,
        prior_sd=0.01,
    ),
    Technique(
        name="token_norm",
        title="normalised embedding",
        family="architecture",
        hypothesis="Vectors of one size for all tokens, rare ones too, keep the first blocks in range.",
        source=f"Le Scao et al. 2022, What Language Model to Train (embedding norm); {IN_MODERN}",
        apply=token_norm,
        prior_gain=0.008,
        prior_sd=0.01,
    ),
    Technique(
        name="logit_softcap",
        title="scores bounded by a tanh",
        family="architecture",
        hypothesis="Bounded scores keep the model from early over-confidence, and the loss falls faster.",
        source="Gemma Team 2024, Gemma 2; modded-nanogpt record 18 (7 % fewer steps)",
        apply=logit_softcap,
        tunables=(Tunable("cap", 15.0, 8.0, 40.0, log=True),),
        prior_gain=0.006,
        prior_sd=0.006,
        excludes=("softcap_level",),
    ),
    Technique(
        name="value_embeddings",
        title="tables of values by token",
        family="embedding",
        hypothesis="Values looked up by token give every second layer weights that cost no products.",
        source="modded-nanogpt records 14 to 17; nanochat (its largest gain of architecture)",
        apply=value_embeddings,
        tunables=(Tunable("every", 2, choices=(1, 2, 4)),),
        prior_gain=0.015,
        prior_sd=0.01,
    ),
    Technique(
        name="embedding_skip",
        title="the embedding returns before each block",
        family="architecture",
        hypothesis="Blocks that read the token itself at a weight of their own leave the stream to context.",
        source="nanochat (x0 lambdas: 0.0103 bits per byte at depth 8); modded-nanogpt record 9",
        apply=embedding_skip,
        tunables=(Tunable("weight", 0.1, 0.0, 0.5),),
        prior_gain=0.008,
        prior_sd=0.008,
    ),
)
