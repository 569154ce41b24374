"""Techniques that change over the budget: the learning rate, Adam's momenta, the shape of a batch."""

from __future__ import annotations

from benchmarks import edits
from benchmarks.catalogue import Sources, Technique, Tunable, Tunables

RATE = "learning_rate"  # the function of optim.py
LEARNING_RATE = 'group["lr"] = ...'  # in the loop of train.py, once a group
COMPUTE_LOSS = "loss = compute_loss(..."


def warmdown(sources: Sources, tunables: Tunables) -> Sources:
    line = "warmdown = max(RATE_FLOOR, min(1.0, (1.0 - progress) / WARMDOWN))"
    return _shaped(
        sources, "warmdown", line, WARMDOWN=(tunables["share"], "of the budget"), RATE_FLOOR=_floor(tunables)
    )


def cosine(sources: Sources, tunables: Tunables) -> Sources:
    line = "cosine = RATE_FLOOR + (1.0 - RATE_FLOOR) * (0.5 + 0.5 * math.cos(math.pi * min(1.0, progress)))"
    sources = sources | {"optim.py": edits.new_import(sources["optim.py"], "import math")}
    return _shaped(sources, "cosine", line, RATE_FLOOR=_floor(tunables))


def inverse_square_root(sources: Sources, tunables: Tunables) -> Sources:
    line = "slowdown = (1.0 + progress / SLOWDOWN) ** -0.5"
    comment = "of the budget, after which the rate has fallen by a factor of 1.4"
    return _shaped(sources, "slowdown", line, SLOWDOWN=(tunables["share"], comment))


def _floor(tunables: Tunables) -> tuple[object, str]:
    return tunables["floor"], "of the learning rate"


def _shaped(sources: Sources, name: str, line: str, **constants: tuple[object, str]) -> Sources:
    """Multiply the learning rate by a factor of the progress."""
    optim = edits.before(sources["optim.py"], "return ...", line, RATE)
    optim = edits.swap(optim, "return LEARNING_RATE", f"return LEARNING_RATE * {name}", RATE)
    for constant, (value, comment) in constants.items():
        optim = edits.new_constant(optim, constant, value, comment)
    return sources | {"optim.py": optim}


def warmup_length(sources: Sources, tunables: Tunables) -> Sources:
    return sources | {"optim.py": edits.constant(sources["optim.py"], "WARMUP", tunables["share"])}


def momentum_warmup(sources: Sources, tunables: Tunables) -> Sources:
    definition = """
        def warm_momentum(group, progress):
            if "betas" in group:
                beta1, _ = group.setdefault("last_betas", group["betas"])
                share = min(1.0, progress / MOMENTUM_WARMUP)
                group["betas"] = (FIRST_MOMENTUM + share * (beta1 - FIRST_MOMENTUM), group["betas"][1])
    """
    train = edits.after(sources["train.py"], LEARNING_RATE, "warm_momentum(group, progress)", "main")
    train = edits.define_before(train, "main", definition)
    train = edits.new_constant(train, "MOMENTUM_WARMUP", tunables["share"], "of the budget")
    train = edits.new_constant(train, "FIRST_MOMENTUM", tunables["start"], "grows to BETA1")
    return sources | {"train.py": train}


def second_moment_growth(sources: Sources, tunables: Tunables) -> Sources:
    lines = """
        if "betas" in group:
            group["betas"] = (group["betas"][0], 1.0 - (step + 2) ** -SECOND_MOMENT_POWER)
    """
    train = edits.after(sources["train.py"], LEARNING_RATE, lines, "main")
    comment = "the memory of the second moment is steps to this power"
    train = edits.new_constant(train, "SECOND_MOMENT_POWER", tunables["power"], comment)
    return sources | {"train.py": train}


def weight_decay_schedule(sources: Sources, tunables: Tunables) -> Sources:
    lines = """
        first_decay = group.setdefault("first_decay", group["weight_decay"])
        group["weight_decay"] = first_decay * DECAY_SCALE * (1.0 - progress)
    """
    train = edits.after(sources["train.py"], LEARNING_RATE, lines, "main")
    train = edits.new_constant(train, "DECAY_SCALE", tunables["scale"], "of the weight decay, at first; 0 in the end")
    return sources | {"train.py": train}


def batch_size_schedule(sources: Sources, tunables: Tunables) -> Sources:
    lines = """
        if progress < FEW_ROWS_UNTIL:
            inputs, targets = inputs[:FEW_ROWS], targets[:FEW_ROWS]
    """
    train = edits.before(sources["train.py"], COMPUTE_LOSS, lines, "main")
    train = edits.constant(train, "BATCH_SIZE", tunables["late"])
    train = edits.new_constant(train, "FEW_ROWS", tunables["early"], "rows a step at first")
    train = edits.new_constant(train, "FEW_ROWS_UNTIL", tunables["until"], "of the budget")
    return sources | {"train.py": train}


def short_rows_first(sources: Sources, tunables: Tunables) -> Sources:
    lines = """
        if progress < SHORT_ROWS_UNTIL:
            inputs, targets = inputs.reshape(-1, SHORT_ROW), targets.reshape(-1, SHORT_ROW)
    """
    train = edits.before(sources["train.py"], COMPUTE_LOSS, lines, "main")
    train = edits.new_constant(train, "SHORT_ROW", tunables["length"], "bytes; a row is cut into so many more")
    train = edits.new_constant(train, "SHORT_ROWS_UNTIL", tunables["until"], "of the budget")
    return sources | {"train.py": train}


TECHNIQUES = (
    Technique(
        name="warmdown",
        title="linear warm-down of the learning rate",
        family="schedule",
        hypothesis="Letting the rate fall linearly over the last part of the budget lowers the final loss.",
        source="Zhai et al. 2022, Scaling Vision Transformers; modded-nanogpt records",
        apply=warmdown,
        tunables=(Tunable("share", 0.3, 0.1, 1.0), Tunable("floor", 0.05, choices=(0.0, 0.05, 0.1, 0.2))),
        prior_gain=0.04,
        prior_sd=0.02,
        excludes=("cosine", "inverse_square_root"),
        tuned_here=True,
    ),
    Technique(
        name="cosine",
        title="cosine learning rate",
        family="schedule",
        hypothesis="A learning rate that falls along a half cosine lowers the final loss.",
        source="Loshchilov and Hutter 2017, SGDR: Stochastic Gradient Descent with Warm Restarts",
        apply=cosine,
        tunables=(Tunable("floor", 0.05, choices=(0.0, 0.05, 0.1, 0.2)),),
        prior_gain=-0.02,
        prior_sd=0.03,
        excludes=("warmdown", "inverse_square_root"),
    ),
    Technique(
        name="inverse_square_root",
        title="learning rate falling with the square root of time",
        family="schedule",
        hypothesis="A rate that falls with the inverse square root of the time trained lowers the final loss.",
        source="Vaswani et al. 2017, Attention Is All You Need",
        apply=inverse_square_root,
        tunables=(Tunable("share", 0.2, 0.05, 1.0, log=True),),
        prior_gain=-0.03,
        prior_sd=0.03,
        excludes=("warmdown", "cosine"),
    ),
    Technique(
        name="warmup_length",
        title="another length of the warm-up",
        family="schedule",
        hypothesis="A shorter warm-up wastes fewer steps at low rates and lowers the final loss.",
        source="modded-nanogpt and autoresearch records: any warm-up hurts",
        apply=warmup_length,
        tunables=(Tunable("share", 0.02, 0.002, 0.3, log=True),),
        prior_gain=0.0,
        prior_sd=0.01,
    ),
    Technique(
        name="momentum_warmup",
        title="momentum that grows",
        family="schedule",
        hypothesis="Less momentum over the first part of the budget lets early gradients act at once.",
        source="Jordan et al. 2024, modded-nanogpt: momentum warm-up of Muon",
        apply=momentum_warmup,
        tunables=(Tunable("start", 0.7, choices=(0.5, 0.7, 0.8)), Tunable("share", 0.3, 0.05, 1.0)),
        prior_gain=0.005,
        prior_sd=0.01,
    ),
    Technique(
        name="second_moment_growth",
        title="a second moment with a growing memory",
        family="schedule",
        hypothesis="A second moment that remembers more the longer training lasts lowers the final loss.",
        source="Shazeer and Stern 2018, Adafactor: Adaptive Learning Rates with Sublinear Memory Cost",
        apply=second_moment_growth,
        tunables=(Tunable("power", 0.8, 0.4, 1.0),),
        prior_gain=0.0,
        prior_sd=0.005,
    ),
    Technique(
        name="weight_decay_schedule",
        title="weight decay that falls to zero",
        family="schedule",
        hypothesis="Weight decay helps early and hurts late, so letting it fall to zero lowers the final loss.",
        source="modded-nanogpt record 43; autoresearch",
        apply=weight_decay_schedule,
        tunables=(Tunable("scale", 2.0, choices=(1.0, 2.0, 4.0)),),
        prior_gain=0.002,
        prior_sd=0.008,
    ),
    Technique(
        name="batch_size_schedule",
        title="small batches first",
        family="schedule",
        hypothesis="Small batches early and larger ones late use the budget better than one size.",
        source="Smith et al. 2018, Don't Decay the Learning Rate, Increase the Batch Size; modded-nanogpt record 46",
        apply=batch_size_schedule,
        tunables=(
            Tunable("early", 4, choices=(2, 4)),
            Tunable("late", 8, choices=(8, 16)),
            Tunable("until", 0.6, 0.2, 0.9),
        ),
        prior_gain=0.015,
        prior_sd=0.02,
        excludes=("batch_size",),
    ),
    Technique(
        name="short_rows_first",
        title="short rows first",
        family="schedule",
        hypothesis="Most is learned from near bytes at first, so rows cut into short ones make cheaper steps early on.",
        source="Li et al. 2022, The Stability-Efficiency Dilemma: sequence length warmup",
        apply=short_rows_first,
        tunables=(Tunable("length", 32, choices=(16, 32)), Tunable("until", 0.4, 0.1, 0.8)),
        prior_gain=0.0,
        prior_sd=0.01,
    ),
)
