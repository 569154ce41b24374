"""Techniques of the data and the loss: how rows are drawn, what is learned from them, which weights are handed in."""

from __future__ import annotations

from collections.abc import Callable

from benchmarks import edits
from benchmarks.catalogue import Sources, Technique, Tunable, Tunables

LOOP = "while progress + step_share < STOP_AT:"
COMPUTE_LOSS = "loss = compute_loss(..."
STEP_DONE = "step += 1"
SUBMIT = "harness.submit(model.state_dict())"
CROSS_ENTROPY = "F.cross_entropy(scores, targets"


def constant_of_train(name: str, tunable: str) -> Callable[[Sources, Tunables], Sources]:
    """A technique that sets one constant of train.py."""

    def apply(sources: Sources, tunables: Tunables) -> Sources:
        return sources | {"train.py": edits.constant(sources["train.py"], name, tunables[tunable])}

    return apply


def row_length(sources: Sources, tunables: Tunables) -> Sources:
    line = f"ROW_LENGTH = {tunables['length']}  # bytes a row, fewer than in scoring"
    return sources | {"train.py": edits.replace(sources["train.py"], "ROW_LENGTH = ...", line)}


def aligned_rows(sources: Sources, tunables: Tunables) -> Sources:
    line = "windows = windows[::ROW_LENGTH]  # rows that do not overlap"
    return sources | {"train.py": edits.after(sources["train.py"], "windows = tokens.unfold(...", line, "main")}


def rows_once(sources: Sources, tunables: Tunables) -> Sources:
    sources = aligned_rows(sources, tunables)
    definition = """
        def shuffled(count, generator):  # all rows in a random order, again and again -> [B]
            while True:
                yield from torch.randperm(count, generator=generator).split(BATCH_SIZE)
    """
    train = edits.define_before(sources["train.py"], "main", definition)
    train = edits.after(
        train, "windows = windows[::ROW_LENGTH]...", "order = shuffled(len(windows), generator)", "main"
    )
    train = edits.swap(train, "sample_batch(windows, generator)", "sample_batch(windows, order)", "main")
    train = edits.swap(train, "def sample_batch(windows, generator)", "def sample_batch(windows, order)")
    train = edits.replace(train, "starts = torch.randint(...", "starts = next(order)", "sample_batch")
    return sources | {"train.py": train}


def token_noise(sources: Sources, tunables: Tunables) -> Sources:
    lines = """
        noisy = torch.rand(inputs.shape, generator=generator) < NOISE
        inputs = torch.where(noisy, inputs.flip(0), inputs)  # bytes of another row
    """
    train = edits.before(sources["train.py"], COMPUTE_LOSS, lines, "main")
    train = edits.new_constant(train, "NOISE", tunables["share"], "of the input bytes is wrong in training")
    return sources | {"train.py": train}


def label_smoothing(sources: Sources, tunables: Tunables) -> Sources:
    smoothed = f"{CROSS_ENTROPY}, label_smoothing=SMOOTHING"
    train = edits.swap(sources["train.py"], CROSS_ENTROPY, smoothed, "compute_loss")
    train = edits.new_constant(train, "SMOOTHING", tunables["share"], "of the label goes to all bytes")
    return sources | {"train.py": train}


def z_loss(sources: Sources, tunables: Tunables) -> Sources:
    line = "z_loss = scores.logsumexp(dim=-1).square().mean()"
    train = edits.before(sources["train.py"], "return ...", line, "compute_loss")
    train = edits.swap(train, "return ", "return Z_WEIGHT * z_loss + ", "compute_loss")
    train = edits.new_constant(train, "Z_WEIGHT", tunables["weight"], "keeps the scores normalised")
    return sources | {"train.py": train}


def late_loss(sources: Sources, tunables: Tunables) -> Sources:
    line = "scores, targets = scores[:, LOSS_FROM:], targets[:, LOSS_FROM:]"
    train = edits.before(sources["train.py"], "scores = scores.flatten(0, 1)", line, "compute_loss")
    train = edits.new_constant(train, "LOSS_FROM", tunables["position"], "bytes with less context teach nothing")
    return sources | {"train.py": train}


def multi_token_prediction(sources: Sources, tunables: Tunables) -> Sources:
    head = "self.ahead = nn.Linear(WIDTH, VOCAB_SIZE, bias=False)  # the byte after the next, in training alone"
    model = edits.after(sources["model.py"], "self.head = ...", head, "Transformer.__init__")
    ahead = "self.ahead_scores = self.ahead(final_output) if self.training else None"
    model = edits.after(model, "scores = self.head(...", ahead, "Transformer.forward")
    loss = "ahead_loss = F.cross_entropy(model.ahead_scores[:, :-1].flatten(0, 1), targets[:, 1:].flatten())"
    train = edits.after(sources["train.py"], "scores = model(inputs)...", loss, "compute_loss")
    train = edits.swap(train, "return ", "return AHEAD_WEIGHT * ahead_loss + ", "compute_loss")
    train = edits.new_constant(train, "AHEAD_WEIGHT", tunables["weight"], "of the loss on the byte after the next")
    return sources | {"model.py": model, "train.py": train}


def tail_average(sources: Sources, tunables: Tunables) -> Sources:
    lines = """
        if progress > AVERAGE_FROM and step % AVERAGE_EVERY == 0:
            averaged += 1
            torch._foreach_lerp_(average, [p.detach() for p in model.parameters()], 1 / averaged)
    """
    train = _averaged(sources["train.py"], lines)
    train = edits.new_constant(train, "AVERAGE_FROM", tunables["start"], "of the budget")
    train = edits.new_constant(train, "AVERAGE_EVERY", 4, "steps")
    return sources | {"train.py": train}


def moving_average(sources: Sources, tunables: Tunables) -> Sources:
    lines = """
        if step % AVERAGE_EVERY == 0:
            averaged += 1
            weight = max(1 / averaged, AVERAGE_EVERY / AVERAGE_SPAN)
            torch._foreach_lerp_(average, [p.detach() for p in model.parameters()], weight)
    """
    train = _averaged(sources["train.py"], lines)
    train = edits.new_constant(train, "AVERAGE_SPAN", tunables["span"], "steps that count in the average")
    train = edits.new_constant(train, "AVERAGE_EVERY", 4, "steps")
    return sources | {"train.py": train}


def _averaged(train: str, lines: str) -> str:
    """Hand in an average of the weights that `lines` keeps after each step."""
    first = """
        average = [p.detach().clone() for p in model.parameters()]
        averaged = 0
    """
    train = edits.before(train, LOOP, first, "main")
    train = edits.before(train, STEP_DONE, lines, "main")
    last = "torch._foreach_copy_([p.detach() for p in model.parameters()], average)"
    return edits.before(train, SUBMIT, last, "main")


def lookahead(sources: Sources, tunables: Tunables) -> Sources:
    lines = """
        if step % LOOKAHEAD_EVERY == 0:
            fast = [p.detach() for p in model.parameters()]
            torch._foreach_lerp_(slow, fast, LOOKAHEAD_SHARE)
            torch._foreach_copy_(fast, slow)
    """
    train = edits.before(sources["train.py"], LOOP, "slow = [p.detach().clone() for p in model.parameters()]", "main")
    train = edits.after(train, "optimizer.step()", lines, "main")
    train = edits.new_constant(train, "LOOKAHEAD_EVERY", tunables["every"], "steps")
    train = edits.new_constant(train, "LOOKAHEAD_SHARE", tunables["share"], "of the way the slow weights follow")
    return sources | {"train.py": train}


def flush_denormals(sources: Sources, tunables: Tunables) -> Sources:
    line = "torch.set_flush_denormal(True)  # numbers below 1e-38 are slow"
    train = edits.after(sources["train.py"], "torch.set_num_threads(THREADS)", line, "main")
    return sources | {"train.py": train}


TECHNIQUES = (
    Technique(
        name="batch_size",
        title="another batch size",
        family="data",
        hypothesis="Another batch size strikes a better balance between the noise of a step and the number of steps.",
        source="McCandlish et al. 2018, An Empirical Model of Large-Batch Training",
        apply=constant_of_train("BATCH_SIZE", "rows"),
        tunables=(Tunable("rows", 6, 3, 16, log=True, integer=True),),
        prior_gain=0.0,
        prior_sd=0.03,
        excludes=("batch_size_schedule",),
        tuned_here=True,
    ),
    Technique(
        name="row_length",
        title="shorter rows in training",
        family="data",
        hypothesis="Shorter rows make cheaper steps, and what they do not teach of far bytes is worth less.",
        source="Press et al. 2021, Shortformer: Better Language Modeling using Shorter Inputs",
        apply=row_length,
        tunables=(Tunable("length", 96, choices=(64, 96)),),
        prior_gain=-0.15,
        prior_sd=0.05,
    ),
    Technique(
        name="aligned_rows",
        title="rows that do not overlap",
        family="data",
        hypothesis="Rows cut at fixed places repeat less text within the budget and lower the loss.",
        source="Karpathy 2025, nanochat: aligned rows",
        apply=aligned_rows,
        prior_gain=0.0,
        prior_sd=0.006,
        excludes=("rows_once",),
    ),
    Technique(
        name="rows_once",
        title="each row once",
        family="data",
        hypothesis="Drawing rows without replacement shows more different text in the budget and lowers the loss.",
        source="Bottou 2009, Curiously Fast Convergence of some Stochastic Gradient Descent Algorithms",
        apply=rows_once,
        prior_gain=0.0,
        prior_sd=0.006,
        excludes=("aligned_rows",),
    ),
    Technique(
        name="token_noise",
        title="some wrong bytes in the input",
        family="data",
        hypothesis="A few wrong input bytes keep the model from leaning on the last byte alone.",
        source="Xie et al. 2017, Data Noising as Smoothing in Neural Network Language Models",
        apply=token_noise,
        tunables=(Tunable("share", 0.02, 0.002, 0.2, log=True),),
        prior_gain=-0.01,
        prior_sd=0.01,
    ),
    Technique(
        name="label_smoothing",
        title="label smoothing",
        family="data",
        hypothesis="Smoothed labels lower the loss on text that was not trained on.",
        source="Szegedy et al. 2016, Rethinking the Inception Architecture",
        apply=label_smoothing,
        tunables=(Tunable("share", 0.01, 0.001, 0.1, log=True),),
        prior_gain=-0.005,
        prior_sd=0.01,
    ),
    Technique(
        name="z_loss",
        title="a loss on the normaliser",
        family="data",
        hypothesis="Holding the log of the normaliser near zero keeps high learning rates stable and lowers the loss.",
        source="Chowdhery et al. 2022, PaLM: Scaling Language Modeling with Pathways",
        apply=z_loss,
        tunables=(Tunable("weight", 1e-4, 1e-5, 1e-2, log=True),),
        prior_gain=-0.03,
        prior_sd=0.01,
    ),
    Technique(
        name="late_loss",
        title="no loss on the first bytes of a row",
        family="data",
        hypothesis="Bytes with hardly any context teach little, so leaving them out lowers the loss.",
        source="Press et al. 2021, Shortformer: Better Language Modeling using Shorter Inputs",
        apply=late_loss,
        tunables=(Tunable("position", 8, choices=(8, 32, 64)),),
        prior_gain=-0.02,
        prior_sd=0.01,
    ),
    Technique(
        name="multi_token_prediction",
        title="predict the byte after the next too",
        family="data",
        hypothesis="A second head that predicts one byte further on makes the shared features better.",
        source="Gloeckle et al. 2024, Better & Faster Large Language Models via Multi-token Prediction",
        apply=multi_token_prediction,
        tunables=(Tunable("weight", 0.2, 0.02, 1.0, log=True),),
        prior_gain=-0.04,
        prior_sd=0.02,
    ),
    Technique(
        name="tail_average",
        title="average of the last weights",
        family="evaluation",
        hypothesis="The average of the weights over the last part of the budget scores better than the last ones.",
        source="Izmailov et al. 2018, Averaging Weights Leads to Wider Optima and Better Generalization",
        apply=tail_average,
        tunables=(Tunable("start", 0.8, 0.5, 0.97),),
        prior_gain=0.04,
        prior_sd=0.02,
        excludes=("moving_average",),
    ),
    Technique(
        name="moving_average",
        title="exponential moving average of the weights",
        family="evaluation",
        hypothesis="A moving average of the weights scores better than the last ones.",
        source="Polyak and Juditsky 1992, Acceleration of Stochastic Approximation by Averaging",
        apply=moving_average,
        tunables=(Tunable("span", 100, 20, 500, log=True, integer=True),),
        prior_gain=0.04,
        prior_sd=0.02,
        excludes=("tail_average",),
        tuned_here=True,
    ),
    Technique(
        name="lookahead",
        title="slow weights that follow fast ones",
        family="optimizer",
        hypothesis="Pulling the weights back to a slow average every few steps lowers the final loss.",
        source="Zhang et al. 2019, Lookahead Optimizer: k steps forward, 1 step back",
        apply=lookahead,
        tunables=(Tunable("every", 5, choices=(5, 10)), Tunable("share", 0.8, choices=(0.5, 0.8))),
        prior_gain=-0.01,
        prior_sd=0.02,
    ),
    Technique(
        name="flush_denormals",
        title="flush tiny numbers to zero",
        family="data",
        hypothesis="Arithmetic on numbers below 1e-38 is slow on a CPU; rounding them to zero buys steps.",
        source="PyTorch documentation, torch.set_flush_denormal",
        apply=flush_denormals,
        prior_sd=0.005,
    ),
    Technique(
        name="fewer_logs",
        title="fewer points in the log",
        family="data",
        hypothesis="Writing a point only every 100 steps buys steps.",
        source="PyTorch performance tuning guide: avoid needless synchronisation",
        apply=constant_of_train("LOG_EVERY", "steps"),
        tunables=(Tunable("steps", 100, choices=(50, 100, 200)),),
        prior_sd=0.003,
    ),
    Technique(
        name="stop_later",
        title="stop nearer to the deadline",
        family="schedule",
        hypothesis="Handing in the weights takes less than the share kept for it, so there is time for more steps.",
        source="Karpathy 2026, autoresearch: the whole budget is for steps",
        apply=constant_of_train("STOP_AT", "share"),
        tunables=(Tunable("share", 0.99, choices=(0.985, 0.99, 0.995)),),
        prior_gain=0.001,
        prior_sd=0.003,
    ),
)
