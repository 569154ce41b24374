"""Techniques of the body of the model: its size, the MLP, the residual stream, the head."""

from __future__ import annotations

from benchmarks import edits
from benchmarks.catalogue import Sources, Technique, Tunable, Tunables
from benchmarks.edits import DoesNotApply
from benchmarks.nanochat.catalogue.gpu.places import (
    BLOCK,
    MLP,
    MLP_OUTPUT,
    adamw,
    after_blocks,
    after_each_block,
    at_start,
    before_blocks,
    before_each_block,
    constant_of,
    is_modern,
    model_forward,
    model_parts,
    normed,
    numbered,
    with_rate,
)

HEAD_WIDTH = 128  # what attention kernels like best


def width(sources: Sources, tunables: Tunables) -> Sources:
    model = edits.constant(sources["model.py"], "WIDTH", tunables["width"])
    heads = max(1, int(tunables["width"]) // HEAD_WIDTH)
    return sources | {"model.py": edits.constant(model, "HEADS", heads)}


def mlp_width(sources: Sources, tunables: Tunables) -> Sources:
    model = edits.swap(sources["model.py"], "MLP_WIDTH = 4 * WIDTH", f"MLP_WIDTH = {tunables['ratio']} * WIDTH")
    return sources | {"model.py": model}


def shifted_relu(sources: Sources, tunables: Tunables) -> Sources:
    model = edits.swap(sources["model.py"], "F.relu(h).square()", "F.relu(h - RELU_SHIFT).square()", MLP)
    return sources | {"model.py": edits.new_constant(model, "RELU_SHIFT", tunables["shift"], "below it a unit is off")}


def swiglu(sources: Sources, tunables: Tunables) -> Sources:
    """The expansion holds the gate as well, and both are narrower by a third: as many weights as before."""
    model = sources["model.py"]
    activation = "h = F.relu(h).square()" if is_modern(model) else "h = F.gelu(h)"
    lines = "h, gate = h.split((GATED_WIDTH, GATED_WIDTH), dim=-1)\nh = h * F.silu(gate)"
    model = edits.replace(model, activation, lines, inside=MLP)
    model = edits.swap(model, "(WIDTH, MLP_WIDTH", "(WIDTH, 2 * GATED_WIDTH", "MLP.__init__")
    model = edits.swap(model, "(MLP_WIDTH, WIDTH", "(GATED_WIDTH, WIDTH", "MLP.__init__")
    comment = "channels of the MLP, each with a gate; a multiple of 16"
    line = f"GATED_WIDTH = int({tunables['share']} * MLP_WIDTH) // 16 * 16  # {comment}"
    return sources | {"model.py": edits.after(model, "MLP_WIDTH = ...", line)}


def parallel_block(sources: Sources, tunables: Tunables) -> Sources:
    model = sources["model.py"]
    norm = "self.mlp_norm(" if "self.mlp_norm(" in model else "norm("
    model = edits.swap(model, f"mlp_input = {norm}x)", f"mlp_input = {norm}block_input)", BLOCK)
    return sources | {"model.py": edits.before(model, "attention_input = ...", "block_input = x", BLOCK)}


def mlp_output_norm(sources: Sources, tunables: Tunables) -> Sources:
    model = sources["model.py"]
    sources = adamw(sources, "[block.mlp_gain for block in model.blocks]", "MLP_GAIN_RATE")
    model = edits.new_constant(model, "MLP_GAIN", tunables["gain"], "of the normalised output of each MLP, at first")
    model = edits.after(
        model, "self.mlp = MLP()", "self.mlp_gain = nn.Parameter(torch.full((WIDTH,), MLP_GAIN))", "Block.__init__"
    )
    line = f"mlp_output = self.mlp_gain.to(mlp_output.dtype) * {normed(model, 'mlp_output')}"
    model = edits.before(model, MLP_OUTPUT, line, BLOCK)
    return with_rate(sources | {"model.py": model}, "MLP_GAIN_RATE", 0.005, "of the gains of the MLPs' outputs")


def x0_gate(sources: Sources, tunables: Tunables) -> Sources:
    """How much of the embedding comes back depends on the stream: 2 sigmoid(s mean(x))."""
    sources = adamw(sources, "[model.x0_gate]", "X0_GATE_RATE")
    model = model_parts(sources["model.py"], "self.x0_gate = nn.Parameter(torch.zeros(DEPTH))")
    model = edits.before(
        model, "x = self.residual_lambdas[layer] * x + ...",
        "x0_gate = 2 * torch.sigmoid(self.x0_gate[layer] * x.mean(dim=-1, keepdim=True))  # [B, T, 1], from 1",
        model_forward(model),
    )  # fmt: skip
    inside = model_forward(model)
    model = edits.swap(model, "self.x0_lambdas[layer] * x0", "self.x0_lambdas[layer] * x0_gate * x0", inside)
    return with_rate(sources | {"model.py": model}, "X0_GATE_RATE", tunables["rate"], "of the gates of the embedding")


def layer_pooling(sources: Sources, tunables: Tunables) -> Sources:
    sources = adamw(sources, "[model.pooled_weights]", "POOLED_RATE")
    model = edits.new_constant(sources["model.py"], "POOLED", tunables["layers"], "blocks before the last, added to it")
    model = model_parts(model, "self.pooled_weights = nn.Parameter(torch.zeros(DEPTH))")
    model = before_blocks(numbered(model), "pooled = 0.0  # the sum of earlier layers")
    model = after_each_block(
        model, """
        if DEPTH - 1 - POOLED <= layer < DEPTH - 1:
            pooled = pooled + self.pooled_weights[layer] * x
        """,
    )  # fmt: skip
    model = after_blocks(model, "x = x + pooled")
    return with_rate(sources | {"model.py": model}, "POOLED_RATE", tunables["rate"], "of the weights of earlier layers")


def backout(sources: Sources, tunables: Tunables) -> Sources:
    sources = adamw(sources, "[model.backout_weight]", "BACKOUT_RATE")
    model = edits.new_constant(sources["model.py"], "BACKOUT", tunables["weight"], "of the middle, at first")
    model = model_parts(model, "self.backout_weight = nn.Parameter(torch.full((WIDTH,), BACKOUT))")
    model = after_each_block(
        numbered(model), """
        if layer == DEPTH // 2 - 1:
            middle = x
        """,
    )  # fmt: skip
    model = after_blocks(model, "x = x - self.backout_weight.to(x.dtype) * middle  # what only the later blocks needed")
    return with_rate(sources | {"model.py": model}, "BACKOUT_RATE", 0.005, "of the weight of the middle")


def u_net_skips(sources: Sources, tunables: Tunables) -> Sources:
    sources = adamw(sources, "[model.skip_weights]", "SKIP_RATE")
    model = edits.new_constant(sources["model.py"], "SKIP_WEIGHT", tunables["weight"], "of mirrored layers, at first")
    model = model_parts(model, "self.skip_weights = nn.Parameter(torch.full((DEPTH,), SKIP_WEIGHT))")
    model = before_blocks(numbered(model), "outputs = []")
    model = before_each_block(
        model, """
        if 2 * layer >= DEPTH:
            x = x + self.skip_weights[layer] * outputs[DEPTH - 1 - layer]  # the last block takes from the first
        """,
    )  # fmt: skip
    model = after_each_block(model, "outputs.append(x)")
    return with_rate(sources | {"model.py": model}, "SKIP_RATE", 0.005, "of the weights of mirrored layers")


def output_init(sources: Sources, tunables: Tunables) -> Sources:
    model = edits.new_constant(
        sources["model.py"], "OUTPUT_INIT", tunables["factor"], "of 1 / sqrt(C), for what writes into the stream"
    )
    model = at_start(
        model, """
        for block in model.blocks:
            nn.init.normal_(block.attention.attention_output.weight, std=OUTPUT_INIT * WIDTH**-0.5)
            nn.init.normal_(block.mlp.contract.weight, std=OUTPUT_INIT * MLP_WIDTH**-0.5)
        """,
    )  # fmt: skip
    return sources | {"model.py": model}


def input_init(sources: Sources, tunables: Tunables) -> Sources:
    model = edits.swap(
        sources["model.py"], "bound = (3 / WIDTH) ** 0.5", "bound = INPUT_INIT * (3 / WIDTH) ** 0.5", "init_weights"
    )
    return sources | {
        "model.py": edits.new_constant(model, "INPUT_INIT", tunables["factor"], "of the usual size of first weights")
    }


def depth_scaled_stream(sources: Sources, tunables: Tunables) -> Sources:
    if "self.residual_lambdas" not in sources["model.py"]:
        raise DoesNotApply("the stream has no factors")
    model = at_start(
        sources["model.py"], """
        layers = torch.arange(DEPTH) / max(1, DEPTH - 1)
        model.residual_lambdas.copy_(FIRST_LAMBDA + layers * (LAST_LAMBDA - FIRST_LAMBDA))
        """,
    )  # fmt: skip
    model = edits.new_constant(model, "FIRST_LAMBDA", tunables["first"], "of the stream before the first block")
    model = edits.new_constant(model, "LAST_LAMBDA", tunables["last"], "of the stream before the last block")
    return sources | {"model.py": model}


TECHNIQUES = (
    Technique(
        name="width",
        title="another width of the residual stream",
        family="architecture",
        hypothesis="60 s pay for a fifth of the text of 300 s, for which 512 was found; a narrower model sees more.",
        source="Recursive 2026 (512 on an H100, 768 on a B200 at 300 s); parzival-gauntlet (640 on an H100)",
        apply=width,
        tunables=(Tunable("width", 384, choices=(256, 384, 512, 640, 768)),),
        prior_gain=0.0,
        prior_sd=0.012,
    ),
    Technique(
        name="depth",
        title="another number of blocks",
        family="architecture",
        hypothesis="At 60 s fewer blocks make more steps, and the steps are worth more than the blocks.",
        source="Kaplan et al. 2020, Scaling Laws for Neural Language Models; autoresearch (9 blocks at 300 s)",
        apply=constant_of("model.py", DEPTH="depth"),
        tunables=(Tunable("depth", 6, choices=(4, 5, 6, 7, 9, 10)),),
        prior_gain=0.005,
        prior_sd=0.01,
    ),
    Technique(
        name="mlp_width",
        title="another width of the MLP",
        family="architecture",
        hypothesis="Weights are better spent on the MLP, whose products are the fastest, than elsewhere.",
        source="Vaswani et al. 2017, Attention Is All You Need (table 3, rows C); Recursive 2026 (ratio 6)",
        apply=mlp_width,
        tunables=(Tunable("ratio", 5, choices=(3, 5, 6, 8)),),
        prior_gain=0.0,
        prior_sd=0.006,
    ),
    Technique(
        name="shifted_relu",
        title="squared ReLU with a threshold",
        family="architecture",
        hypothesis="A threshold above zero makes the hidden units sparser from the first step on.",
        source="Recursive 2026, First Steps Toward Automated AI Research (relu(h - 0.5) squared)",
        apply=shifted_relu,
        tunables=(Tunable("shift", 0.5, 0.1, 1.0),),
        prior_gain=0.001,
        prior_sd=0.004,
    ),
    Technique(
        name="swiglu",
        title="gated MLP",
        family="architecture",
        hypothesis="A product of two projections fits more a weight than a squared ReLU does.",
        source="Shazeer 2020, GLU Variants Improve Transformer; worse than squared ReLU in nanochat at both its depths",
        apply=swiglu,
        tunables=(Tunable("share", 0.66, choices=(0.5, 0.66, 1.0)),),
        prior_gain=-0.004,
        prior_sd=0.006,
        excludes=("shifted_relu", "relu_squared", "hidden_shift", "fused_relu_squared"),
    ),
    Technique(
        name="parallel_block",
        title="attention and MLP side by side",
        family="architecture",
        hypothesis="An MLP that does not wait for the attention loses nothing.",
        source="Wang and Komatsuzaki 2021, GPT-J-6B; worse by 0.011 bits per byte in autoresearch",
        apply=parallel_block,
        prior_gain=-0.011,
        prior_sd=0.006,
    ),
    Technique(
        name="mlp_output_norm",
        title="the output of each MLP is normalised",
        family="architecture",
        hypothesis="An MLP that adds a vector of one size to the stream, however its weights grow, takes larger steps.",
        source="Recursive 2026 (a norm behind the MLP alone); Ding et al. 2021, CogView (Sandwich-LN)",
        apply=mlp_output_norm,
        tunables=(Tunable("gain", 1.0, 0.1, 1.5, log=True),),
        prior_gain=0.002,
        prior_sd=0.006,
    ),
    Technique(
        name="x0_gate",
        title="the stream decides how much of the embedding returns",
        family="architecture",
        hypothesis="A gate by position lets a layer take the embedding where it needs the token and not elsewhere.",
        source="Recursive 2026, First Steps Toward Automated AI Research (gate of x0 from the mean of the stream)",
        apply=x0_gate,
        tunables=(Tunable("rate", 0.05, 0.005, 0.8, log=True),),
        prior_gain=0.001,
        prior_sd=0.003,
    ),
    Technique(
        name="layer_pooling",
        title="the head reads the last few layers",
        family="architecture",
        hypothesis="A learned sum of the last layers gives the head what the last block has written over.",
        source="Recursive 2026 (late-layer pooling); Pagliardini et al. 2024, DenseFormer",
        apply=layer_pooling,
        tunables=(Tunable("layers", 3, choices=(1, 2, 3)), Tunable("rate", 0.05, 0.005, 0.3, log=True)),
        prior_gain=0.001,
        prior_sd=0.004,
        excludes=("backout",),
    ),
    Technique(
        name="backout",
        title="the middle of the stream is taken out at the end",
        family="architecture",
        hypothesis="What the first half wrote for the second half only disturbs the head.",
        source="modded-nanogpt record 40 (backout); no gain in the first try of nanochat, kept in the second",
        apply=backout,
        tunables=(Tunable("weight", 0.2, 0.0, 0.5),),
        prior_gain=0.001,
        prior_sd=0.004,
        excludes=("layer_pooling",),
    ),
    Technique(
        name="u_net_skips",
        title="late blocks read mirrored early ones",
        family="architecture",
        hypothesis="Late blocks that get the outputs of early ones need not carry them through the middle.",
        source="modded-nanogpt records 11 and 45 (U-net skips); negative in nanochat",
        apply=u_net_skips,
        tunables=(Tunable("weight", 0.0, 0.0, 0.5),),
        prior_gain=-0.001,
        prior_sd=0.004,
    ),
    Technique(
        name="output_init",
        title="output projections do not begin at zero",
        family="architecture",
        hypothesis="Blocks that say something from the first step on pass gradients to their insides a step earlier.",
        source="modded-nanogpt record 64 (1.2 s of 100 s); autoresearch (worse: 0.9738 against 0.9727)",
        apply=output_init,
        tunables=(Tunable("factor", 0.3, 0.03, 1.0, log=True),),
        prior_gain=-0.001,
        prior_sd=0.003,
        excludes=("zero_init",),
    ),
    Technique(
        name="input_init",
        title="smaller first weights",
        family="architecture",
        hypothesis="Orthogonal steps have one size; smaller first weights are turned sooner.",
        source="autoresearch (initial scale x 0.68: 0.0008 bits per byte at 300 s)",
        apply=input_init,
        tunables=(Tunable("factor", 0.68, 0.3, 1.5, log=True),),
        prior_gain=0.0008,
        prior_sd=0.002,
    ),
    Technique(
        name="depth_scaled_stream",
        title="the stream begins scaled by depth",
        family="architecture",
        hypothesis="A stream that is damped from block to block gives late blocks a say from the first step on.",
        source="nanochat (residual lambdas, 1.15 falling to 1.05 in its later rounds)",
        apply=depth_scaled_stream,
        tunables=(Tunable("first", 1.15, 0.9, 1.3), Tunable("last", 1.0, 0.7, 1.1)),
        prior_gain=0.0,
        prior_sd=0.003,
    ),
    Technique(
        name="x0_weight",
        title="another first weight of the embedding in every block",
        family="architecture",
        hypothesis="More of the embedding before every block frees the stream sooner.",
        source="autoresearch and nanochat (x0 lambdas: 0.0103 bits per byte at depth 8)",
        apply=constant_of("model.py", X0_LAMBDA="weight"),
        tunables=(Tunable("weight", 0.2, 0.0, 0.5),),
        prior_gain=0.0,
        prior_sd=0.002,
    ),
    Technique(
        name="softcap_level",
        title="another bound of the scores",
        family="architecture",
        hypothesis="The bound of the scores fixes how sure the model may be; the best is not where it stands.",
        source="modded-nanogpt record 18 (30 to 15); autoresearch (flat from 13 to 20); nanochat (20 at depth 24)",
        apply=constant_of("model.py", SOFTCAP="cap"),
        tunables=(Tunable("cap", 20.0, 8.0, 40.0, log=True),),
        prior_gain=0.0,
        prior_sd=0.002,
        excludes=("logit_softcap",),
    ),
    Technique(
        name="values_everywhere",
        title="values by token in every layer",
        family="architecture",
        hypothesis="Tables of values are nearly free to read; twice as many hold twice as much of the vocabulary.",
        source="autoresearch (value embeddings on alternate layers; fewer lose 0.003 to 0.007 bits per byte)",
        apply=constant_of("model.py", VALUE_EVERY="every"),
        tunables=(Tunable("every", 1, choices=(1, 4)),),
        prior_gain=0.001,
        prior_sd=0.004,
    ),
)
