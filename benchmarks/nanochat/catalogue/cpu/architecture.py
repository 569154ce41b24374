"""Techniques of the model's body: size, norms, MLP, residual stream, head."""

from __future__ import annotations

from benchmarks import edits
from benchmarks.catalogue import Sources, Technique, Tunable, Tunables
from benchmarks.edits import DoesNotApply
from benchmarks.nanochat.catalogue.cpu.places import (
    ATTENTION_OUTPUT,
    BLOCK_INPUT,
    MLP_OUTPUT,
    RETURNED,
    after_blocks,
    at_start,
    before_blocks,
    before_each_block,
    block_parts,
    changed_model,
    model_parts,
)

BLOCK = "Block.forward"
GELU = "h = F.gelu(h)"


def depth(sources: Sources, tunables: Tunables) -> Sources:
    return changed_model(sources, edits.constant(sources["model.py"], "DEPTH", tunables["depth"]))


def width(sources: Sources, tunables: Tunables) -> Sources:
    return changed_model(sources, edits.constant(sources["model.py"], "WIDTH", tunables["width"]))


def mlp_width(sources: Sources, tunables: Tunables) -> Sources:
    model = edits.swap(sources["model.py"], "MLP_WIDTH = 4 * WIDTH", f"MLP_WIDTH = {tunables['ratio']} * WIDTH")
    return changed_model(sources, model)


def relu_squared(sources: Sources, tunables: Tunables) -> Sources:
    model = edits.replace(sources["model.py"], GELU, "h = F.relu(h).square()", inside="MLP.forward")
    return changed_model(sources, model)


def swiglu(sources: Sources, tunables: Tunables) -> Sources:
    model = edits.new_constant(
        sources["model.py"], "GATED_SHARE", tunables["share"], "of the MLP's width is kept, to pay for the gate"
    )
    model = edits.before(model, "super().__init__()", "hidden = int(GATED_SHARE * MLP_WIDTH)", inside="MLP.__init__")
    model = edits.swap(model, "nn.Linear(WIDTH, MLP_WIDTH", "nn.Linear(WIDTH, hidden", inside="MLP.__init__")
    model = edits.swap(model, "nn.Linear(MLP_WIDTH, WIDTH", "nn.Linear(hidden, WIDTH", inside="MLP.__init__")
    model = edits.after(model, "super().__init__()", "self.gate = nn.Linear(WIDTH, hidden)", inside="MLP.__init__")
    model = edits.replace(model, GELU, "h = h * F.silu(self.gate(mlp_input))", inside="MLP.forward")
    return changed_model(sources, model)


def rms_norm(sources: Sources, tunables: Tunables) -> Sources:
    model = sources["model.py"]
    if "nn.LayerNorm(" not in model:
        raise DoesNotApply("the model has no LayerNorm")
    return changed_model(sources, model.replace("nn.LayerNorm(", "nn.RMSNorm("))


def bias_free(sources: Sources, tunables: Tunables) -> Sources:
    model = sources["model.py"]
    for inside, parts in (
        ("Attention.__init__", ("query", "key", "value", "attention_output")),
        ("MLP.__init__", ("expand", "contract")),
    ):
        for part in parts:
            found = [line for line in model.splitlines() if line.strip().startswith(f"self.{part} = nn.Linear(")]
            if len(found) != 1:
                raise DoesNotApply(f"there is no single line that makes self.{part}")
            model = edits.replace(model, found[0], found[0].rstrip(")") + ", bias=False)", inside=inside)
    return changed_model(sources, model)


def sandwich_norm(sources: Sources, tunables: Tunables) -> Sources:
    model = edits.new_constant(
        sources["model.py"], "OUTPUT_GAIN", tunables["gain"], "first gain of the norms of what a block adds"
    )
    model = block_parts(
        model, """
        self.attention_output_norm = nn.LayerNorm(WIDTH)
        self.mlp_output_norm = nn.LayerNorm(WIDTH)
        """,
    )  # fmt: skip
    for line, part in ((ATTENTION_OUTPUT, "attention_output"), (MLP_OUTPUT, "mlp_output")):
        model = edits.before(model, line, f"{part} = self.{part}_norm({part})", inside=BLOCK)
    model = at_start(
        model, """
        for block in model.blocks:
            block.attention_output_norm.weight.fill_(OUTPUT_GAIN)
            block.mlp_output_norm.weight.fill_(OUTPUT_GAIN)
        """,
    )  # fmt: skip
    return changed_model(sources, model)


def zero_init_projections(sources: Sources, tunables: Tunables) -> Sources:
    model = edits.new_constant(
        sources["model.py"], "OUTPUT_INIT", tunables["factor"], "of the usual size, for what writes into the residual"
    )
    model = at_start(
        model, """
        for module in model.modules():
            if isinstance(module, Attention):
                module.attention_output.weight.mul_(OUTPUT_INIT)
            if isinstance(module, MLP):
                module.contract.weight.mul_(OUTPUT_INIT)
        """,
    )  # fmt: skip
    return changed_model(sources, model)


def parallel_block(sources: Sources, tunables: Tunables) -> Sources:
    model = edits.before(sources["model.py"], BLOCK_INPUT, "block_input = x", inside=BLOCK)
    model = edits.swap(model, "self.mlp_norm(x)", "self.mlp_norm(block_input)", inside=BLOCK)
    return changed_model(sources, model)


def residual_lambdas(sources: Sources, tunables: Tunables) -> Sources:
    model = edits.new_constant(
        sources["model.py"], "RESIDUAL_SCALE", tunables["scale"], "first factor of the stream before each block"
    )
    model = block_parts(model, "self.residual_scale = nn.Parameter(torch.tensor(RESIDUAL_SCALE))")
    model = edits.before(model, BLOCK_INPUT, "x = self.residual_scale * x", inside=BLOCK)
    return changed_model(sources, model)


def embedding_skip(sources: Sources, tunables: Tunables) -> Sources:
    model = edits.new_constant(
        sources["model.py"], "EMBEDDING_SKIP", tunables["weight"], "first weight of the embedding before each block"
    )
    model = block_parts(model, "self.embedding_skip = nn.Parameter(torch.full((WIDTH,), EMBEDDING_SKIP))")
    model = before_blocks(model, "first = x")
    model = before_each_block(model, "x = x + block.embedding_skip * first")
    return changed_model(sources, model)


def layer_mix(sources: Sources, tunables: Tunables) -> Sources:
    model = edits.new_constant(
        sources["model.py"], "EARLIER_LAYERS", tunables["weight"], "first weight of earlier layers before the head"
    )
    model = model_parts(
        model, "self.layer_weights = nn.Parameter(torch.full((len(self.blocks), WIDTH), EARLIER_LAYERS))"
    )
    model = before_blocks(model, "layers = []  # the embedding and the outputs of all blocks but the last")
    model = before_each_block(model, "layers.append(x)")
    model = after_blocks(
        model, "x = x + sum(weight * layer for weight, layer in zip(self.layer_weights, layers, strict=True))"
    )
    return changed_model(sources, model)


def logit_softcap(sources: Sources, tunables: Tunables) -> Sources:
    model = edits.new_constant(sources["model.py"], "SOFTCAP", tunables["cap"], "no score is larger")
    model = edits.before(
        model, RETURNED, "scores = SOFTCAP * torch.tanh(scores / SOFTCAP)", inside="Transformer.forward"
    )
    return changed_model(sources, model)


def tied_head(sources: Sources, tunables: Tunables) -> Sources:
    model = model_parts(sources["model.py"], "self.head.weight = self.token_embedding.weight")
    return changed_model(sources, edits.constant(model, "TOKEN_STD", tunables["std"]))


def head_init(sources: Sources, tunables: Tunables) -> Sources:
    model = edits.new_constant(sources["model.py"], "HEAD_INIT", tunables["factor"], "of the usual size of the head")
    return changed_model(sources, at_start(model, "model.head.weight.mul_(HEAD_INIT)"))


TECHNIQUES = (
    Technique(
        name="depth",
        title="another number of blocks",
        family="architecture",
        hypothesis="A second block, which can build on the context of the first, is worth the steps it costs.",
        source="Kaplan et al. 2020, Scaling Laws for Neural Language Models (optimal size of a fixed compute budget)",
        apply=depth,
        tunables=(Tunable("depth", 2, choices=(2, 3, 4)),),
        prior_gain=-0.05,
        prior_sd=0.04,
    ),
    Technique(
        name="width",
        title="another width of the residual stream",
        family="architecture",
        hypothesis="A wider model learns more from each step than the slower step costs.",
        source="Kaplan et al. 2020, Scaling Laws for Neural Language Models (optimal size of a fixed compute budget)",
        apply=width,
        tunables=(Tunable("width", 64, choices=(32, 64, 80, 96)),),
        prior_gain=0.015,
        prior_sd=0.02,
    ),
    Technique(
        name="mlp_width",
        title="another width of the MLP",
        family="architecture",
        hypothesis="A wider MLP fits more from each step than its slower steps lose.",
        source="Vaswani et al. 2017, Attention Is All You Need (table 3, rows C)",
        apply=mlp_width,
        tunables=(Tunable("ratio", 6, choices=(1, 2, 3, 6, 8)),),
        prior_gain=-0.005,
        prior_sd=0.015,
        tuned_here=True,
    ),
    Technique(
        name="relu_squared",
        title="ReLU squared in the MLP",
        family="architecture",
        hypothesis="ReLU squared is cheaper than GELU and learns at least as fast by step.",
        source="So et al. 2021, Primer: Searching for Efficient Transformers for Language Modeling",
        apply=relu_squared,
        prior_gain=0.005,
        prior_sd=0.01,
        excludes=("swiglu",),
    ),
    Technique(
        name="swiglu",
        title="gated MLP",
        family="architecture",
        hypothesis="A product of two projections fits more a parameter than GELU, enough to pay for its operations.",
        source="Shazeer 2020, GLU Variants Improve Transformer",
        apply=swiglu,
        tunables=(Tunable("share", 0.5, 0.33, 1.0),),
        prior_sd=0.015,
        excludes=("relu_squared",),
    ),
    Technique(
        name="rms_norm",
        title="RMSNorm instead of LayerNorm",
        family="architecture",
        hypothesis="Norms without mean and bias lose no quality and cost less.",
        source="Zhang and Sennrich 2019, Root Mean Square Layer Normalization",
        apply=rms_norm,
        prior_gain=-0.015,
        prior_sd=0.01,
    ),
    Technique(
        name="bias_free",
        title="linear layers without biases",
        family="architecture",
        hypothesis="Biases of linear layers add nothing to the quality and cost operations and optimizer time.",
        source="Chowdhery et al. 2022, PaLM: Scaling Language Modeling with Pathways (no biases)",
        apply=bias_free,
        prior_sd=0.01,
    ),
    Technique(
        name="sandwich_norm",
        title="norms behind attention and MLP too",
        family="architecture",
        hypothesis="What a block adds has a fixed size from the first step, so that a high learning rate stays stable.",
        source="Ding et al. 2021, CogView (Sandwich-LN); Kim et al. 2025, Peri-LN",
        apply=sandwich_norm,
        tunables=(Tunable("gain", 0.5, 0.1, 1.0, log=True),),
        prior_sd=0.015,
    ),
    Technique(
        name="zero_init_projections",
        title="output projections begin at zero",
        family="architecture",
        hypothesis="Blocks that begin as the identity disturb the first steps less and learn faster.",
        source="Zhang et al. 2019, Fixup Initialization; modded-nanogpt record 5",
        apply=zero_init_projections,
        tunables=(Tunable("factor", 0.0, 0.0, 0.5),),
        prior_sd=0.015,
    ),
    Technique(
        name="parallel_block",
        title="attention and MLP side by side",
        family="architecture",
        hypothesis="An MLP that does not wait for the attention loses nothing.",
        source="Wang and Komatsuzaki 2021, GPT-J-6B; Chowdhery et al. 2022, PaLM",
        apply=parallel_block,
        prior_gain=-0.12,
        prior_sd=0.06,
    ),
    Technique(
        name="residual_lambdas",
        title="learned factor of the residual stream",
        family="architecture",
        hypothesis="Blocks that can damp what came before write over the embedding sooner.",
        source="nanochat (resid_lambdas)",
        apply=residual_lambdas,
        tunables=(Tunable("scale", 1.0, 0.5, 1.2),),
        prior_gain=0.002,
        prior_sd=0.01,
    ),
    Technique(
        name="embedding_skip",
        title="the embedding is added again before each block",
        family="architecture",
        hypothesis="Each block reads the byte itself at a weight of its own, so the stream is free to hold context.",
        source="nanochat (x0_lambdas); modded-nanogpt (embedding skip connections)",
        apply=embedding_skip,
        tunables=(Tunable("weight", 0.1, 0.0, 0.5),),
        prior_gain=0.002,
        prior_sd=0.01,
    ),
    Technique(
        name="layer_mix",
        title="the head reads all layers",
        family="architecture",
        hypothesis="A learned sum of all layers, earlier ones also subtracted, gives the head a better last state.",
        source="Pagliardini et al. 2024, DenseFormer; modded-nanogpt record 40 (backout)",
        apply=layer_mix,
        tunables=(Tunable("weight", 0.0, -0.5, 0.5),),
        prior_gain=0.005,
        prior_sd=0.01,
    ),
    Technique(
        name="logit_softcap",
        title="scores bounded by a tanh",
        family="architecture",
        hypothesis="Bounded scores keep the model from early over-confidence, and the loss falls faster.",
        source="Gemma Team 2024, Gemma 2; modded-nanogpt record 18",
        apply=logit_softcap,
        tunables=(Tunable("cap", 15.0, 5.0, 30.0, log=True),),
        prior_sd=0.01,
    ),
    Technique(
        name="tied_head",
        title="the head is the embedding table",
        family="architecture",
        hypothesis="One table for input and output learns from both sides and needs fewer steps.",
        source="Press and Wolf 2017, Using the Output Embedding to Improve Language Models",
        apply=tied_head,
        tunables=(Tunable("std", 0.1, 0.02, 0.5, log=True),),
        prior_gain=-0.05,
        prior_sd=0.03,
        excludes=("head_init", "token_init"),
    ),
    Technique(
        name="head_init",
        title="smaller head at the start",
        family="architecture",
        hypothesis="A head that begins near zero starts from the even distribution and saves the first steps.",
        source="Yang et al. 2022, Tensor Programs V (zero-initialised readout)",
        apply=head_init,
        tunables=(Tunable("factor", 0.1, 0.0, 0.7),),
        prior_gain=-0.01,
        prior_sd=0.03,
        excludes=("tied_head",),
    ),
)
