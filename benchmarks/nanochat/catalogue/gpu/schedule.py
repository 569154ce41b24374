"""Techniques over the budget: the rate, the size of a batch, the length of rows; and the weights that are handed in."""

from __future__ import annotations

from benchmarks import edits
from benchmarks.catalogue import Sources, Technique, Tunable, Tunables
from benchmarks.edits import DoesNotApply
from benchmarks.nanochat.catalogue.gpu.places import (
    LAST_PASS_BEGINS,
    SUBMIT,
    is_modern,
    whole_number,
    with_last_pass,
    without,
)

RATE = "learning_rate"  # the function of optim.py
LINEAR = "(1 - progress) / WARMDOWN"
FULL_BATCH, TINY_BATCH = 2**19, 2**15  # tokens a step: of the starts; what only a start at tiny size stays below
MOST_ROWS = 64  # a pass
CLOCK = "tokens = harness.start_clock()..."
STEPPED = "step += 1"


def scaled(sources: Sources, tokens: int) -> int:
    """The batch that is meant: a start at tiny size has as much less than a start at full size."""
    batch = whole_number(sources["train.py"], "BATCH_TOKENS")
    return tokens if batch >= TINY_BATCH else max(1, tokens * batch // FULL_BATCH)


def batch_tokens(sources: Sources, tunables: Tunables) -> Sources:
    """Passes of at most 64 rows, so that a step of 2^17 tokens is one pass."""
    tokens = scaled(sources, int(tunables["tokens"]))
    train = edits.constant(sources["train.py"], "BATCH_TOKENS", tokens)
    return sources | {"train.py": edits.constant(train, "DEVICE_ROWS", device_rows(sources, tokens))}


def device_rows(sources: Sources, tokens: int) -> int:
    return max(1, min(MOST_ROWS, tokens // whole_number(sources["model.py"], "SEQUENCE_LENGTH")))


def batch_schedule(sources: Sources, tunables: Tunables) -> Sources:
    early, late = (scaled(sources, int(tunables[name])) for name in ("early", "late"))
    definition = """
        def batch_tokens(progress):  # 0..1 of the budget -> tokens a step
            return EARLY_BATCH_TOKENS if progress < EARLY_UNTIL else BATCH_TOKENS
    """
    train = edits.define_before(sources["train.py"], "train_step", definition)
    train = edits.swap(train, "BATCH_TOKENS // (", "batch_tokens(progress) // (", "train_step")
    train = edits.constant(train, "BATCH_TOKENS", late)
    train = edits.constant(train, "DEVICE_ROWS", device_rows(sources, early))
    train = edits.new_constant(train, "EARLY_BATCH_TOKENS", early, "a step, at first")
    return sources | {"train.py": edits.new_constant(train, "EARLY_UNTIL", tunables["until"], "of the budget")}


def short_rows_first(sources: Sources, tunables: Tunables) -> Sources:
    train = edits.before(
        sources["train.py"], "loss = loss_function(model, inputs, targets) / passes", """
        if progress < SHORT_ROWS_UNTIL:
            inputs = inputs.reshape(-1, SHORT_ROW)
            targets = targets.reshape(-1, SHORT_ROW)
        """, "train_step",
    )  # fmt: skip
    train = edits.swap(train, "for _ in range(WARM_UP_STEPS):", "for warm in range(2 * WARM_UP_STEPS):", "warm_up")
    train = edits.swap(train, ", 0.0)", ", float(warm % 2))", "warm_up")  # both lengths are compiled
    line = f"SHORT_ROW = ROW_LENGTH // {tunables['parts']}  # tokens; a row is cut into so many more"
    train = edits.after(train, "ROW_LENGTH = ...", line)
    train = edits.new_constant(train, "SHORT_ROWS_UNTIL", tunables["until"], "of the budget")
    model = sources["model.py"]
    if "elif mask is not None and" in model:  # masks are made for rows of full length
        full = "elif mask is not None and length == SEQUENCE_LENGTH and"
        model = edits.swap(model, "elif mask is not None and", full)
    return sources | {"model.py": model, "train.py": train}


def warmdown(sources: Sources, tunables: Tunables) -> Sources:
    """In `vanilla` it takes the place of the cosine."""
    optim = sources["optim.py"]
    line = "warmdown = max(RATE_FLOOR, min(1.0, (1 - progress) / WARMDOWN))"
    if is_modern(sources["model.py"]):
        optim = edits.swap(optim, "max(0.0, min(", "max(RATE_FLOOR, min(", RATE)
        optim = edits.constant(optim, "WARMDOWN", tunables["share"])
    else:
        optim = edits.replace(optim, "cosine = ...", line, RATE)
        optim = edits.swap(optim, "(FINAL_RATE + (1 - FINAL_RATE) * cosine)", "warmdown", RATE)
        optim = edits.replace(optim, "FINAL_RATE = ...", f"WARMDOWN = {tunables['share']!r}  # of the budget")
        if optim.count("math.") == 0:
            optim = without(optim, "import math", "").replace("\n\n\nimport torch", "\n\nimport torch", 1)
    return sources | {"optim.py": edits.new_constant(optim, "RATE_FLOOR", tunables["floor"], "of a rate, at the end")}


def cooldown_power(sources: Sources, tunables: Tunables) -> Sources:
    optim = edits.swap(sources["optim.py"], LINEAR, "(max(0.0, 1 - progress) / WARMDOWN) ** COOLDOWN_POWER", RATE)
    comment = "of the line by which rates fall: above 1 sooner"
    return sources | {"optim.py": edits.new_constant(optim, "COOLDOWN_POWER", tunables["power"], comment)}


def matrix_warmdown(sources: Sources, tunables: Tunables) -> Sources:
    definition = """
        def matrix_learning_rate(progress):  # 0..1 of the budget -> factor of the rate of the matrices
            return max(MATRIX_FLOOR, min(1.0, (1 - progress) / MATRIX_WARMDOWN))
    """
    optim = edits.define_before(sources["optim.py"], "weight_decay", definition)
    optim = edits.swap(
        optim, 'factor * group["rate"], weight_decay(progress)',
        'matrix_learning_rate(progress) * group["rate"], weight_decay(progress)', "MuonAdamW.step",
    )  # fmt: skip
    optim = edits.new_constant(optim, "MATRIX_WARMDOWN", tunables["share"], "of the budget, for the matrices alone")
    comment = "of the rate of the matrices, at the end"
    return sources | {"optim.py": edits.new_constant(optim, "MATRIX_FLOOR", tunables["floor"], comment)}


def rate_warm_up(sources: Sources, tunables: Tunables) -> Sources:
    optim = edits.swap(sources["optim.py"], "return max(", "return min(1.0, progress / RATE_WARM_UP) * max(", RATE)
    return sources | {"optim.py": edits.new_constant(optim, "RATE_WARM_UP", tunables["share"], "of the budget")}


def averaged(train: str, lines: str) -> str:
    """Hand in an average of the weights, kept in float32, that `lines` bring up to date after each step."""
    first = """
        average = [p.detach().float().clone() for p in model.parameters()]
        averaged = 0  # weights in it
    """
    train = edits.before(train, CLOCK, first, "main")
    train = edits.before(train, STEPPED, lines, "main")
    last = "torch._foreach_copy_([p.detach() for p in model.parameters()], average)"
    return edits.before(train, SUBMIT, last, "main")


def tail_average(sources: Sources, tunables: Tunables) -> Sources:
    lines = """
        if progress / STOP_AT > AVERAGE_FROM and step % AVERAGE_EVERY == 0:
            averaged += 1
            torch._foreach_lerp_(average, [p.detach().float() for p in model.parameters()], 1 / averaged)
    """
    train = averaged(sources["train.py"], lines)
    train = edits.new_constant(train, "AVERAGE_FROM", tunables["start"], "of the budget")
    return sources | {"train.py": edits.new_constant(train, "AVERAGE_EVERY", 2, "steps")}


def moving_average(sources: Sources, tunables: Tunables) -> Sources:
    lines = """
        if step % AVERAGE_EVERY == 0:
            averaged += 1
            weight = max(1 / averaged, AVERAGE_EVERY / AVERAGE_SPAN)
            torch._foreach_lerp_(average, [p.detach().float() for p in model.parameters()], weight)
    """
    train = averaged(sources["train.py"], lines)
    train = edits.new_constant(train, "AVERAGE_SPAN", tunables["span"], "steps that count in the average")
    return sources | {"train.py": edits.new_constant(train, "AVERAGE_EVERY", 2, "steps")}


def last_pass(sources: Sources, tunables: Tunables) -> Sources:
    if LAST_PASS_BEGINS in sources["train.py"]:
        raise DoesNotApply("the last pass through the text is a whole one already")
    return with_last_pass(sources, float(tunables["share"]))


TECHNIQUES = (
    Technique(
        name="batch_tokens",
        title="another number of tokens a step",
        family="schedule",
        hypothesis="In 60 s there are too few steps of 2^19 tokens; steps of 2^17 and fewer learn more from a token.",
        source="McCandlish et al. 2018, An Empirical Model of Large-Batch Training; autoresearch (half a batch: 0.0119 "
        "bits per byte at 300 s, its largest gain)",
        apply=batch_tokens,
        tunables=(Tunable("tokens", 2**17, choices=(2**15, 2**16, 2**17, 2**18)),),
        prior_gain=0.04,
        prior_sd=0.01,
        excludes=("batch_schedule",),
    ),
    Technique(
        name="batch_schedule",
        title="small batches first",
        family="schedule",
        hypothesis="Early gradients agree and want many small steps, late ones want larger batches.",
        source="Smith et al. 2018, Don't Decay the Learning Rate, Increase the Batch Size; modded-nanogpt record 46; "
        "Recursive 2026 (accumulation 1 to 2 at half of the budget)",
        apply=batch_schedule,
        tunables=(
            Tunable("early", 2**16, choices=(2**15, 2**16, 2**17)),
            Tunable("late", 2**17, choices=(2**17, 2**18, 2**19)),
            Tunable("until", 0.4, 0.1, 0.8),
        ),
        prior_gain=0.04,
        prior_sd=0.012,
        excludes=("batch_tokens",),
    ),
    Technique(
        name="short_rows_first",
        title="short rows first",
        family="schedule",
        hypothesis="Most is learned from near tokens at first, so rows cut into short ones make cheaper early steps.",
        source="Li et al. 2022, The Stability-Efficiency Dilemma; modded-nanogpt record 72 (896 to 2048)",
        apply=short_rows_first,
        tunables=(Tunable("parts", 2, choices=(2, 4)), Tunable("until", 0.5, 0.1, 0.9)),
        prior_gain=0.001,
        prior_sd=0.004,
    ),
    Technique(
        name="warmdown",
        title="another warm-down of the rates",
        family="schedule",
        hypothesis="Rates that fall over most of the budget, and not to zero, end lower.",
        source="Zhai et al. 2022, Scaling Vision Transformers; autoresearch (0.5 to 0.75, floor 5 %); Recursive 2026",
        apply=warmdown,
        tunables=(Tunable("share", 0.75, 0.2, 1.0), Tunable("floor", 0.05, choices=(0.0, 0.02, 0.05, 0.1))),
        prior_gain=0.003,
        prior_sd=0.005,
    ),
    Technique(
        name="cooldown_power",
        title="rates that fall along a curve",
        family="schedule",
        hypothesis="Rates that fall fast at first and stay low for long end lower than on a line.",
        source="Hägele et al. 2024, Scaling Laws and Compute-Optimal Training Beyond Fixed Training Durations",
        apply=cooldown_power,
        tunables=(Tunable("power", 1.4, 0.5, 3.0, log=True),),
        prior_gain=0.0,
        prior_sd=0.003,
    ),
    Technique(
        name="matrix_warmdown",
        title="a warm-down of its own for the matrices",
        family="schedule",
        hypothesis="Matrices want to slow down from the first steps on, tables and head only in the second half.",
        source="Recursive 2026 (0.95 for Muon with a floor of 5 %, 0.65 for Adam)",
        apply=matrix_warmdown,
        tunables=(Tunable("share", 0.95, 0.3, 1.0), Tunable("floor", 0.05, choices=(0.0, 0.02, 0.05, 0.1))),
        prior_gain=0.002,
        prior_sd=0.004,
    ),
    Technique(
        name="rate_warm_up",
        title="rates that grow first",
        family="schedule",
        hypothesis="Small first steps keep tables from jumping while nothing is known.",
        source="Vaswani et al. 2017; any warm-up hurts in autoresearch; parzival-gauntlet (5 % on an H100)",
        apply=rate_warm_up,
        tunables=(Tunable("share", 0.02, 0.005, 0.1, log=True),),
        prior_gain=-0.001,
        prior_sd=0.003,
    ),
    Technique(
        name="last_pass",
        title="a last pass through the whole text",
        family="schedule",
        hypothesis="Text that comes again while the rates fall is remembered, not learned from; read twice at the "
        "start it does no harm, and the last steps see nothing twice.",
        source="Muennighoff et al. 2023, Scaling Data-Constrained Language Models (what repeated text is worth); our "
        "record of bigram_values at gpu-60s (0.3 nats lower on repeated text, 2.5 % worse on other text)",
        apply=last_pass,
        tunables=(Tunable("share", 0.97, 0.8, 1.0),),
        prior_gain=0.002,
        prior_sd=0.004,
    ),
    Technique(
        name="tail_average",
        title="average of the last weights",
        family="evaluation",
        hypothesis="The average of the weights over the last part of the budget scores better than the last ones.",
        source="Izmailov et al. 2018, Averaging Weights; negative in nanochat, where rates fall to zero",
        apply=tail_average,
        tunables=(Tunable("start", 0.9, 0.6, 0.97),),
        prior_gain=-0.001,
        prior_sd=0.004,
        excludes=("moving_average",),
    ),
    Technique(
        name="moving_average",
        title="exponential moving average of the weights",
        family="evaluation",
        hypothesis="A moving average of the weights stands nearer to the minimum than the last steps do.",
        source="Polyak and Juditsky 1992; Recursive 2026 (0.98 a step from half of the budget, in its vanilla run)",
        apply=moving_average,
        tunables=(Tunable("span", 30, 6, 200, log=True, integer=True),),
        prior_gain=0.001,
        prior_sd=0.004,
        excludes=("tail_average",),
    ),
)
