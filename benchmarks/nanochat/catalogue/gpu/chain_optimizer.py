"""Techniques of the optimizer of `vanilla`, which take it toward that of `modern`."""

from __future__ import annotations

from benchmarks import edits
from benchmarks.catalogue import Sources, Technique, Tunable, Tunables
from benchmarks.nanochat.catalogue.gpu.places import constant_of, of_vanilla, with_file

BUILD = "build_optimizer"
APART = """
def apart(groups, chosen, **settings):  # the chosen parameters in a group of their own, with these settings
    chosen = {id(p): p for p in chosen}
    rest = [group | {"params": [p for p in group["params"] if id(p) not in chosen]} for group in groups]
    own = {"params": list(chosen.values()), **settings}
    return [group for group in (*rest, own) if group["params"]]
"""


def with_apart(sources: Sources) -> Sources:
    """Let groups of parameters have rates of their own, as a share of the rate of the schedule."""
    optim, train = sources["optim.py"], sources["train.py"]
    if "def apart(" in optim:
        return sources
    optim = edits.define_before(optim, BUILD, APART)
    scaled = 'group["lr"] = rate * group.get("rate_scale", 1.0)'
    train = edits.replace(train, 'group["lr"] = rate', scaled, "train_step")
    return sources | {"optim.py": optim, "train.py": train}


def muon(sources: Sources, tunables: Tunables) -> Sources:
    of_vanilla(sources)
    sources = with_file(with_apart(sources), "muon.py")
    optim = edits.after(
        sources["optim.py"], "groups = [", """
        blocks = [(name, p) for name, p in model.named_parameters() if name.startswith("blocks.") and p.ndim == 2]
        hidden = [p for name, p in blocks if "embedding" not in name]
        muon = {"muon": True, "rate_scale": MUON_RATE / LEARNING_RATE, "momentum": MUON_MOMENTUM}
        groups = apart(groups, hidden, weight_decay=MUON_DECAY, **muon)
        """, BUILD,
    )  # fmt: skip
    optim = edits.swap(optim, "optimizer = torch.optim.AdamW(", "optimizer = MuonAdamW(", BUILD)
    optim = edits.new_import(optim, "from muon import MuonAdamW")
    optim = edits.new_constant(optim, "MUON_RATE", tunables["rate"], "of the matrices of the blocks")
    optim = edits.new_constant(optim, "MUON_MOMENTUM", tunables["momentum"], "Nesterov's, of the matrices")
    optim = edits.new_constant(optim, "MUON_DECAY", tunables["decay"], "of the matrices, where it agrees with the step")
    return sources | {"optim.py": optim}


def table_rate(sources: Sources, tunables: Tunables) -> Sources:
    of_vanilla(sources)
    sources = with_apart(sources)
    optim = edits.after(
        sources["optim.py"], "groups = [", """
        tables = [m.weight for m in model.modules() if isinstance(m, torch.nn.Embedding)]
        groups = apart(groups, tables, weight_decay=0.0, rate_scale=TABLE_RATE / LEARNING_RATE)
        """, BUILD,
    )  # fmt: skip
    return sources | {"optim.py": edits.new_constant(optim, "TABLE_RATE", tunables["rate"], "of the embeddings")}


def head_apart(sources: Sources, tunables: Tunables) -> Sources:
    of_vanilla(sources)
    sources = with_apart(sources)
    line = "groups = apart(groups, model.head.parameters(), weight_decay=0.0, rate_scale=HEAD_RATE / LEARNING_RATE)"
    optim = edits.after(sources["optim.py"], "groups = [", line, BUILD)
    return sources | {"optim.py": edits.new_constant(optim, "HEAD_RATE", tunables["rate"], "of the head")}


IN_MODERN = "from the start in nanochat and autoresearch"

TECHNIQUES = (
    Technique(
        name="muon",
        title="Muon for the matrices of the blocks",
        family="optimizer",
        hypothesis="Orthogonal steps of the matrices learn half as much again from a token as AdamW does.",
        source="Jordan et al. 2024, Muon; modded-nanogpt record 3 (31.4 to 24.9 minutes)",
        apply=muon,
        tunables=(
            Tunable("rate", 0.03, 0.005, 0.12, log=True),
            Tunable("momentum", 0.95, 0.85, 0.98),
            Tunable("decay", 0.1, choices=(0.0, 0.05, 0.1, 0.2)),
        ),
        prior_gain=0.07,
        prior_sd=0.03,
    ),
    Technique(
        name="learning_rate",
        title="another learning rate",
        family="optimizer",
        hypothesis="A few hundred steps want a higher rate than runs of a day.",
        source="Smith 2017, Cyclical Learning Rates for Training Neural Networks",
        apply=constant_of("optim.py", LEARNING_RATE="rate"),
        tunables=(Tunable("rate", 2e-3, 3e-4, 6e-3, log=True),),
        prior_gain=0.015,
        prior_sd=0.02,
    ),
    Technique(
        name="warmup_length",
        title="another length of the warm-up",
        family="schedule",
        hypothesis="A shorter warm-up wastes fewer of a few hundred steps.",
        source="autoresearch: any warm-up hurts",
        apply=constant_of("optim.py", WARMUP="share"),
        tunables=(Tunable("share", 0.01, 0.002, 0.2, log=True),),
        prior_gain=0.003,
        prior_sd=0.006,
    ),
    Technique(
        name="table_rate",
        title="a rate of their own for the embeddings",
        family="optimizer",
        hypothesis="A row of an embedding gets few gradients, so it must move further at a time.",
        source=f"Yang et al. 2022, Tensor Programs V; {IN_MODERN} (0.6 for vectors of size one)",
        apply=table_rate,
        tunables=(Tunable("rate", 0.02, 0.002, 0.6, log=True),),
        prior_gain=0.03,
        prior_sd=0.02,
    ),
    Technique(
        name="head_apart",
        title="a rate of its own for the head",
        family="optimizer",
        hypothesis="The head wants another rate than the matrices of the blocks, and no decay.",
        source=f"Yang et al. 2022, Tensor Programs V; {IN_MODERN} (0.004)",
        apply=head_apart,
        tunables=(Tunable("rate", 0.004, 0.0005, 0.02, log=True),),
        prior_gain=0.01,
        prior_sd=0.012,
    ),
)
