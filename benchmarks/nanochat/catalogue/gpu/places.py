"""The lines of the two starts that techniques hang on, and the edits that several of them share.

The starts differ in their layout: `vanilla` projects queries, keys and values one by one, gives its attention no tokens
and leaves every parameter to AdamW; `modern` projects all three at once and names for each group of parameters who
updates it. The functions here find the right line in either, so that a technique is written once. A technique inserts
lines beside these and leaves the line itself as it was, so that the next one finds it.
"""

from __future__ import annotations

import ast
import textwrap
from collections.abc import Callable
from pathlib import Path

from benchmarks import edits
from benchmarks.catalogue import Sources, Tunables
from benchmarks.edits import DoesNotApply

FILES = Path(__file__).parent / "files"  # what techniques copy into a tree
KERNELS = Path(__file__).parents[2] / "kernels"

ATTENTION = "Attention.forward"
BLOCK = "Block.forward"
MLP = "MLP.forward"
HEADS_MERGED = "y = merge_heads(y)"
ATTENTION_OUTPUT = "x = x + attention_output"
MLP_OUTPUT = "x = x + mlp_output"
BLOCKS = ("for layer, block in enumerate(self.blocks):", "for block in self.blocks:")
BLOCK_CALLED = ("x = block(x, tokens)", "x = block(x)")
BACKWARD = "loss.backward()"
WARM_UP = "warm_up(model, optimizer, loss_function, device)"
STEP = "loss = train_step(..."
LOADER = "batches = Loader(..."
LAST_PASS_BEGINS = "last_pass = batches.starts_anew = True"
SUBMIT = "harness.submit(model.state_dict())"
ADAMW_GROUPS = "self.adamw_groups = ["

SHIFT = """
def shift(x, steps):  # [B, T, ...] -> the same, each position holds what stood `steps` before it; zeros in front
    return torch.cat((torch.zeros_like(x[:, :steps]), x[:, :-steps]), dim=1)
"""

GATED = """
def gated(gate, x):  # [B, T, H] and [B, T, C] -> [B, T, C], each head times its gate
    return (gate.unsqueeze(-1) * x.unflatten(-1, (HEADS, -1))).flatten(-2)
"""
GATED_HEADS = """
def gated(gate, x):  # [B, T, H] and [B, T, C] -> [B, T, H, D], each head times its gate
    return gate.unsqueeze(-1) * split_heads(x)
"""


def is_modern(model: str) -> bool:
    return edits.has(model, "def features(self, tokens):...")


def of_vanilla(sources: Sources) -> str:
    """The model, if it is one that has not been modern from the start."""
    if is_modern(sources["model.py"]):
        raise DoesNotApply("the model has it from the start")
    return sources["model.py"]


def model_forward(model: str) -> str:
    """The method that goes from tokens to what the head reads."""
    return "Transformer.features" if is_modern(model) else "Transformer.forward"


def one_of(source: str, anchors: tuple[str, ...], inside: str) -> str:
    """The anchor that stands there."""
    for anchor in anchors:
        if edits.has(source, anchor, inside):
            return anchor
    raise DoesNotApply(f"none of the lines {', '.join(map(repr, anchors))} stands once in {inside}")


def with_shift(model: str) -> str:
    """Define the causal shift of a sequence, unless another technique has done so."""
    return model if "def shift(" in model else edits.define_before(model, "split_heads", SHIFT)


def with_gated(model: str) -> str:
    """Define the product of gates and heads, unless another technique has done so."""
    if "def gated(" in model:
        return model
    return edits.define_before(model, "split_heads", GATED_HEADS if is_modern(model) else GATED)


def attention_parts(model: str, lines: str) -> str:
    """Add modules or parameters to every Attention."""
    return edits.after(model, "self.attention_output = ...", lines, inside="Attention.__init__")


def block_parts(model: str, lines: str) -> str:
    return edits.after(model, "self.mlp = MLP()", lines, inside="Block.__init__")


def model_parts(model: str, lines: str) -> str:
    return edits.after(model, "self.head = ...", lines, inside="Transformer.__init__")


def on_values(model: str, lines: str) -> str:
    """Where the values `v` have just been projected: [B, T, H, D] in `modern`, [B, T, C] in `vanilla`."""
    anchor = one_of(model, ("qk, v = qkv.split(...", "v = self.value(attention_input)..."), ATTENTION)
    return edits.after(model, anchor, lines, inside=ATTENTION)


def as_values(model: str, vector: str) -> str:
    """The text of a [..., C] vector in the shape of `v` at `on_values`."""
    return f"split_heads({vector})" if is_modern(model) else vector


def on_queries(model: str, lines: str) -> str:
    """Where q and k have their heads, their rotation and their norm: [B, T, H, D] in `modern`, else [B, H, T, D]."""
    if is_modern(model):
        return edits.after(model, "q, k = qk.chunk(...", lines, inside=ATTENTION)
    return edits.before(model, "y = F.scaled_dot_product_attention(...", lines, inside=ATTENTION)


def heads_first(model: str) -> bool:
    """Whether q, k, v and y are [B, H, T, D] in the attention; [B, T, H, D] otherwise."""
    return not is_modern(model)


def on_embedding(model: str, lines: str) -> str:
    """Where `token_embedding` [B, T, C] has just been looked up."""
    return edits.after(model, "token_embedding = self.token_embedding(tokens)...", lines, inside=model_forward(model))


def before_blocks(model: str, lines: str) -> str:
    inside = model_forward(model)
    return edits.before(model, one_of(model, BLOCKS, inside), lines, inside=inside)


def before_each_block(model: str, lines: str) -> str:
    inside = model_forward(model)
    return edits.before(model, one_of(model, BLOCK_CALLED, inside), lines, inside=inside)


def after_each_block(model: str, lines: str) -> str:
    inside = model_forward(model)
    return edits.after(model, one_of(model, BLOCK_CALLED, inside), lines, inside=inside)


def after_blocks(model: str, lines: str) -> str:
    return edits.before(model, "final_output = ...", lines, inside=model_forward(model))


def numbered(model: str) -> str:
    """Let the loop over the blocks count them as `layer`."""
    if is_modern(model) or edits.has(model, BLOCKS[0], "Transformer.forward"):
        return model
    return edits.replace(model, BLOCKS[1], BLOCKS[0], inside="Transformer.forward")


def with_layer(model: str) -> str:
    """Tell every Attention the number of its layer, as `layer` in its __init__."""
    if edits.has(model, "def __init__(self, layer):", "Attention"):
        return model
    for name in ("Attention", "Block"):
        model = edits.replace(model, "def __init__(self):", "def __init__(self, layer):", inside=name)
    model = edits.swap(model, "Attention()", "Attention(layer)", inside="Block")
    return edits.swap(model, "Block() for _ in range(DEPTH)", "Block(layer) for layer in range(DEPTH)")


def with_tokens(model: str) -> str:
    """Hand the tokens to every Attention, as `tokens` in its forward."""
    if edits.has(model, "def forward(self, attention_input, tokens):...", "Attention"):
        return model
    model = edits.swap(model, "def forward(self, attention_input):", "def forward(self, attention_input, tokens):")
    model = edits.swap(model, "self.attention(attention_input)", "self.attention(attention_input, tokens)", BLOCK)
    model = edits.swap(model, "def forward(self, x):", "def forward(self, x, tokens):", inside="Block")
    return edits.swap(model, "x = block(x)", "x = block(x, tokens)", inside="Transformer.forward")


def at_start(model: str, lines: str) -> str:
    """Change first values, when all weights have theirs."""
    indented = textwrap.indent(textwrap.dedent(lines).strip("\n"), "    ")
    return edits.after(model, "init_weights(model)", f"with torch.no_grad():\n{indented}", inside="build")


def normed(model: str, expression: str) -> str:
    """The text of a norm without a gain over the last dimension, as this model writes it."""
    return f"norm({expression})" if "def norm(x):" in model else f"F.rms_norm({expression}, ({expression}.size(-1),))"


def adamw(sources: Sources, parameters: str, rate: str) -> Sources:
    """Give `parameters`, a Python list, a group of AdamW at the constant `rate` of optim.py; where all are AdamW's
    already, as in `vanilla`, they stay in its groups."""
    optim = sources["optim.py"]
    if not edits.has(optim, ADAMW_GROUPS):
        return sources
    optim = edits.after(optim, "named = [...", f"named += {parameters}", "MuonAdamW.__init__")
    line = f'self.adamw_groups.append({{"params": {parameters}, "rate": {rate}, "beta1": BETA1}})'
    return sources | {"optim.py": edits.after(optim, ADAMW_GROUPS, line, "MuonAdamW.__init__")}


def with_rate(sources: Sources, name: str, value: object, comment: str) -> Sources:
    """The constant of a group that `adamw` made, where it made one."""
    if f'"rate": {name}' not in sources["optim.py"]:
        return sources
    return sources | {"optim.py": edits.new_constant(sources["optim.py"], name, value, comment)}


def with_last_pass(sources: Sources, share: float = 0.97) -> Sources:
    """Let the loader begin a new pass once the rest of the budget reads at most `share` of one, at the speed so far.

    What the budget reads twice is so read at the start, and the last pass meets nothing a second time.
    """
    if LAST_PASS_BEGINS in sources["train.py"]:
        return sources
    data = edits.after(
        sources["data.py"], "self.order = torch.empty(...", """
        self.starts_anew = False  # whether the next batch to be loaded begins an epoch
        self.read = 0  # tokens
        """, "Loader.__init__",
    )  # fmt: skip
    data = edits.before(data, "return inputs, targets", "self.read += inputs.numel()", "Loader.__next__")
    data = edits.before(
        data, "while len(self.order) < self.rows:", """
        if self.starts_anew:
            self.order, self.starts_anew = self.order[:0], False
        """, "Loader.next_starts",
    )  # fmt: skip
    train = edits.after(sources["train.py"], LOADER, "last_pass = False  # whether it has begun", "main")
    train = edits.before(
        train, STEP, f"""
        if not last_pass and progress > SPEED_KNOWN_AT:
            to_come = batches.read * (STOP_AT - progress) / progress  # tokens, at the speed so far
            if to_come <= LAST_PASS * len(tokens):
                {LAST_PASS_BEGINS}
        """, "main",
    )  # fmt: skip
    train = edits.new_constant(
        train, "LAST_PASS", share, "of the text, at most, is left to read when the last pass begins"
    )
    train = edits.new_constant(train, "SPEED_KNOWN_AT", 0.05, "of the budget: the first steps are slower")
    return sources | {"data.py": data, "train.py": train}


def with_file(sources: Sources, name: str) -> Sources:
    """Bring a file of the catalogue, or a kernel, into the tree, unless it is there."""
    folder = FILES if (FILES / name).is_file() else KERNELS
    return sources if name in sources else sources | {name: (folder / name).read_text()}


def without(source: str, line: str, inside: str) -> str:
    """Take out a line."""
    marked = edits.replace(source, line, "# <taken out>", inside)
    return "\n".join(one for one in marked.splitlines() if one.strip() != "# <taken out>") + "\n"


def without_definition(source: str, name: str) -> str:
    """Take out a function or class of the module that nothing uses any more."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and node.name == name:
            lines = source.splitlines()
            return (
                "\n".join([*lines[: node.lineno - 1], *lines[node.end_lineno :]]).replace("\n\n\n\n\n", "\n\n\n") + "\n"
            )
    raise DoesNotApply(f"there is no function or class {name}")


def whole_number(source: str, name: str) -> int:
    """The value of a constant of the module, written as a number, a power or a product."""
    for node in ast.parse(source).body:
        if isinstance(node, ast.Assign) and [t.id for t in node.targets if isinstance(t, ast.Name)] == [name]:
            return _number(node.value, name)
    raise DoesNotApply(f"there is no constant {name}")


def _number(node: ast.expr, name: str) -> int:
    if isinstance(node, ast.Constant) and isinstance(node.value, int):
        return node.value
    if isinstance(node, ast.BinOp) and isinstance(node.op, ast.Pow | ast.Mult):
        left, right = _number(node.left, name), _number(node.right, name)
        if isinstance(node.op, ast.Mult):
            return left * right
        if 0 <= right <= 64:
            return int(left**right)
    raise DoesNotApply(f"{name} is no whole number")


def constant_of(path: str, **names: str) -> Callable[[Sources, Tunables], Sources]:
    """A technique that sets constants of one file: CONSTANT="tunable"."""

    def apply(sources: Sources, tunables: Tunables) -> Sources:
        text = sources[path]
        for name, tunable in names.items():
            text = edits.constant(text, name, tunables[tunable])
        if text == sources[path]:
            raise DoesNotApply(f"{', '.join(names)} of {path} stand so already")
        return sources | {path: text}

    return apply
