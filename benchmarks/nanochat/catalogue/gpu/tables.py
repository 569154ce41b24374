"""Techniques of hashed n-gram tables: in the values of the attention, in the stream, before the head."""

from __future__ import annotations

from benchmarks import edits
from benchmarks.catalogue import Sources, Technique, Tunable, Tunables
from benchmarks.edits import DoesNotApply
from benchmarks.nanochat.catalogue.gpu.places import (
    BACKWARD,
    LAST_PASS_BEGINS,
    LOADER,
    WARM_UP,
    adamw,
    attention_parts,
    before_blocks,
    before_each_block,
    model_forward,
    model_parts,
    numbered,
    on_values,
    one_of,
    with_file,
    with_gated,
    with_last_pass,
    with_layer,
    with_rate,
    with_tokens,
)

OPEN = "open_tables(model, DEVICE_ROWS, ROW_LENGTH)"
LEARN = "learn_tables(model, inputs)"
FORGOTTEN = ("optimizer.reset()", "optimizer.state.clear()")


def with_tables(sources: Sources) -> Sources:
    """Bring hashed tables into the tree and let the training teach them, unless another technique has done so.

    They learn in the last pass alone: of text that they have learned from they remember what comes next, the model
    learns to rely on that, and text that nobody has seen scores worse than without them.
    """
    if "tables.py" in sources:
        return sources
    sources = with_last_pass(sources)
    model = edits.new_import(sources["model.py"], "from tables import HashedTable")
    train = edits.new_import(sources["train.py"], "from tables import hold_tables, learn_tables, open_tables")
    train = edits.before(train, WARM_UP, OPEN, "main")
    train = edits.after(train, one_of(train, FORGOTTEN, "warm_up"), OPEN, "warm_up")
    train = edits.after(train, BACKWARD, LEARN, "train_step")
    train = edits.after(train, LOADER, "hold_tables(model, True)", "main")
    train = edits.after(train, LAST_PASS_BEGINS, "hold_tables(model, False)", "main")
    sources = with_file(with_file(sources, "row_update.py"), "tables.py")
    return sources | {"model.py": model, "train.py": train}


def new_constants(model: str, prefix: str, tunables: Tunables, **comments: str) -> str:
    """PREFIX_NAME = tunable `name`, for each name with a comment."""
    for name, comment in comments.items():
        model = edits.new_constant(model, f"{prefix}_{name}".upper(), tunables[name], comment)
    return model


def value_tables(sources: Sources, tunables: Tunables, name: str, order: str, first: int) -> Sources:
    """Tables of their own in every few layers. `first` is the number of the first table, which sets its hash."""
    sources = with_tables(sources)
    prefix = name.upper()
    model = with_gated(with_tokens(with_layer(sources["model.py"])))
    model = new_constants(
        model,
        name,
        tunables,
        rows="of each half of a table, a power of two",
        every="layers have tables; counted from the last one",
        rate="step of a row, about",
        channels="of the input, that the gate of the table sees",
    )
    model = attention_parts(
        model, f"""
        self.has_{name}s = (DEPTH - 1 - layer) % {prefix}_EVERY == 0
        if self.has_{name}s:
            self.{name}s = HashedTable({order}, {prefix}_ROWS, WIDTH, {prefix}_RATE, number={first} + layer)
            self.{name}_gate = nn.Parameter(torch.zeros(HEADS, {prefix}_CHANNELS))
        """,
    )  # fmt: skip
    model = on_values(
        model, f"""
        if self.has_{name}s:
            {name}_gate = F.linear(attention_input[..., -{prefix}_CHANNELS:], self.{name}_gate.to(v.dtype))
            {name}_gate = 2 * torch.sigmoid({name}_gate)  # [B, T, H], from 1
            v = v + gated({name}_gate, self.{name}s(tokens))
        """,
    )  # fmt: skip
    return sources | {"model.py": model}


def bigram_values(sources: Sources, tunables: Tunables) -> Sources:
    return value_tables(sources, tunables, "bigram", "2", 0)


def trigram_values(sources: Sources, tunables: Tunables) -> Sources:
    sources = value_tables(sources, tunables, "trigram", "TRIGRAM_ORDER", 100)
    model = edits.new_constant(
        sources["model.py"], "TRIGRAM_ORDER", tunables["order"], "tokens that find a row together"
    )
    return sources | {"model.py": model}


def shared_value_table(sources: Sources, tunables: Tunables, name: str, order: int, number: int) -> Sources:
    """One table for all layers, each with a gate of its own."""
    sources = with_tables(sources)
    prefix = name.upper()
    model = with_gated(with_tokens(sources["model.py"]))
    model = new_constants(
        model,
        name,
        tunables,
        rows="of each half of the table, a power of two",
        rate="step of a row, about",
        channels="of the input, that the gates of the table see",
    )
    model = model_parts(
        model, f"""
        self.{name}s = HashedTable({order}, {prefix}_ROWS, WIDTH, {prefix}_RATE, number={number})
        for block in self.blocks:
            block.attention.{name}s = [self.{name}s]  # in a list, for its weights are the model's alone
        """,
    )  # fmt: skip
    model = attention_parts(model, f"self.{name}_gate = nn.Parameter(torch.zeros(HEADS, {prefix}_CHANNELS))")
    model = on_values(
        model, f"""
        {name}_gate = F.linear(attention_input[..., -{prefix}_CHANNELS:], self.{name}_gate.to(v.dtype))
        {name}_gate = 2 * torch.sigmoid({name}_gate)  # [B, T, H], from 1
        v = v + gated({name}_gate, self.{name}s[0](tokens))
        """,
    )  # fmt: skip
    return sources | {"model.py": model}


def shared_bigram_values(sources: Sources, tunables: Tunables) -> Sources:
    return shared_value_table(sources, tunables, "shared_bigram", 2, 200)


def shared_trigram_values(sources: Sources, tunables: Tunables) -> Sources:
    return shared_value_table(sources, tunables, "shared_trigram", 3, 201)


def bigram_stream(sources: Sources, tunables: Tunables) -> Sources:
    sources = adamw(with_tables(sources), "[model.stream_lambdas]", "STREAM_LAMBDA_RATE")
    model = new_constants(
        sources["model.py"],
        "stream",
        tunables,
        rows="of each half of the table of bigrams, a power of two",
        rate="step of a row, about",
        weight="of the table before each block, at first",
    )
    model = model_parts(
        model, """
        self.stream_bigrams = HashedTable(2, STREAM_ROWS, WIDTH, STREAM_RATE, number=300)
        self.stream_lambdas = nn.Parameter(torch.full((DEPTH,), STREAM_WEIGHT))
        """,
    )  # fmt: skip
    model = before_blocks(numbered(model), "bigrams = self.stream_bigrams(tokens)  # [B, T, C]")
    model = before_each_block(model, "x = x + self.stream_lambdas[layer] * bigrams")
    return with_rate(sources | {"model.py": model}, "STREAM_LAMBDA_RATE", 0.005, "of the weights of the bigrams")


def ngram_head(sources: Sources, tunables: Tunables) -> Sources:
    sources = with_tables(sources)
    model = new_constants(
        sources["model.py"],
        "last",
        tunables,
        order="tokens that find a row of the last table together",
        rows="of each half of the last table, a power of two",
        rate="step of a row, about",
    )
    model = model_parts(model, "self.last_ngrams = HashedTable(LAST_ORDER, LAST_ROWS, WIDTH, LAST_RATE, number=400)")
    line = "final_output = final_output + self.last_ngrams(tokens)"
    model = edits.after(model, "final_output = ...", line, inside=model_forward(model))
    return sources | {"model.py": model}


def of_tables(sources: Sources) -> str:
    if "tables.py" not in sources:
        raise DoesNotApply("the tree has no hashed tables; apply bigram_values first")
    return sources["tables.py"]


def rowwise_moment(sources: Sources, tunables: Tunables) -> Sources:
    tables = edits.swap(
        of_tables(sources), "moment_width = self.weight.size(1)", "moment_width = 1", "HashedTable.open"
    )
    return sources | {"tables.py": tables}


def table_memory(sources: Sources, tunables: Tunables) -> Sources:
    return sources | {"tables.py": edits.constant(of_tables(sources), "BETA2", tunables["beta2"])}


def visit_clocks(sources: Sources, tunables: Tunables) -> Sources:
    return sources | {"tables.py": edits.constant(of_tables(sources), "BY_VISITS", True)}


def table_warmdown(sources: Sources, tunables: Tunables) -> Sources:
    of_tables(sources)
    train = edits.swap(
        sources["train.py"], LEARN,
        "learn_tables(model, inputs, max(TABLE_FLOOR, min(1.0, (1 - progress) / TABLE_WARMDOWN)))", "train_step",
    )  # fmt: skip
    train = edits.new_constant(train, "TABLE_WARMDOWN", tunables["share"], "of the budget, for the hashed tables")
    train = edits.new_constant(train, "TABLE_FLOOR", tunables["floor"], "of their steps, at the end")
    return sources | {"train.py": train}


def rows(default: int) -> Tunable:
    return Tunable("rows", default, choices=tuple(2**power for power in range(16, 23)))


RECURSIVE = "Recursive 2026, First Steps Toward Automated AI Research (hashed value tables, a hash of its own a layer)"
ANY_TABLE = (
    *("bigram_values", "trigram_values", "shared_bigram_values", "shared_trigram_values"),
    *("bigram_stream", "ngram_head"),
)
CHANNELS = Tunable("channels", 32, choices=(16, 32))
EVERY = Tunable("every", 2, choices=(1, 2, 4))

TECHNIQUES = (
    Technique(
        name="bigram_values",
        title="hashed tables of token pairs in the values",
        family="tables",
        hypothesis="Values looked up by the last two tokens hand every layer frequent pairs that 60 s of attention "
        "cannot learn, for a look-up instead of a product.",
        source=RECURSIVE,
        apply=bigram_values,
        tunables=(rows(2**19), EVERY, Tunable("rate", 0.4, 0.03, 1.5, log=True), CHANNELS),
        prior_gain=0.02,
        prior_sd=0.012,
        excludes=("shared_bigram_values",),
    ),
    Technique(
        name="trigram_values",
        title="hashed tables of three tokens in the values",
        family="tables",
        hypothesis="Values looked up by the last three or four tokens recall phrases that pairs leave open.",
        source=f"{RECURSIVE}; without trigrams +0.0029 bits per byte at 300 s on an H100 (parzival-gauntlet)",
        apply=trigram_values,
        tunables=(
            rows(2**19),
            EVERY,
            Tunable("rate", 0.4, 0.03, 1.5, log=True),
            Tunable("order", 3, choices=(3, 4)),
            CHANNELS,
        ),
        prior_gain=0.006,
        prior_sd=0.01,
        excludes=("shared_trigram_values",),
    ),
    Technique(
        name="shared_bigram_values",
        title="one table of token pairs for the values of all layers",
        family="tables",
        hypothesis="One larger table, gated in each layer, is seen more often a row than a table a layer, and learns "
        "sooner.",
        source="aajing 2026, ScienceGuru, autoresearch-sota-strategy (tables shared over layers, a gate a layer)",
        apply=shared_bigram_values,
        tunables=(rows(2**20), Tunable("rate", 0.4, 0.03, 1.5, log=True), CHANNELS),
        prior_gain=0.02,
        prior_sd=0.012,
        excludes=("bigram_values",),
    ),
    Technique(
        name="shared_trigram_values",
        title="one table of three tokens for the values of all layers",
        family="tables",
        hypothesis="One larger table of three tokens, gated in each layer, recalls more phrases than smaller ones do.",
        source="aajing 2026, ScienceGuru, autoresearch-sota-strategy; vora 2026 (shared trigram tables)",
        apply=shared_trigram_values,
        tunables=(rows(2**21), Tunable("rate", 0.4, 0.03, 1.5, log=True), CHANNELS),
        prior_gain=0.008,
        prior_sd=0.01,
        excludes=("trigram_values",),
    ),
    Technique(
        name="bigram_stream",
        title="hashed table of token pairs before every block",
        family="tables",
        hypothesis="A vector for each pair of tokens, added before every block, spares the first layers finding pairs.",
        source="modded-nanogpt record 62 (bigram hash embedding: 165 steps fewer); nanochat (a gain at depth 12)",
        apply=bigram_stream,
        tunables=(
            rows(2**19),
            Tunable("rate", 0.1, 0.01, 1.0, log=True),
            Tunable("weight", 0.1, 0.01, 0.5, log=True),
        ),
        prior_gain=0.015,
        prior_sd=0.012,
    ),
    Technique(
        name="ngram_head",
        title="hashed table of n-grams before the head",
        family="tables",
        hypothesis="A vector for the last tokens, added to what the head reads, learns counts of n-grams at once and "
        "leaves the blocks what counts cannot tell.",
        source="Bengio et al. 2003, A Neural Probabilistic Language Model (direct connections); modded-nanogpt pull "
        "request 360 (n-gram tables)",
        apply=ngram_head,
        tunables=(
            Tunable("order", 2, choices=(2, 3)),
            rows(2**19),
            Tunable("rate", 0.02, 0.002, 0.2, log=True),
        ),
        prior_gain=0.01,
        prior_sd=0.015,
    ),
    Technique(
        name="rowwise_moment",
        title="one second moment a row of a hashed table",
        family="optimizer",
        hypothesis="One step size a row keeps the direction of the gradient of rows seen once or twice, and costs half "
        "of the memory traffic.",
        source="Tencent 2026, Hyra (row-wise second moment of n-gram tables); Duchi et al. 2011 (AdaGrad)",
        apply=rowwise_moment,
        prior_gain=0.002,
        prior_sd=0.006,
        requires=ANY_TABLE,
    ),
    Technique(
        name="table_memory",
        title="another memory of the second moment of hashed tables",
        family="optimizer",
        hypothesis="A shorter memory bounds how far a row that is seen seldom moves at a time.",
        source="Recursive 2026, First Steps Toward Automated AI Research (0.999, growing to 0.9999 at the end)",
        apply=table_memory,
        tunables=(Tunable("beta2", 0.99, choices=(0.95, 0.99, 0.9999)),),
        prior_gain=0.0,
        prior_sd=0.006,
        requires=ANY_TABLE,
        excludes=("visit_clocks",),
    ),
    Technique(
        name="visit_clocks",
        title="a clock of its own for each row of a hashed table",
        family="optimizer",
        hypothesis="Rows that keep their second moment between visits move as far at a visit as frequent ones do, and "
        "rare n-grams are not written over in one step.",
        source="Tencent 2026, Hyra (rates of rows that depend on their visits); Duchi et al. 2011 (AdaGrad)",
        apply=visit_clocks,
        prior_gain=0.001,
        prior_sd=0.008,
        requires=ANY_TABLE,
        excludes=("table_memory",),
    ),
    Technique(
        name="table_warmdown",
        title="hashed tables that slow down at the end",
        family="schedule",
        hypothesis="Smaller steps at the end settle the rows of frequent n-grams.",
        source="Recursive 2026 keeps the rate of its tables to the end; its vanilla run lets it fall over the last 8 %",
        apply=table_warmdown,
        tunables=(Tunable("share", 0.2, 0.05, 0.8), Tunable("floor", 0.1, choices=(0.0, 0.1, 0.3))),
        prior_gain=0.0,
        prior_sd=0.006,
        requires=ANY_TABLE,
    ),
)
