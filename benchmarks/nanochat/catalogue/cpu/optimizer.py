"""Techniques of the optimizer: its constants, rates of single groups, and other update rules.

Several bring the same piece of text (`apart`, `flat`, `OwnAdamW`): the first one adds it, the next one finds it there.
"""

from __future__ import annotations

from collections.abc import Callable

from benchmarks import edits
from benchmarks.catalogue import Sources, Technique, Tunable, Tunables
from benchmarks.nanochat.catalogue.cpu.update_rules import APART, FLAT, LION, MUON, OWN_ADAMW, SCHEDULE_FREE

OPTIMIZER = "optimizer = ..."  # the line that makes it
GATHER = "optimizer.register_step_pre_hook(gather)"
BUILD = "build_optimizer"


def constant_of_optim(name: str, tunable: str) -> Callable[[Sources, Tunables], Sources]:
    """A technique that sets one constant of optim.py."""

    def apply(sources: Sources, tunables: Tunables) -> Sources:
        return sources | {"optim.py": edits.constant(sources["optim.py"], name, tunables[tunable])}

    return apply


def adam_betas(sources: Sources, tunables: Tunables) -> Sources:
    optim = edits.constant(sources["optim.py"], "BETA1", tunables["beta1"])
    return sources | {"optim.py": edits.constant(optim, "BETA2", tunables["beta2"])}


def with_definition(source: str, name: str, definition: str) -> str:
    """Add a definition above the first function, unless another technique brought it."""
    if f"\n{definition.strip()}\n" in source:
        return source
    return edits.define_before(source, name, definition)


def with_rate_scale(sources: Sources) -> Sources:
    """Let a group scale the rate of the schedule by its `rate_scale`."""
    scaled = 'group["lr"] = rate * group.get("rate_scale", 1.0)'
    if edits.has(sources["train.py"], scaled, "main"):
        return sources
    return sources | {"train.py": edits.replace(sources["train.py"], 'group["lr"] = rate', scaled, "main")}


def with_flat(optim: str, line: str = "") -> str:
    """Let the optimizer work on one vector a group; `line` makes another one than AdamW of such vectors."""
    if line:
        optim = edits.without_comment(optim, OPTIMIZER, BUILD)
        optim = edits.replace(optim, "optimizer = torch.optim.AdamW(...", line, BUILD)
    else:
        optim = edits.swap(optim, "torch.optim.AdamW(groups,", "torch.optim.AdamW(flat(groups),", BUILD)
    if edits.has(optim, GATHER, BUILD):
        return optim
    return with_definition(edits.after(optim, OPTIMIZER, GATHER, BUILD), BUILD, FLAT)


def with_own_adamw(optim: str) -> str:
    """Put the written-out AdamW in the place of torch's, unless it is there."""
    if edits.has(optim, "class OwnAdamW...") and edits.has(optim, "optimizer = OwnAdamW(...", BUILD):
        return optim
    line = "optimizer = OwnAdamW(flat(groups), lr=LEARNING_RATE, betas=(BETA1, BETA2), eps=EPSILON)"
    return edits.define_before(with_flat(optim, line), BUILD, OWN_ADAMW)


def embedding_learning_rate(sources: Sources, tunables: Tunables) -> Sources:
    optim = with_definition(sources["optim.py"], BUILD, APART)
    lines = """
        tables = [p for name, p in model.named_parameters() if "embedding" in name and "position" not in name]
        groups = apart(groups, tables, rate_scale=EMBEDDING_RATE_SCALE)
    """
    optim = edits.after(optim, "groups = [", lines, BUILD)
    optim = edits.new_constant(optim, "EMBEDDING_RATE_SCALE", tunables["scale"], "of the learning rate")
    return with_rate_scale(sources | {"optim.py": optim})


def head_learning_rate(sources: Sources, tunables: Tunables) -> Sources:
    optim = with_definition(sources["optim.py"], BUILD, APART)
    lines = "groups = apart(groups, model.head.parameters(), rate_scale=HEAD_RATE_SCALE)"
    optim = edits.after(optim, "groups = [", lines, BUILD)
    optim = edits.new_constant(optim, "HEAD_RATE_SCALE", tunables["scale"], "of the learning rate")
    return with_rate_scale(sources | {"optim.py": optim})


def embedding_decay_off(sources: Sources, tunables: Tunables) -> Sources:
    optim = with_definition(sources["optim.py"], BUILD, APART)
    lines = """
        tables = [p for name, p in model.named_parameters() if "embedding" in name]
        groups = apart(groups, tables, weight_decay=EMBEDDING_DECAY)
    """
    optim = edits.after(optim, "groups = [", lines, BUILD)
    optim = edits.new_constant(optim, "EMBEDDING_DECAY", tunables["decay"], "weight decay of the embeddings")
    return sources | {"optim.py": optim}


def flat_parameters(sources: Sources, tunables: Tunables) -> Sources:
    if edits.has(sources["optim.py"], GATHER, BUILD):
        raise edits.DoesNotApply("the optimizer works on flat parameters already")
    return sources | {"optim.py": with_flat(sources["optim.py"])}


def muon(sources: Sources, tunables: Tunables) -> Sources:
    optim = with_definition(sources["optim.py"], BUILD, MUON)
    hidden = """
        blocks = [(name, p) for name, p in model.named_parameters() if name.startswith("blocks.") and p.ndim == 2]
        hidden = [p for name, p in blocks if "embedding" not in name]
        groups = [group | {"params": [p for p in group["params"] if p not in set(hidden)]} for group in groups]
    """
    optim = edits.after(optim, "groups = [", hidden, BUILD)
    optim = edits.replace(optim, "return optimizer", "return Together(optimizer, Muon(hidden))", BUILD)
    optim = edits.new_constant(optim, "NEWTON_SCHULZ", (3.4445, -4.7750, 2.0315), "a fast quintic: Jordan et al. 2024")
    optim = edits.new_constant(
        optim, "NEWTON_SCHULZ_STEPS", int(tunables["steps"]), "each costs 2 % of a training step"
    )
    optim = edits.new_constant(optim, "MUON_MOMENTUM", tunables["momentum"], "of the hidden matrices")
    optim = edits.new_constant(optim, "MUON_SIZE", tunables["size"], "of an update, as a share of one of Adam's")
    return sources | {"optim.py": optim}


def normuon(sources: Sources, tunables: Tunables) -> Sources:
    sources = muon(sources, tunables)
    lines = """
        rows = group.setdefault("rows", torch.zeros_like(update[..., :1]))
        size = update.norm(dim=(-2, -1), keepdim=True)
        rows.lerp_(update.square().mean(dim=-1, keepdim=True), 1 - NORMUON_BETA2)  # [n, r, 1]
        update = update / (rows.sqrt() + 1e-7)
        update = update * (size / (update.norm(dim=(-2, -1), keepdim=True) + 1e-7))
    """
    optim = edits.after(sources["optim.py"], "update = orthogonal(...", lines, "Muon.step")
    optim = edits.new_constant(optim, "NORMUON_BETA2", 0.95, "of the second moment of a row")
    return sources | {"optim.py": optim}


def cautious_update(sources: Sources, tunables: Tunables) -> Sources:
    optim = with_own_adamw(sources["optim.py"])
    lines = """
        agree = (update * gradient > 0).to(update.dtype)
        update = update * agree / agree.mean().clamp_(min=CAUTIOUS_FLOOR)
    """
    optim = edits.before(optim, "decay = ...", lines, "OwnAdamW.update")
    comment = "of the agreeing share, by which the rest is scaled up"
    return sources | {"optim.py": edits.new_constant(optim, "CAUTIOUS_FLOOR", 0.1, comment)}


def cautious_weight_decay(sources: Sources, tunables: Tunables) -> Sources:
    optim = with_own_adamw(sources["optim.py"])
    line = "decay.mul_(update * p > 0)  # only where the update shrinks the weight too"
    return sources | {"optim.py": edits.after(optim, "decay = p * ...", line, "OwnAdamW.update")}


def nesterov_adam(sources: Sources, tunables: Tunables) -> Sources:
    optim = with_own_adamw(sources["optim.py"])
    line = "direction = direction.lerp(gradient, 1 - beta1)  # Nesterov: one step ahead"
    return sources | {"optim.py": edits.after(optim, "direction = momentum / ...", line, "OwnAdamW.update")}


def lion(sources: Sources, tunables: Tunables) -> Sources:
    line = "optimizer = Lion(flat(groups), lr=LEARNING_RATE, betas=(BETA1, LION_BETA2))"
    optim = edits.define_before(with_flat(sources["optim.py"], line), BUILD, LION)
    optim = edits.new_constant(optim, "LION_BETA2", 0.98, "of the momentum that is kept")
    optim = edits.new_constant(optim, "LION_RATE_SCALE", tunables["scale"], "of the learning rate")
    return sources | {"optim.py": optim}


def schedule_free(sources: Sources, tunables: Tunables) -> Sources:
    line = "optimizer = ScheduleFree(flat(groups), LEARNING_RATE, AVERAGE_SHARE, BETA2, EPSILON)"
    optim = edits.define_before(with_flat(sources["optim.py"], line), BUILD, SCHEDULE_FREE)
    comment = "of the average in the point where the gradient is taken"
    optim = edits.new_constant(optim, "AVERAGE_SHARE", tunables["beta"], comment)
    optim = edits.new_constant(optim, "AVERAGE_POWER", tunables["power"], "late steps count more in the average")
    train = edits.before(sources["train.py"], "harness.submit(model.state_dict())", "optimizer.finish()", "main")
    return sources | {"optim.py": optim, "train.py": train}


def gradient_clipping(sources: Sources, tunables: Tunables) -> Sources:
    line = "torch.nn.utils.clip_grad_norm_(model.parameters(), CLIP_NORM)"
    train = edits.before(sources["train.py"], "optimizer.step()", line, "main")
    train = edits.new_constant(train, "CLIP_NORM", tunables["norm"], "of the whole gradient")
    return sources | {"train.py": train}


TECHNIQUES = (
    Technique(
        name="learning_rate",
        title="another learning rate",
        family="optimizer",
        hypothesis="A higher learning rate reaches a lower loss within the budget.",
        source="Smith 2017, Cyclical Learning Rates for Training Neural Networks",
        apply=constant_of_optim("LEARNING_RATE", "rate"),
        tunables=(Tunable("rate", 8e-3, 2e-3, 2e-2, log=True),),
        prior_gain=0.01,
        prior_sd=0.03,
        tuned_here=True,
    ),
    Technique(
        name="adam_betas",
        title="other Adam momenta",
        family="optimizer",
        hypothesis="Less momentum and a second moment with a longer memory than 20 steps lower the loss.",
        source="Kingma and Ba 2015, Adam: A Method for Stochastic Optimization",
        apply=adam_betas,
        tunables=(Tunable("beta1", 0.8, 0.6, 0.95), Tunable("beta2", 0.98, 0.9, 0.999)),
        prior_gain=0.005,
        prior_sd=0.01,
        tuned_here=True,
    ),
    Technique(
        name="weight_decay",
        title="another weight decay",
        family="optimizer",
        hypothesis="Less than one epoch needs no regularisation, so without weight decay the loss falls faster.",
        source="Loshchilov and Hutter 2019, Decoupled Weight Decay Regularization",
        apply=constant_of_optim("WEIGHT_DECAY", "decay"),
        tunables=(Tunable("decay", 0.0, choices=(0.0, 0.01, 0.03, 0.3, 1.0)),),
        prior_gain=0.005,
        prior_sd=0.01,
    ),
    Technique(
        name="epsilon",
        title="another epsilon of Adam",
        family="optimizer",
        hypothesis="A larger epsilon damps the updates of bytes that are seldom seen and lowers the loss.",
        source="Wortsman et al. 2023, Small-scale proxies for large-scale Transformer training instabilities",
        apply=constant_of_optim("EPSILON", "epsilon"),
        tunables=(Tunable("epsilon", 1e-6, 1e-12, 1e-3, log=True),),
        prior_gain=0.0,
        prior_sd=0.003,
    ),
    Technique(
        name="embedding_learning_rate",
        title="a learning rate of its own for the embeddings",
        family="optimizer",
        hypothesis="Embedding rows get few gradients each, so a higher rate for them lowers the loss.",
        source="Yang et al. 2022, Tensor Programs V; modded-nanogpt records",
        apply=embedding_learning_rate,
        tunables=(Tunable("scale", 1.6, 0.5, 4.0, log=True),),
        prior_gain=0.0,
        prior_sd=0.01,
        tuned_here=True,
    ),
    Technique(
        name="head_learning_rate",
        title="a learning rate of its own for the head",
        family="optimizer",
        hypothesis="The head learns byte frequencies first, so a rate of its own lowers the loss.",
        source="Yang et al. 2022, Tensor Programs V; modded-nanogpt records",
        apply=head_learning_rate,
        tunables=(Tunable("scale", 0.5, 0.1, 5.0, log=True),),
        prior_gain=0.0,
        prior_sd=0.005,
    ),
    Technique(
        name="embedding_decay_off",
        title="no weight decay on embeddings",
        family="optimizer",
        hypothesis="Weight decay shrinks rows of bytes that are seldom seen; embeddings without it give a lower loss.",
        source="nanochat, tiny weight decay on embeddings",
        apply=embedding_decay_off,
        tunables=(Tunable("decay", 0.0, choices=(0.0, 0.001, 0.01)),),
        prior_gain=0.0,
        prior_sd=0.005,
    ),
    Technique(
        name="flat_parameters",
        title="one vector a group for the optimizer",
        family="optimizer",
        hypothesis="Laying parameters side by side makes the update one operation and buys at least 1 % more steps.",
        source="Rajbhandari et al. 2020, ZeRO (flattened parameter groups)",
        apply=flat_parameters,
        prior_gain=0.003,
        prior_sd=0.005,
    ),
    Technique(
        name="muon",
        title="Muon for the hidden matrices",
        family="optimizer",
        hypothesis="Orthogonal momentum on hidden matrices gains more a step than the Newton-Schulz steps cost.",
        source="Jordan et al. 2024, Muon; Liu et al. 2025, Muon is Scalable for LLM Training",
        apply=muon,
        tunables=(
            Tunable("size", 0.4, 0.1, 1.5, log=True),
            Tunable("momentum", 0.9, 0.8, 0.98),
            Tunable("steps", 3, 2, 5, integer=True),
        ),
        prior_gain=0.02,
        prior_sd=0.02,
        excludes=("normuon",),
        tuned_here=True,
    ),
    Technique(
        name="normuon",
        title="Muon with rows normalised",
        family="optimizer",
        hypothesis="Orthogonal momentum with a second moment for each row beats AdamW there in equal time.",
        source="Li et al. 2025, NorMuon: Making Muon more efficient and scalable",
        apply=normuon,
        tunables=(
            Tunable("size", 0.4, 0.1, 1.5, log=True),
            Tunable("momentum", 0.9, 0.8, 0.98),
            Tunable("steps", 3, 2, 5, integer=True),
        ),
        prior_gain=0.03,
        prior_sd=0.02,
        excludes=("muon",),
        tuned_here=True,
    ),
    Technique(
        name="cautious_update",
        title="cautious updates",
        family="optimizer",
        hypothesis="Updates only where momentum and gradient agree in sign lower the loss.",
        source="Liang et al. 2024, Cautious Optimizers: Improving Training with One Line of Code",
        apply=cautious_update,
        prior_gain=0.0,
        prior_sd=0.01,
        excludes=("lion",),
    ),
    Technique(
        name="cautious_weight_decay",
        title="cautious weight decay",
        family="optimizer",
        hypothesis="Decay only where the update shrinks the weight too keeps its benefit without its cost.",
        source="Chen et al. 2025, Cautious Weight Decay",
        apply=cautious_weight_decay,
        prior_gain=0.002,
        prior_sd=0.005,
        excludes=("lion",),
    ),
    Technique(
        name="nesterov_adam",
        title="Adam with Nesterov momentum",
        family="optimizer",
        hypothesis="A momentum that looks one step ahead lowers the loss in so few steps.",
        source="Dozat 2016, Incorporating Nesterov Momentum into Adam",
        apply=nesterov_adam,
        prior_gain=0.005,
        prior_sd=0.01,
        excludes=("lion",),
    ),
    Technique(
        name="lion",
        title="Lion in the place of AdamW",
        family="optimizer",
        hypothesis="The sign of the momentum as update is cheaper than Adam and reaches the same loss sooner.",
        source="Chen et al. 2023, Symbolic Discovery of Optimization Algorithms",
        apply=lion,
        tunables=(Tunable("scale", 0.2, 0.03, 1.0, log=True),),
        prior_gain=-0.08,
        prior_sd=0.04,
        excludes=("cautious_update", "cautious_weight_decay", "nesterov_adam"),
        tuned_here=True,
    ),
    Technique(
        name="schedule_free",
        title="schedule-free AdamW",
        family="optimizer",
        hypothesis="Gradients taken near a running average of the weights make a falling rate unnecessary.",
        source="Defazio et al. 2024, The Road Less Scheduled",
        apply=schedule_free,
        tunables=(Tunable("beta", 0.9, 0.8, 0.98), Tunable("power", 12.0, 0.0, 20.0)),
        prior_gain=0.025,
        prior_sd=0.02,
        excludes=(
            *("lion", "cautious_update", "cautious_weight_decay", "nesterov_adam", "muon", "normuon"),
            *("warmdown", "cosine", "inverse_square_root", "tail_average", "moving_average", "lookahead"),
            *("momentum_warmup", "second_moment_growth"),
        ),
        tuned_here=True,
    ),
    Technique(
        name="gradient_clipping",
        title="gradient clipping",
        family="optimizer",
        hypothesis="Clipping the gradient's norm lowers the loss by cutting off steps on outlying rows.",
        source="Pascanu et al. 2013, On the difficulty of training recurrent neural networks",
        apply=gradient_clipping,
        tunables=(Tunable("norm", 1.0, 0.1, 10.0, log=True),),
        prior_gain=-0.006,
        prior_sd=0.008,
    ),
)
