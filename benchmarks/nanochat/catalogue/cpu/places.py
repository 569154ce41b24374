"""The lines of the start that techniques of the model hang on, and the few edits that several of them share.

A technique inserts lines beside one of these and leaves the line itself as it was, so that the next one finds it.
"""

from __future__ import annotations

from benchmarks import edits
from benchmarks.catalogue import Sources
from benchmarks.edits import DoesNotApply

ATTENTION_PARTS = "self.attention_output = nn.Linear(WIDTH, WIDTH"  # the begin of the line: its bias may be gone
HEADS_SPLIT = "v = split_heads(v)"  # q, k, v are [B, H, T, D] from here
HEADS_MERGED = "y = merge_heads(y)"
BLOCK_PARTS = "self.mlp = MLP()"
BLOCK_INPUT = "attention_input = self.attention_norm(x)"
ATTENTION_OUTPUT = "x = x + attention_output"
MLP_OUTPUT = "x = x + mlp_output"
BLOCKS_MADE = "self.blocks = nn.ModuleList([Block() for _ in range(DEPTH)])"
MODEL_PARTS = "self.head = nn.Linear(WIDTH, VOCAB_SIZE, bias=False)"
EMBEDDED = "token_embedding = self.token_embedding(tokens)  # [B, T, C]"
BLOCKS = "for block in self.blocks:"
FINAL_NORM = "final_output = self.final_norm(x)"
SCORED = "scores = self.head(final_output)  # [B, T, V]"
RETURNED = "return scores"
INITIALISED = "nn.init.normal_(model.token_embedding.weight, std=TOKEN_STD)"
CLOCK_STARTED = "tokens = harness.start_clock()  # [n] uint8"

MODEL = "Transformer.forward"

SHIFT = """
def shift(x, steps):  # [B, T, ...] -> the same, each position holds what stood `steps` before it; zeros in front
    return torch.cat((torch.zeros_like(x[:, :steps]), x[:, :-steps]), dim=1)
"""


def with_shift(model: str) -> str:
    """Define the causal shift of a sequence, unless another technique has done so."""
    return model if "def shift(" in model else edits.define_before(model, "split_heads", SHIFT)


def attention_parts(model: str, lines: str) -> str:
    """Add modules or parameters to every Attention."""
    return _after_start(model, ATTENTION_PARTS, lines, inside="Attention.__init__")


def block_parts(model: str, lines: str) -> str:
    """Add modules or parameters to every Block."""
    return edits.after(model, BLOCK_PARTS, lines, inside="Block.__init__")


def model_parts(model: str, lines: str) -> str:
    """Add modules or parameters to the Transformer."""
    return edits.after(model, MODEL_PARTS, lines, inside="Transformer.__init__")


def before_blocks(model: str, lines: str) -> str:
    return edits.before(model, BLOCKS, lines, inside=MODEL)


def before_each_block(model: str, lines: str) -> str:
    """Put lines at the top of the loop over the blocks."""
    body = _line_after(model, BLOCKS)
    return edits.before(model, body, lines, inside=MODEL)


def after_blocks(model: str, lines: str) -> str:
    return edits.before(model, FINAL_NORM, lines, inside=MODEL)


def at_start(model: str, lines: str) -> str:
    """Add to init_weights, where every matrix has its first value."""
    return edits.after(model, INITIALISED, lines, inside="init_weights")


def without(source: str, anchor: str, inside: str) -> str:
    """Take out a line and the comment lines right above it."""
    kept = edits.replace(source, anchor, "# <taken out>", inside=inside).splitlines()
    at = next(n for n, line in enumerate(kept) if line.strip() == "# <taken out>")
    first = at
    while kept[first - 1].strip().startswith("#"):
        first -= 1
    return "\n".join([*kept[:first], *kept[at + 1 :]]) + "\n"


def changed_model(sources: Sources, model: str) -> Sources:
    return sources | {"model.py": model}


def _after_start(source: str, start: str, lines: str, inside: str) -> str:
    """Insert below the one line that begins with `start`."""
    found = [line for line in source.splitlines() if line.strip().startswith(start)]
    if len(found) != 1:
        raise DoesNotApply(f"a line that begins {start!r} stands {len(found)} times, not once")
    return edits.after(source, found[0], lines, inside=inside)


def _line_after(source: str, anchor: str) -> str:
    lines = source.splitlines()
    found = [at for at, line in enumerate(lines) if line.strip() == anchor]
    if len(found) != 1:
        raise DoesNotApply(f"the line {anchor!r} stands {len(found)} times, not once")
    return lines[found[0] + 1]
