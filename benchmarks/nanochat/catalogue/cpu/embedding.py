"""Techniques of the model's input: what a position knows of its byte, of the bytes before, of its place."""

from __future__ import annotations

from benchmarks import edits
from benchmarks.catalogue import Sources, Technique, Tunable, Tunables
from benchmarks.nanochat.catalogue.cpu.places import (
    EMBEDDED,
    MODEL,
    at_start,
    before_blocks,
    changed_model,
    model_parts,
    with_shift,
)


def after_embedding(model: str, lines: str) -> str:
    return edits.after(model, EMBEDDED, lines, inside=MODEL)


def lag_embeddings(sources: Sources, tunables: Tunables) -> Sources:
    model = edits.new_constant(sources["model.py"], "LAGS", tunables["lags"], "bytes before with a table of their own")
    model = model_parts(
        model, "self.lag_embeddings = nn.Parameter(torch.zeros(LAGS, VOCAB_SIZE, WIDTH))  # one table a lag"
    )
    model = after_embedding(
        model, """
        for lag, table in enumerate(self.lag_embeddings, 1):
            token_embedding = token_embedding + F.embedding(shift(tokens, lag), table)
        """,
    )  # fmt: skip
    return changed_model(sources, with_shift(model))


NGRAM_HASH = """
def ngram_hash(tokens, length, rows):  # [B, T] -> [B, T], one row number for the last `length` bytes
    key = tokens
    for lag in range(1, length):
        key = key * 1_000_003 + shift(tokens, lag) + 1
    return ((key ^ (key >> 15)) * 2_654_435_761 >> 13) % rows
"""


def with_ngram_hash(model: str) -> str:
    if "def ngram_hash(" in model:
        return model
    return edits.define_before(with_shift(model), "split_heads", NGRAM_HASH)


def hashed_bigrams(sources: Sources, tunables: Tunables) -> Sources:
    model = edits.new_constant(sources["model.py"], "BIGRAM_ROWS", tunables["rows"], "of the table of byte pairs")
    model = model_parts(
        model, """
        self.bigram_embedding = nn.Parameter(torch.zeros(BIGRAM_ROWS, WIDTH))
        self.bigram_gate = nn.Parameter(torch.ones(WIDTH))
        """,
    )  # fmt: skip
    model = after_embedding(
        model, """
        bigrams = F.embedding(ngram_hash(tokens, 2, BIGRAM_ROWS), self.bigram_embedding)
        token_embedding = token_embedding + self.bigram_gate * bigrams
        """,
    )  # fmt: skip
    return changed_model(sources, with_ngram_hash(model))


def hashed_trigrams(sources: Sources, tunables: Tunables) -> Sources:
    model = edits.new_constant(sources["model.py"], "TRIGRAM_ROWS", tunables["rows"], "of the table of three bytes")
    model = model_parts(
        model, """
        self.trigram_embedding = nn.Parameter(torch.zeros(TRIGRAM_ROWS, WIDTH))
        self.trigram_gate = nn.Parameter(torch.ones(WIDTH))
        """,
    )  # fmt: skip
    model = after_embedding(
        model, """
        trigrams = F.embedding(ngram_hash(tokens, 3, TRIGRAM_ROWS), self.trigram_embedding)
        token_embedding = token_embedding + self.trigram_gate * trigrams
        """,
    )  # fmt: skip
    return changed_model(sources, with_ngram_hash(model))


def hashed_ngrams(sources: Sources, tunables: Tunables) -> Sources:
    model = edits.new_constant(sources["model.py"], "NGRAM_ROWS", tunables["rows"], "of the table of longer n-grams")
    model = edits.new_constant(model, "NGRAM_LENGTH", tunables["length"], "bytes of a longer n-gram")
    model = model_parts(
        model, """
        self.ngram_embedding = nn.Parameter(torch.zeros(NGRAM_ROWS, WIDTH))
        self.ngram_gate = nn.Parameter(torch.ones(WIDTH))
        """,
    )  # fmt: skip
    model = after_embedding(
        model, """
        ngrams = F.embedding(ngram_hash(tokens, NGRAM_LENGTH, NGRAM_ROWS), self.ngram_embedding)
        token_embedding = token_embedding + self.ngram_gate * ngrams
        """,
    )  # fmt: skip
    return changed_model(sources, with_ngram_hash(model))


def smear(sources: Sources, tunables: Tunables) -> Sources:
    model = edits.new_constant(
        sources["model.py"], "SMEAR_CHANNELS", tunables["channels"], "of the byte, that decide how much of the last one"
    )
    model = model_parts(
        model, """
        self.smear_gate = nn.Parameter(torch.zeros(SMEAR_CHANNELS))
        self.smear_scale = nn.Parameter(torch.zeros(WIDTH))
        """,
    )  # fmt: skip
    model = after_embedding(
        model, """
        gate = torch.sigmoid(token_embedding[..., :SMEAR_CHANNELS] @ self.smear_gate).unsqueeze(-1)  # [B, T, 1]
        token_embedding = token_embedding + self.smear_scale * gate * shift(token_embedding, 1)
        """,
    )  # fmt: skip
    return changed_model(sources, with_shift(model))


def token_shift(sources: Sources, tunables: Tunables) -> Sources:
    """Half of the channels, or another share, come from the byte before."""
    model = edits.new_constant(
        sources["model.py"], "TOKEN_SHIFT", tunables["share"], "of each channel comes from the byte before, at first"
    )
    model = model_parts(model, "self.token_shift = nn.Parameter(torch.full((WIDTH,), TOKEN_SHIFT))")
    model = after_embedding(
        model,
        "token_embedding = torch.lerp(token_embedding, shift(token_embedding, 1), self.token_shift)",
    )
    return changed_model(sources, with_shift(model))


def conv_embedding(sources: Sources, tunables: Tunables) -> Sources:
    model = edits.new_constant(
        sources["model.py"], "EMBEDDING_TAPS", tunables["taps"], "bytes the convolution of the embedding sees"
    )
    model = model_parts(
        model,
        "self.embedding_taps = nn.ModuleList([nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(EMBEDDING_TAPS - 1)])",
    )
    model = before_blocks(
        model, """
        x = x + sum(tap(shift(token_embedding, lag)) for lag, tap in enumerate(self.embedding_taps, 1))
        """,
    )  # fmt: skip
    return changed_model(sources, with_shift(model))


BYTE_CLASSES = '''
def byte_classes():  # -> [V, 10] ones and zeros: what kind of byte it is
    kinds = [
        str.islower, str.isupper, str.isdigit, str.isspace, str.isprintable,
        lambda c: c in "aeiouAEIOU", lambda c: c in ".,;:!?", lambda c: c in "()[]{}<>", lambda c: c in "'`\\"",
        lambda c: c == "\\n",
    ]
    return torch.tensor([[float(kind(chr(byte))) for kind in kinds] for byte in range(VOCAB_SIZE)])
'''  # fmt: skip


def byte_classes(sources: Sources, tunables: Tunables) -> Sources:
    model = edits.new_constant(sources["model.py"], "CLASS_STD", tunables["std"], "of the vectors of the byte classes")
    model = model_parts(
        model, """
        self.register_buffer("byte_classes", byte_classes(), persistent=False)
        self.class_embedding = nn.Parameter(CLASS_STD * torch.randn(self.byte_classes.size(1), WIDTH))
        """,
    )  # fmt: skip
    model = after_embedding(
        model, "token_embedding = token_embedding + F.embedding(tokens, self.byte_classes @ self.class_embedding)"
    )
    return changed_model(sources, edits.define_before(model, "split_heads", BYTE_CLASSES))


WORD_HASH = """
def word_hash(tokens, rows):  # [B, T] -> [B, T], one row number for the letters of the word so far
    letter = ((tokens | 32) >= 97) & ((tokens | 32) <= 122)
    place = torch.arange(tokens.size(1), device=tokens.device).expand_as(tokens)
    start = torch.where(letter, 0, place + 1).cummax(dim=1).values  # of the word; t + 1 outside of words
    # A polynomial in an odd number modulo 2^64: the part before the word is taken off, then it is shifted back.
    powers = torch.full((tokens.size(1) + 1,), 1_000_003, device=tokens.device).cumprod(dim=0)
    inverse = torch.full_like(powers, WORD_INVERSE).cumprod(dim=0)
    sums = F.pad((tokens * powers[:-1]).cumsum(dim=1), (1, 0))  # [B, T + 1]
    key = (sums[:, 1:] - sums.gather(1, start)) * inverse[start]
    return (key ^ (key >> 29)) * 2_654_435_761 % rows
"""


def word_prefix(sources: Sources, tunables: Tunables) -> Sources:
    inverse = pow(1_000_003, -1, 2**64)
    model = edits.new_constant(sources["model.py"], "WORD_ROWS", tunables["rows"], "of the table of words so far")
    model = edits.new_constant(
        model, "WORD_INVERSE", inverse - 2**64 if inverse >= 2**63 else inverse, "of 1_000_003 modulo 2^64"
    )
    model = model_parts(model, "self.word_embedding = nn.Parameter(torch.zeros(WORD_ROWS, WIDTH))")
    model = after_embedding(
        model, "token_embedding = token_embedding + F.embedding(word_hash(tokens, WORD_ROWS), self.word_embedding)"
    )
    return changed_model(sources, edits.define_before(model, "split_heads", WORD_HASH))


def embedding_norm(sources: Sources, tunables: Tunables) -> Sources:
    model = edits.new_constant(
        sources["model.py"], "EMBEDDING_GAIN", tunables["gain"], "first gain of the normalised embedding"
    )
    model = model_parts(model, "self.embedding_norm = nn.LayerNorm(WIDTH)")
    model = before_blocks(model, "x = self.embedding_norm(x)")
    model = at_start(model, "model.embedding_norm.weight.fill_(EMBEDDING_GAIN)")
    return changed_model(sources, model)


def position_scale(sources: Sources, tunables: Tunables) -> Sources:
    model = edits.new_constant(
        sources["model.py"], "POSITION_SCALE", tunables["scale"], "first factor of the position embedding"
    )
    model = model_parts(model, "self.position_scale = nn.Parameter(torch.full((WIDTH,), POSITION_SCALE))")
    model = edits.after(
        model, "position_embedding = self.position_embedding(positions)  # [T, C]",
        "position_embedding = self.position_scale * position_embedding", inside=MODEL,
    )  # fmt: skip
    return changed_model(sources, model)


def token_init(sources: Sources, tunables: Tunables) -> Sources:
    return changed_model(sources, edits.constant(sources["model.py"], "TOKEN_STD", tunables["std"]))


TECHNIQUES = (
    Technique(
        name="lag_embeddings",
        title="tables for the bytes before",
        family="embedding",
        hypothesis="A table for each of the last few bytes hands every position its n-gram without any attention.",
        source="Bengio et al. 2003, A Neural Probabilistic Language Model",
        apply=lag_embeddings,
        tunables=(Tunable("lags", 4, 1, 8, integer=True),),
        prior_gain=0.11,
        prior_sd=0.03,
        tuned_here=True,
    ),
    Technique(
        name="hashed_bigrams",
        title="hashed table of byte pairs",
        family="embedding",
        hypothesis="A row for each pair of bytes adds what no sum of single bytes can hold, at the price of a look-up.",
        source="modded-nanogpt record 62 (bigram hash embedding); Pagnoni et al. 2024, Byte Latent Transformer",
        apply=hashed_bigrams,
        tunables=(Tunable("rows", 8192, choices=(1024, 2048, 4096, 8192, 16384)),),
        prior_gain=0.11,
        prior_sd=0.03,
        tuned_here=True,
    ),
    Technique(
        name="hashed_trigrams",
        title="hashed table of three bytes",
        family="embedding",
        hypothesis="A row for each three bytes, shared by hash, tells words apart that attention learns too slowly.",
        source="Pagnoni et al. 2024, Byte Latent Transformer (hash n-gram embeddings)",
        apply=hashed_trigrams,
        tunables=(Tunable("rows", 8192, choices=(1024, 2048, 4096, 8192, 16384)),),
        prior_gain=0.17,
        prior_sd=0.04,
        tuned_here=True,
    ),
    Technique(
        name="hashed_ngrams",
        title="hashed table of longer n-grams",
        family="embedding",
        hypothesis="A row for each four or more bytes recalls frequent words whole, though many share a row.",
        source="Pagnoni et al. 2024, Byte Latent Transformer (hash n-gram embeddings of 3 to 8 bytes)",
        apply=hashed_ngrams,
        tunables=(
            Tunable("length", 4, 4, 8, integer=True),
            Tunable("rows", 8192, choices=(2048, 4096, 8192, 16384)),
        ),
        prior_gain=0.15,
        prior_sd=0.05,
        tuned_here=True,
    ),
    Technique(
        name="word_prefix",
        title="hashed table of the word so far",
        family="embedding",
        hypothesis="A row for the letters since the word began predicts its end better than single bytes do.",
        source="Bojanowski et al. 2017, Enriching Word Vectors with Subword Information (hashed character n-grams)",
        apply=word_prefix,
        tunables=(Tunable("rows", 8192, choices=(2048, 4096, 8192, 16384)),),
        prior_gain=0.15,
        prior_sd=0.04,
    ),
    Technique(
        name="smear",
        title="gated share of the previous embedding",
        family="embedding",
        hypothesis="A gate that adds the embedding before saves the first layer the work of a previous-byte head.",
        source="modded-nanogpt record 34 (smear gate)",
        apply=smear,
        tunables=(Tunable("channels", 12, 4, 24, integer=True),),
        prior_gain=0.03,
        prior_sd=0.02,
    ),
    Technique(
        name="token_shift",
        title="each channel blends two bytes",
        family="embedding",
        hypothesis="A learned blend with the byte before, channel by channel, gives bigrams for one cheap operation.",
        source="Peng et al. 2023, RWKV: Reinventing RNNs for the Transformer Era (token shift)",
        apply=token_shift,
        tunables=(Tunable("share", 0.3, 0.0, 0.5),),
        prior_gain=0.035,
        prior_sd=0.02,
    ),
    Technique(
        name="conv_embedding",
        title="convolution over the embedding",
        family="embedding",
        hypothesis="A full convolution over the last bytes gives the blocks n-grams from the first step on.",
        source="Kim et al. 2016, Character-Aware Neural Language Models",
        apply=conv_embedding,
        tunables=(Tunable("taps", 4, 2, 7, integer=True),),
        prior_gain=0.08,
        prior_sd=0.03,
    ),
    Technique(
        name="byte_classes",
        title="vectors for kinds of bytes",
        family="embedding",
        hypothesis="Bytes of one kind (letter, digit, space, case) share a vector, so rare ones are learned from all.",
        source="Huang et al. 2015, Bidirectional LSTM-CRF Models for Sequence Tagging (spelling features)",
        apply=byte_classes,
        tunables=(Tunable("std", 0.2, 0.05, 1.0, log=True),),
        prior_sd=0.015,
    ),
    Technique(
        name="embedding_norm",
        title="normalised embedding",
        family="embedding",
        hypothesis="Embeddings of one size for all bytes keep the first block's input in range and speed up learning.",
        source="Le Scao et al. 2022, What Language Model to Train if You Have One Million GPU Hours? (embedding norm)",
        apply=embedding_norm,
        tunables=(Tunable("gain", 1.0, 0.2, 3.0, log=True),),
        prior_gain=-0.01,
        prior_sd=0.015,
    ),
    Technique(
        name="position_scale",
        title="learned size of the positions",
        family="embedding",
        hypothesis="Positions that begin larger than the bytes let the first attention find the neighbours sooner.",
        source="Ke et al. 2021, Rethinking Positional Encoding in Language Pre-training",
        apply=position_scale,
        tunables=(Tunable("scale", 1.4, 0.2, 3.0, log=True),),
        prior_gain=-0.01,
        prior_sd=0.03,
        excludes=("rope",),
        tuned_here=True,
    ),
    Technique(
        name="token_init",
        title="another size of the first embedding",
        family="embedding",
        hypothesis="Embeddings that begin smaller than the positions let attention find the neighbours sooner.",
        source="Yang et al. 2022, Tensor Programs V (size of the input layer)",
        apply=token_init,
        tunables=(Tunable("std", 0.15, 0.02, 2.0, log=True),),
        prior_gain=-0.01,
        prior_sd=0.02,
        excludes=("tied_head",),
        tuned_here=True,
    ),
)
