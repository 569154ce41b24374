"""Techniques that add the scores of an n-gram model to those of the Transformer, learned or counted."""

from __future__ import annotations

from benchmarks import edits
from benchmarks.catalogue import Sources, Technique, Tunable, Tunables
from benchmarks.nanochat.catalogue.cpu.embedding import with_ngram_hash
from benchmarks.nanochat.catalogue.cpu.places import (
    CLOCK_STARTED,
    MODEL,
    SCORED,
    changed_model,
    model_parts,
    with_shift,
)


def after_scores(model: str, lines: str) -> str:
    return edits.after(model, SCORED, lines, inside=MODEL)


def bigram_logits(sources: Sources, tunables: Tunables) -> Sources:
    model = edits.new_constant(sources["model.py"], "BIGRAM_LOGIT_GAIN", tunables["gain"], "how fast the table learns")
    model = model_parts(model, "self.bigram_logits = nn.Parameter(torch.zeros(VOCAB_SIZE, VOCAB_SIZE))")
    model = after_scores(model, "scores = scores + BIGRAM_LOGIT_GAIN * F.embedding(tokens, self.bigram_logits)")
    return changed_model(sources, model)


def trigram_logits(sources: Sources, tunables: Tunables) -> Sources:
    model = edits.new_constant(
        sources["model.py"], "TRIGRAM_LOGIT_ROWS", tunables["rows"], "of the table of scores after three bytes"
    )
    model = model_parts(model, "self.trigram_logits = nn.Parameter(torch.zeros(TRIGRAM_LOGIT_ROWS, VOCAB_SIZE))")
    model = after_scores(
        model, "scores = scores + F.embedding(ngram_hash(tokens, 3, TRIGRAM_LOGIT_ROWS), self.trigram_logits)"
    )
    return changed_model(sources, with_ngram_hash(model))


BIGRAM_COUNTS = """
def count_bigrams(tokens):  # uint8 [n] -> [V, V] log of the share of each byte after each byte
    pairs = tokens[:-1].long() * harness.vocab_size + tokens[1:]
    counts = torch.bincount(pairs, minlength=harness.vocab_size**2).view(harness.vocab_size, -1)
    counts = counts + COUNT_PRIOR
    return (counts / counts.sum(dim=1, keepdim=True)).log()
"""


def bigram_counts(sources: Sources, tunables: Tunables) -> Sources:
    """Counted in the budget, before the first step."""
    model = model_parts(
        sources["model.py"], """
        self.register_buffer("bigram_counts", torch.zeros(VOCAB_SIZE, VOCAB_SIZE))  # log; set by the training
        self.bigram_weight = nn.Parameter(torch.ones(()))
        """,
    )  # fmt: skip
    model = after_scores(model, "scores = scores + self.bigram_weight * F.embedding(tokens, self.bigram_counts)")
    train = edits.new_constant(sources["train.py"], "COUNT_PRIOR", tunables["prior"], "added to each count of a pair")
    train = edits.after(train, CLOCK_STARTED, "model.bigram_counts.copy_(count_bigrams(tokens))", inside="main")
    train = edits.define_before(train, "main", BIGRAM_COUNTS)
    return changed_model(sources, model) | {"train.py": train}


TRIGRAM_COUNTS = """
def count_trigrams(tokens):  # uint8 [n] -> [V * V, V], minus 16 x the log of the share of each byte after two bytes
    size = harness.vocab_size
    pairs = tokens[:-1].int() * size + tokens[1:]
    counts = torch.bincount(pairs[:-1] * size + tokens[2:], minlength=size**3).view(size, size, size).float()
    after_one = counts.sum(dim=0) + 0.1  # [V, V]
    after_one /= after_one.sum(dim=1, keepdim=True)
    counts += TRIGRAM_PRIOR * after_one
    return counts.div_(counts.sum(dim=2, keepdim=True)).log_().mul_(-16).round_().clamp_(0, 255).view(size**2, size)
"""


def trigram_counts(sources: Sources, tunables: Tunables) -> Sources:
    model = model_parts(
        sources["model.py"], """
        # minus the logarithm, in 1 / 16: a byte each, for the table has 17 million; set by the training
        self.register_buffer("trigram_counts", torch.zeros(VOCAB_SIZE**2, VOCAB_SIZE, dtype=torch.uint8))
        self.trigram_weight = nn.Parameter(torch.ones(()))
        """,
    )  # fmt: skip
    model = after_scores(
        model, """
        trigrams = self.trigram_counts[shift(tokens, 1) * VOCAB_SIZE + tokens]  # [B, T, V]
        scores = scores - self.trigram_weight / 16 * trigrams
        """,
    )  # fmt: skip
    train = edits.new_constant(
        sources["train.py"], "TRIGRAM_PRIOR", tunables["prior"], "counts that the shorter context is worth"
    )
    train = edits.after(train, CLOCK_STARTED, "model.trigram_counts.copy_(count_trigrams(tokens))", inside="main")
    train = edits.define_before(train, "main", TRIGRAM_COUNTS)
    return changed_model(sources, with_shift(model)) | {"train.py": train}


CONTEXT_COPY = """
def context_copy(tokens, length):  # [B, T] -> what followed the last equal `length` bytes, and whether any were
    key = tokens + 1
    for lag in range(1, length):
        key = key * (VOCAB_SIZE + 1) + shift(tokens + 1, lag)  # exact up to 7 bytes
    same = (key.unsqueeze(2) == key.unsqueeze(1)).tril_(-1)  # [B, T, T], earlier positions alone
    place = torch.arange(1, tokens.size(1) + 1, dtype=torch.int16, device=tokens.device)
    latest = (same * place).amax(dim=-1).long()  # [B, T], 1 + the place of the match, 0 where there is none
    return tokens.gather(1, latest), latest > 0
"""


def context_copy(sources: Sources, tunables: Tunables) -> Sources:
    model = edits.new_constant(
        sources["model.py"], "COPY_LENGTH", tunables["length"], "bytes that must have stood in the row before"
    )
    model = model_parts(
        model, "self.copy_bonus = nn.Parameter(torch.ones(VOCAB_SIZE))  # of the byte that followed then"
    )
    model = after_scores(
        model, """
        followed, found = context_copy(tokens, COPY_LENGTH)
        bonus = F.embedding(followed, self.copy_bonus.unsqueeze(1)) * found.unsqueeze(-1)  # [B, T, 1]
        scores = scores.scatter_add(2, followed.unsqueeze(-1), bonus)
        """,
    )  # fmt: skip
    return changed_model(sources, edits.define_before(with_shift(model), "split_heads", CONTEXT_COPY))


TECHNIQUES = (
    Technique(
        name="bigram_logits",
        title="learned table of scores after each byte",
        family="embedding",
        hypothesis="A direct table of scores by last byte learns the bigrams at once and leaves context to the blocks.",
        source="Bengio et al. 2003, A Neural Probabilistic Language Model (direct connections)",
        apply=bigram_logits,
        tunables=(Tunable("gain", 1.0, 0.3, 5.0, log=True),),
        prior_gain=0.01,
        prior_sd=0.015,
    ),
    Technique(
        name="trigram_logits",
        title="hashed table of scores after three bytes",
        family="embedding",
        hypothesis="Scores looked up by the last three bytes learn frequent words faster than attention does.",
        source="Mikolov et al. 2011, Strategies for Training Large Scale Neural Network Language Models",
        apply=trigram_logits,
        tunables=(Tunable("rows", 1024, choices=(256, 512, 1024, 2048, 4096)),),
        prior_gain=0.08,
        prior_sd=0.03,
    ),
    Technique(
        name="bigram_counts",
        title="scores from counted pairs",
        family="embedding",
        hypothesis="Counting all pairs of the text takes a hundredth of the budget and spares the model learning them.",
        source="Li et al. 2022, Residual Learning of Neural Text Generation with n-gram Language Model",
        apply=bigram_counts,
        tunables=(Tunable("prior", 0.1, 0.01, 1.0, log=True),),
        prior_gain=-0.05,
        prior_sd=0.06,
    ),
    Technique(
        name="trigram_counts",
        title="scores from counted triples",
        family="embedding",
        hypothesis="Counted triples, smoothed by pairs, are worth more than the steps that the counting costs.",
        source="Li et al. 2022, Residual Learning of Neural Text Generation with n-gram Language Model; "
        "MacKay and Peto 1995, A Hierarchical Dirichlet Language Model",
        apply=trigram_counts,
        tunables=(Tunable("prior", 5.0, 0.5, 50.0, log=True),),
        prior_gain=0.07,
        prior_sd=0.03,
    ),
    Technique(
        name="context_copy",
        title="a bonus for what followed the same bytes before",
        family="embedding",
        hypothesis="Names and markup repeat within a row, so the byte that followed last time deserves a higher score.",
        source="Olsson et al. 2022, In-context Learning and Induction Heads; Grave et al. 2017, neural cache",
        apply=context_copy,
        tunables=(Tunable("length", 3, 2, 6, integer=True),),
        prior_gain=0.015,
        prior_sd=0.02,
    ),
)
