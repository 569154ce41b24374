"""Techniques of the optimizers of `modern`: rates of its groups, Muon's momentum, Adam's moments, decay."""

from __future__ import annotations

from benchmarks import edits
from benchmarks.catalogue import Sources, Technique, Tunable, Tunables
from benchmarks.nanochat.catalogue.gpu.places import constant_of

STEP = "MuonAdamW.step"
MUON = "muon_update"
ADAMW = "adamw_update"
ORTHOGONAL = "update = orthogonalise(update).float()"
TABLES_RATE = 'EMBEDDING_RATE * width_scale, "beta1": BETA1'


def momentum_cooldown(sources: Sources, tunables: Tunables) -> Sources:
    definition = """
        def momentum_drop(progress):  # 0..1 of the budget -> how far the momentum of the matrices has come down
            return MOMENTUM_DROP * max(0.0, 1 - (1 - progress) / MOMENTUM_COOLDOWN) ** 2
    """
    optim = edits.define_before(sources["optim.py"], "orthogonalise", definition)
    optim = edits.swap(optim, "momentum(self.steps - 1)", "momentum(self.steps - 1) - momentum_drop(progress)", STEP)
    optim = edits.new_constant(optim, "MOMENTUM_DROP", tunables["drop"], "of the momentum of the matrices, at the end")
    optim = edits.new_constant(optim, "MOMENTUM_COOLDOWN", tunables["share"], "of the budget")
    return sources | {"optim.py": optim}


def cautious_adam(sources: Sources, tunables: Tunables) -> Sources:
    lines = """
        agrees = (update * gradient > 0).float()
        cautious = update * agrees / agrees.mean().clamp(min=1e-3)  # as long as before on the whole
        update = update + CAUTION * (cautious - update)
    """
    optim = edits.before(sources["optim.py"], "weight.copy_(...", lines, ADAMW)
    comment = "of the updates of AdamW goes only where they agree with the gradient"
    return sources | {"optim.py": edits.new_constant(optim, "CAUTION", tunables["strength"], comment)}


def nesterov_adam(sources: Sources, tunables: Tunables) -> Sources:
    line = "ahead = beta1 * average + (1 - beta1) * gradient  # Nesterov: one step ahead"
    optim = edits.before(sources["optim.py"], "update = (average / fade1)...", line, ADAMW)
    return sources | {"optim.py": edits.swap(optim, "(average / fade1)", "(ahead / fade1)", ADAMW)}


def beta1_decay(sources: Sources, tunables: Tunables) -> Sources:
    beta1 = 'beta1 = group["beta1"]'
    optim = edits.swap(sources["optim.py"], beta1, f"{beta1} - BETA1_DROP * progress", STEP)
    comment = "of the first momentum of AdamW, little by little to the end"
    return sources | {"optim.py": edits.new_constant(optim, "BETA1_DROP", tunables["drop"], comment)}


def embedding_floor(sources: Sources, tunables: Tunables) -> Sources:
    optim = edits.swap(sources["optim.py"], '{"params": tables, ', '{"params": tables, "floor": EMBEDDING_FLOOR, ')
    floored = 'scalar(max(factor, group.get("floor", 0.0)) * group["rate"], beta1'
    optim = edits.swap(optim, 'scalar(factor * group["rate"], beta1', floored, STEP)
    comment = "of the rate of the tables stays to the end"
    return sources | {"optim.py": edits.new_constant(optim, "EMBEDDING_FLOOR", tunables["floor"], comment)}


def table_momentum(sources: Sources, tunables: Tunables) -> Sources:
    optim = edits.swap(sources["optim.py"], TABLES_RATE, TABLES_RATE.replace("BETA1", "EMBEDDING_BETA1"))
    return sources | {"optim.py": edits.new_constant(optim, "EMBEDDING_BETA1", tunables["beta1"], "of the tables")}


def table_decay(sources: Sources, tunables: Tunables) -> Sources:
    optim = edits.before(
        sources["optim.py"], "weight.copy_(weight - rate * update)", """
        if weight.ndim == 2:  # tables and the head, not scalars
            update = update + TABLE_DECAY * weight
        """, ADAMW,
    )  # fmt: skip
    return sources | {"optim.py": edits.new_constant(optim, "TABLE_DECAY", tunables["decay"], "of tables and head")}


def constant_decay(sources: Sources, tunables: Tunables) -> Sources:
    optim = edits.replace(sources["optim.py"], "return WEIGHT_DECAY...", "return WEIGHT_DECAY", "weight_decay")
    return sources | {"optim.py": edits.constant(optim, "WEIGHT_DECAY", tunables["decay"])}


def decay_pulses(sources: Sources, tunables: Tunables) -> Sources:
    lines = """
        pulse = max(0.0, 1 - abs(progress - PULSE_AT) / PULSE_WIDTH)  # a triangle
        return (1 + PULSE * pulse) * WEIGHT_DECAY * max(0.0, 1 - progress)
    """
    optim = edits.replace(sources["optim.py"], "return WEIGHT_DECAY...", lines, "weight_decay")
    optim = edits.new_constant(optim, "PULSE", tunables["height"], "times the decay more, at the height of the pulse")
    optim = edits.new_constant(optim, "PULSE_AT", tunables["at"], "of the budget")
    return sources | {"optim.py": edits.new_constant(optim, "PULSE_WIDTH", 0.05, "of the budget, each side")}


def polynomial_steps(sources: Sources, tunables: Tunables) -> Sources:
    optim = edits.swap(sources["optim.py"], "in POLYNOMIALS:", "in POLYNOMIALS[:POLYNOMIAL_STEPS]:", "orthogonalise")
    comment = "of the polynomials: a rougher step, sooner"
    return sources | {"optim.py": edits.new_constant(optim, "POLYNOMIAL_STEPS", tunables["steps"], comment)}


def row_normalised(sources: Sources, tunables: Tunables) -> Sources:
    line = "update = update / (update.norm(dim=-1, keepdim=True) + 1e-10)  # rows of one length"
    return sources | {"optim.py": edits.before(sources["optim.py"], ORTHOGONAL, line, MUON)}


def heads_apart(sources: Sources, tunables: Tunables) -> Sources:
    """Queries, keys and values are stacked head by head, so that each head's matrix is orthogonalised on its own."""
    optim = edits.swap(sources["optim.py"], "(rows // 3, columns)", "(rows // 3 // HEADS, columns)", "matrix_shape")
    return sources | {"optim.py": edits.new_import(optim, "from model import HEADS")}


def exploration_noise(sources: Sources, tunables: Tunables) -> Sources:
    lines = """
        noise = EXPLORATION * max(0.0, 1 - progress / EXPLORE_UNTIL)
        if noise > 0:  # as a share of the usual size of an entry of a step
            size = factor * group["rate"] * max(weight.shape[-2:]) ** -0.5
            weight.add_(torch.randn_like(weight), alpha=noise * size)
    """
    optim = edits.before(sources["optim.py"], 'unstack(weight, group["params"])', lines, STEP)
    optim = edits.new_constant(optim, "EXPLORATION", tunables["noise"], "of a step of the matrices is noise, at first")
    return sources | {"optim.py": edits.new_constant(optim, "EXPLORE_UNTIL", tunables["until"], "of the budget")}


TECHNIQUES = (
    Technique(
        name="matrix_rate",
        title="another rate of the matrices",
        family="optimizer",
        hypothesis="Four times as many steps, or four times as few, want another step of the matrices than 0.04.",
        source="Jordan et al. 2024, Muon; parzival-gauntlet (0.05 on an H100)",
        apply=constant_of("optim.py", MATRIX_RATE="rate"),
        tunables=(Tunable("rate", 0.03, 0.008, 0.12, log=True),),
        prior_gain=0.002,
        prior_sd=0.008,
    ),
    Technique(
        name="embedding_rate",
        title="another rate of the tables",
        family="optimizer",
        hypothesis="In 60 s a token is seen seldom, so its rows must move further at a time.",
        source="autoresearch (0.6 to 0.9: 0.0033 bits per byte at 300 s)",
        apply=constant_of("optim.py", EMBEDDING_RATE="rate"),
        tunables=(Tunable("rate", 0.9, 0.1, 2.0, log=True),),
        prior_gain=0.003,
        prior_sd=0.006,
    ),
    Technique(
        name="head_rate",
        title="another rate of the head",
        family="optimizer",
        hypothesis="A head that moves faster finds the frequent tokens within the first steps.",
        source="autoresearch and nanochat (0.004); Recursive 2026 (0.004)",
        apply=constant_of("optim.py", HEAD_RATE="rate"),
        tunables=(Tunable("rate", 0.008, 0.001, 0.03, log=True),),
        prior_gain=0.001,
        prior_sd=0.005,
    ),
    Technique(
        name="scalar_rates",
        title="other rates of the scalars of the stream",
        family="optimizer",
        hypothesis="Few steps leave the lambdas of the stream near where they began; larger ones let them move.",
        source="autoresearch (0.005 and 0.5); Recursive 2026 (0.008 and 0.8)",
        apply=constant_of("optim.py", VECTOR_RATE="vectors", X0_RATE="x0"),
        tunables=(Tunable("vectors", 0.01, 0.001, 0.1, log=True), Tunable("x0", 0.8, 0.05, 2.0, log=True)),
        prior_gain=0.0,
        prior_sd=0.002,
    ),
    Technique(
        name="adam_betas",
        title="other momenta of AdamW",
        family="optimizer",
        hypothesis="Tables and head want a longer memory of their second moment at small batches.",
        source="Kingma and Ba 2015, Adam; autoresearch (0.8 and 0.95)",
        apply=constant_of("optim.py", BETA1="beta1", BETA2="beta2"),
        tunables=(Tunable("beta1", 0.7, 0.0, 0.95), Tunable("beta2", 0.98, choices=(0.9, 0.95, 0.98, 0.99, 0.999))),
        prior_gain=0.001,
        prior_sd=0.004,
    ),
    Technique(
        name="muon_momentum",
        title="another momentum of Muon",
        family="optimizer",
        hypothesis="The momentum of 0.95, reached after 300 steps, is too slow for runs of a few hundred steps.",
        source="modded-nanogpt record 9 (momentum warm-up); autoresearch (0.0003 bits per byte); Recursive 2026",
        apply=constant_of("optim.py", MOMENTUM="momentum", FIRST_MOMENTUM="first", MOMENTUM_WARMUP="steps"),
        tunables=(
            Tunable("momentum", 0.95, 0.85, 0.98),
            Tunable("first", 0.85, 0.6, 0.95),
            Tunable("steps", 100, 20, 600, log=True, integer=True),
        ),
        prior_gain=0.001,
        prior_sd=0.004,
    ),
    Technique(
        name="momentum_cooldown",
        title="less momentum at the end",
        family="schedule",
        hypothesis="While the rate falls, an old average of gradients points past the minimum.",
        source="Recursive 2026 (0.95 to 0.79 over the warm-down); modded-nanogpt (momentum cool-down)",
        apply=momentum_cooldown,
        tunables=(Tunable("drop", 0.1, 0.02, 0.25), Tunable("share", 0.5, 0.05, 1.0)),
        prior_gain=0.001,
        prior_sd=0.003,
    ),
    Technique(
        name="variance_memory",
        title="another memory of NorMuon's row lengths",
        family="optimizer",
        hypothesis="Row lengths averaged over more than twenty steps are less noisy at small batches.",
        source="Li et al. 2025, NorMuon; Recursive 2026 (0.95 to 0.97)",
        apply=constant_of("optim.py", VARIANCE_BETA="beta"),
        tunables=(Tunable("beta", 0.98, choices=(0.9, 0.97, 0.98, 0.99)),),
        prior_gain=0.0,
        prior_sd=0.002,
    ),
    Technique(
        name="cautious_adam",
        title="AdamW moves where momentum and gradient agree",
        family="optimizer",
        hypothesis="Rows of tables are seen seldom; moving on with an old momentum against the gradient loses.",
        source="Liang et al. 2024, Cautious Optimizers; Recursive 2026 (strength 0.5 on tables)",
        apply=cautious_adam,
        tunables=(Tunable("strength", 0.5, 0.1, 1.0),),
        prior_gain=0.001,
        prior_sd=0.003,
    ),
    Technique(
        name="nesterov_adam",
        title="AdamW with Nesterov momentum",
        family="optimizer",
        hypothesis="A momentum that looks one step ahead lowers the loss in so few steps.",
        source="Dozat 2016, Incorporating Nesterov Momentum into Adam",
        apply=nesterov_adam,
        prior_gain=0.0,
        prior_sd=0.003,
    ),
    Technique(
        name="beta1_decay",
        title="AdamW's momentum falls to the end",
        family="schedule",
        hypothesis="Less momentum late in training lets tables and head settle on what the gradient says now.",
        source="Chen et al. 2022, Demon: Improved Neural Network Training with Momentum Decay; Recursive 2026",
        apply=beta1_decay,
        tunables=(Tunable("drop", 0.25, 0.05, 0.5),),
        prior_gain=0.0005,
        prior_sd=0.002,
    ),
    Technique(
        name="embedding_floor",
        title="tables keep some of their rate to the end",
        family="schedule",
        hypothesis="A rare token that comes late in the run must still move its row.",
        source="Recursive 2026 (no decay of the rate of n-gram tables; a warm-down of 0.08 in its vanilla run)",
        apply=embedding_floor,
        tunables=(Tunable("floor", 0.3, 0.05, 1.0),),
        prior_gain=0.001,
        prior_sd=0.005,
    ),
    Technique(
        name="table_momentum",
        title="RMSProp for the tables",
        family="optimizer",
        hypothesis="Rows of tables get a gradient every few steps, which momentum smears over steps that do not know "
        "them.",
        source="Recursive 2026 (RMSProp without momentum for its tables); Hinton 2012, lecture 6e",
        apply=table_momentum,
        tunables=(Tunable("beta1", 0.0, 0.0, 0.7),),
        prior_gain=0.001,
        prior_sd=0.004,
    ),
    Technique(
        name="table_decay",
        title="a little decay of tables and head",
        family="optimizer",
        hypothesis="Rows of frequent tokens grow with their steps; a little decay keeps them apart.",
        source="autoresearch (0.001 to 0.01: together 0.0017 bits per byte at 300 s)",
        apply=table_decay,
        tunables=(Tunable("decay", 0.003, 0.0003, 0.03, log=True),),
        prior_gain=0.001,
        prior_sd=0.002,
    ),
    Technique(
        name="matrix_decay",
        title="another decay of the matrices",
        family="optimizer",
        hypothesis="Less than one epoch needs little decay, and at many more steps a tenth does what 0.2 does at few.",
        source="Chen et al. 2025, Cautious Weight Decay; Recursive 2026 (0.1)",
        apply=constant_of("optim.py", WEIGHT_DECAY="decay"),
        tunables=(Tunable("decay", 0.1, choices=(0.0, 0.05, 0.1, 0.4)),),
        prior_gain=0.0005,
        prior_sd=0.003,
        excludes=("constant_decay",),
    ),
    Technique(
        name="constant_decay",
        title="decay that does not fall",
        family="schedule",
        hypothesis="Decay times a falling rate fades by itself; letting the decay fall as well wastes it.",
        source="Loshchilov and Hutter 2019, Decoupled Weight Decay Regularization",
        apply=constant_decay,
        tunables=(Tunable("decay", 0.1, choices=(0.05, 0.1, 0.2)),),
        prior_gain=0.0,
        prior_sd=0.002,
        excludes=("matrix_decay", "decay_pulses"),
    ),
    Technique(
        name="decay_pulses",
        title="a pulse of decay late in the run",
        family="schedule",
        hypothesis="A short pulse of decay frees the matrices of what later steps do not renew.",
        source="Recursive 2026 (pulses of decay at 80 %, each justified by one run)",
        apply=decay_pulses,
        tunables=(Tunable("height", 3.0, 1.0, 6.0), Tunable("at", 0.8, choices=(0.05, 0.5, 0.8))),
        prior_gain=0.0,
        prior_sd=0.002,
        excludes=("constant_decay",),
    ),
    Technique(
        name="polynomial_steps",
        title="fewer polynomials a step of Muon",
        family="optimizer",
        hypothesis="At small batches the optimizer takes a larger share of a step; a rougher one buys steps.",
        source="Amsel et al. 2025, The Polar Express; Jordan et al. 2024, Muon (five steps)",
        apply=polynomial_steps,
        tunables=(Tunable("steps", 4, choices=(3, 4)),),
        prior_gain=0.0,
        prior_sd=0.002,
    ),
    Technique(
        name="row_normalised",
        title="rows of one length before Muon's polynomials",
        family="optimizer",
        hypothesis="Units that get little gradient are heard when all rows enter the polynomials at one length.",
        source="Recursive 2026, First Steps Toward Automated AI Research (row-normalised gradients in its vanilla run)",
        apply=row_normalised,
        prior_gain=0.0,
        prior_sd=0.003,
    ),
    Technique(
        name="heads_apart",
        title="each head's matrices are orthogonalised alone",
        family="optimizer",
        hypothesis="Heads do different things; a step that is orthogonal within each lets them move on their own.",
        source="modded-nanogpt record 80 (paired-head Muon: 0.3 s of 84 s)",
        apply=heads_apart,
        prior_gain=0.0005,
        prior_sd=0.002,
    ),
    Technique(
        name="exploration_noise",
        title="noise on the first steps of Muon",
        family="optimizer",
        hypothesis="Noise that fades over the first quarter finds wider minima at no cost.",
        source="Recursive 2026 (annealed noise behind NorMuon in its speedrun; not kept upstream)",
        apply=exploration_noise,
        tunables=(Tunable("noise", 0.1, 0.01, 0.5, log=True), Tunable("until", 0.25, choices=(0.1, 0.25, 0.5))),
        prior_gain=-0.0005,
        prior_sd=0.002,
    ),
)
