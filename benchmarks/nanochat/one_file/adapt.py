"""A program of the public one-file format (autoresearch: `train.py` over `prepare.py`) as a candidate of this lab.

The program stays as it is but for a few marked places: it becomes `script.py`, beside the files of `tree/`, which give
it text, a clock and a place to hand its weights to. Where that cannot be done, one line says what to change in it.
Only read here, never run.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

from benchmarks import edits
from benchmarks.contract import Adapted, Observation, Preset
from benchmarks.edits import DoesNotApply
from benchmarks.syntax import parse

TREE = Path(__file__).parent / "tree"
SCRIPT = "script.py"
OFFERED = frozenset(
    {"MAX_SEQ_LEN", "TIME_BUDGET", "EVAL_TOKENS", "VOCAB_SIZE"}
    | {"Tokenizer", "make_dataloader", "evaluate_bpb", "get_token_bytes"}
)
SEEDERS = frozenset({"manual_seed", "manual_seed_all", "seed"})
COUNTED = "prepare.counted_seconds()"
UNCOUNTED = 20  # steps that compiling may take; more than these ask for a reader

Edit = tuple[int, int, int, int, str]  # first line and column, last line and column, what stands there instead


def is_one_file(files: Mapping[str, bytes]) -> bool:
    """Whether train.py takes its text and its score from `prepare`, and no model.py offers `build()`."""
    train = _tree(files.get("train.py", b""))
    builds = any(isinstance(n, ast.FunctionDef) and n.name == "build" for n in _tree(files.get("model.py", b"")).body)
    return not builds and any(_imports_prepare(node) for node in ast.walk(train))


def adapt(files: Mapping[str, bytes], preset: Preset) -> Adapted:
    """Files of a folder -> those of a candidate. Raises DoesNotApply with one line that says what to change."""
    source = files["train.py"].decode("utf-8", "replace").replace("\r\n", "\n")
    others = {name: text for name, text in files.items() if name not in ("train.py", "prepare.py")}
    program = Program(source)
    program.check(preset)
    ours = {path.name: path.read_text(encoding="utf-8") for path in sorted(TREE.glob("*.py"))}
    if "kernels.py" in others or not program.imports("kernels"):
        del ours["kernels.py"]
    if taken := sorted({*ours, SCRIPT} & set(others)):
        raise DoesNotApply(f"{', '.join(taken)}: the adapter brings a file of that name; rename yours")
    constants = {"VOCAB_SIZE": preset.vocabulary, "MAX_SEQ_LEN": preset.sequence_length}
    for name, value in {**constants, "COUNTS_SECONDS": bool(program.counters)}.items():
        ours["prepare.py"] = edits.constant(ours["prepare.py"], name, value)
    tree = {name: text.encode() for name, text in {**ours, SCRIPT: program.adapted()}.items()}
    return Adapted(others | tree, ("train.py", *others), tuple(program.observations("prepare.py" in files)))


class Program:
    """A `train.py` as it was read: what it takes from `prepare`, its model, its clock and its seeds."""

    def __init__(self, source: str) -> None:
        self.source, self.lines = source, source.splitlines()
        self.nodes = list(ast.walk(_tree(source.encode())))
        self.models = [node for node in self.nodes if isinstance(node, ast.ClassDef) and _scoring(node)]
        names = {name for node in self.nodes for name in _beside_budget(node)}
        self.counters = [  # statements that add up its seconds
            node for node in self.nodes if isinstance(node, ast.AugAssign | ast.Assign) and _adds_to(node, names)
        ]

    def imports(self, package: str) -> bool:
        return any(package == name.split(".")[0] for node in self.nodes for name in _imported(node))

    def check(self, preset: Preset) -> None:
        """Raises DoesNotApply for what has no meaning here."""
        taken = {name for node in self.nodes if isinstance(node, ast.ImportFrom) and node.module == "prepare"
                 for name in (alias.name for alias in node.names)}  # fmt: skip
        if unknown := sorted(taken - OFFERED):
            raise DoesNotApply(f"train.py takes {', '.join(unknown)} from prepare, which offers {_listed(OFFERED)}")
        if self.imports("mlx"):
            raise DoesNotApply("train.py is written for MLX; bring one written for torch")
        if len(self.models) != 1:
            many = f"{len(self.models)} classes ({', '.join(one.name for one in self.models)})"
            raise DoesNotApply(
                f"train.py has {many if self.models else 'no class'} with forward(idx, targets=None, ...); "
                "it needs one, the model, which returns scores [B, T, V] where targets are None"
            )
        (model,) = self.models
        if several := _returns_several(_scoring(model)):
            raise DoesNotApply(
                f"{model.name}.forward returns several values in line {several}; let it return the loss alone, and the "
                "scores [B, T, V] alone where targets are None"
            )
        for node in self.nodes:
            if isinstance(node, ast.Call) and _last(node.func) == "make_dataloader" and "val" in _constants(node):
                raise DoesNotApply(f"train.py asks for the validation text in line {node.lineno}; take that out")
        if preset.device != "cuda" and "is_available" not in self.source and (line := self._first_cuda()):
            raise DoesNotApply(
                f"train.py needs a GPU in line {line}, and preset {preset.name} has none; take a project of a GPU "
                "preset, or let the program ask torch.cuda.is_available()"
            )

    def adapted(self) -> str:
        """The program with its changed places: model marked, seeds and clock the lab's, run as a module."""
        changes = sorted(self._edits(), reverse=True)
        text = [line.encode() for line in self.source.split("\n")]  # columns count bytes
        for first, column, last, end, new in changes:
            head, tail = text[first - 1][:column], text[last - 1][end:]
            text[first - 1 : last] = (head + new.encode() + tail).split(b"\n")
        source = b"\n".join(text).decode()
        try:
            parse(source, SCRIPT)
        except SyntaxError as error:
            raise DoesNotApply(f"train.py cannot be adapted: {error}; write one statement a line") from error
        return source

    def observations(self, own_prepare: bool) -> Iterator[Observation]:
        """What a reader should know of how it is measured here."""
        if own_prepare:
            yield Observation("own_evaluator", "info", "its prepare.py stays out; text, clock and score are the lab's")
        judged = [n for n in self.nodes if isinstance(n, ast.Call) and _last(n.func) == "evaluate_bpb"]
        if judged:
            yield self._observed("own_score", "info", "scores itself; its number is not used", judged)
        if own := [node for node in self.nodes if "evaluate_bpb" in _defined(node)]:
            yield self._observed("own_score", "review", "brings its own evaluate_bpb; it scores nothing here", own)
        if own := [node for node in self.nodes if {"TIME_BUDGET", "MAX_SEQ_LEN", "EVAL_TOKENS"} & _defined(node)]:
            yield self._observed("own_constants", "review", "sets constants of prepare itself; our clock stays", own)
        if self.counters:
            words = "counts its own seconds; its counter shows the lab's clock instead"
            yield self._observed("own_clock", "info", words, self.counters)
        else:
            words = "has no counter of seconds beside TIME_BUDGET: nothing is warmed up, and compiling counts"
            yield Observation("own_clock", "info", f"train.py {words}")
        if late := self._uncounted():
            most = max(number for _, number in late)
            words = f"leaves {most} steps uncounted: they are run before the clock, on random tokens, and undone"
            severity = "info" if most <= UNCOUNTED else "review"
            yield self._observed("uncounted_steps", severity, words, [node for node, _ in late])
        if seeds := list(self._seeds()):
            yield self._observed("own_seed", "info", "fixes its seed; the lab's is used instead", seeds)
        if self.imports("kernels"):
            yield Observation("replaced_kernel", "info", "train.py gets attention over the network; torch's is used")

    def _observed(self, kind: str, severity: str, words: str, nodes: Sequence[ast.AST]) -> Observation:
        lines = sorted({int(getattr(node, "lineno", 0)) for node in nodes})
        evidence = tuple(f"train.py:{line}: {self.lines[line - 1].strip()[:160]}" for line in lines[:20])
        return Observation(kind, severity, f"train.py {words}", evidence)

    def _edits(self) -> Iterator[Edit]:
        (model,) = self.models
        top = min([model.lineno, *(mark.lineno for mark in model.decorator_list)])
        yield top, model.col_offset, top, model.col_offset, f"@prepare.scored\n{' ' * model.col_offset}"
        yield *self._head(), "import prepare\n"
        for counter in self.counters:
            target = counter.target if isinstance(counter, ast.AugAssign) else counter.targets[0]
            yield *_span(counter), f"{ast.unparse(target)} = {COUNTED}"
        for seed in self._seeds():
            yield *_span(seed.args[0]), "prepare.SEED"
        for node in self.nodes:
            if isinstance(node, ast.Compare) and ast.unparse(node) == "__name__ == '__main__'":
                yield *_span(node), "__name__ == 'script'"

    def _head(self) -> tuple[int, int, int, int]:
        """The place of the first statement that may follow an import: not the docstring, nothing of __future__."""
        for node in ast.iter_child_nodes(self.nodes[0]):
            text = isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant)
            if not text and "__future__" not in _imported(node) and isinstance(node, ast.stmt):
                line = min([node.lineno, *(mark.lineno for mark in getattr(node, "decorator_list", []))])
                return line, 0, line, 0
        return 1, 0, 1, 0

    def _seeds(self) -> Iterator[ast.Call]:
        """Calls that seed a generator with a number of their own."""
        for node in self.nodes:
            if isinstance(node, ast.Call) and _last(node.func) in SEEDERS and len(node.args) == 1:
                yield node

    def _uncounted(self) -> list[tuple[ast.AST, int]]:
        """Conditions `step > N` over a counter, each with how many steps it leaves out."""
        found: list[tuple[ast.AST, int]] = []
        for node in self.nodes:
            if isinstance(node, ast.If) and any(one in self.counters for one in node.body):
                for one in (inner for inner in ast.walk(node.test) if isinstance(inner, ast.Compare)):
                    bound = getattr(one.comparators[0], "value", None)
                    if isinstance(bound, int) and isinstance(one.ops[0], ast.Gt | ast.GtE):
                        found.append((node, bound + isinstance(one.ops[0], ast.Gt)))
        return found

    def _first_cuda(self) -> int:
        """The first line that cannot do without a GPU; 0 without one."""
        calls = [n for n in self.nodes if isinstance(n, ast.Call) and ast.unparse(n.func).startswith("torch.cuda.")]
        names = [n for n in self.nodes if isinstance(n, ast.Constant) and n.value == "cuda"]
        return min((node.lineno for node in [*calls, *names]), default=0)


def _tree(source: bytes) -> ast.Module:
    return parse(source, "train.py")


def _imported(node: ast.AST) -> list[str]:
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    return [node.module or ""] if isinstance(node, ast.ImportFrom) else []


def _imports_prepare(node: ast.AST) -> bool:
    return "prepare" in _imported(node)


def _scoring(node: ast.ClassDef) -> ast.FunctionDef | None:
    """The forward of a model: what it takes after the tokens may be left out."""
    for one in node.body:
        if isinstance(one, ast.FunctionDef) and one.name == "forward":
            names = [argument.arg for argument in one.args.args]
            if len(names) >= 3 and len(one.args.defaults) >= len(names) - 2 and _targets(names[2]):
                return one
    return None


def _targets(name: str) -> bool:
    return name in {"y", "labels", "label"} or name.startswith(("target", "tgt"))


def _returns_several(function: ast.FunctionDef | None) -> int:
    """The line of a return of several values, 0 without one."""
    lines = [
        node.lineno
        for node in ast.walk(function or ast.Module(body=[], type_ignores=[]))
        if isinstance(node, ast.Return) and isinstance(node.value, ast.Tuple | ast.Dict)
    ]
    return min(lines, default=0)


def _beside_budget(node: ast.AST) -> set[str]:
    """Names that are compared with TIME_BUDGET, divided by it or taken from it."""
    if isinstance(node, ast.Compare):
        sides = [node.left, *node.comparators]
    elif isinstance(node, ast.BinOp):
        sides = [node.left, node.right]
    else:
        return set()
    if not any(_last(side) == "TIME_BUDGET" for side in sides):
        return set()
    return {side.id for side in sides if isinstance(side, ast.Name)} - {"TIME_BUDGET"}


def _adds_to(node: ast.AugAssign | ast.Assign, names: set[str]) -> bool:
    """`seconds += more` or `seconds = seconds + more`."""
    if isinstance(node, ast.AugAssign):
        return isinstance(node.op, ast.Add) and isinstance(node.target, ast.Name) and node.target.id in names
    if isinstance(node.value, ast.BinOp) and isinstance(node.value.op, ast.Add):
        target, left = node.targets[0], node.value.left
        return isinstance(target, ast.Name) and isinstance(left, ast.Name) and target.id == left.id in names
    return False


def _defined(node: ast.AST) -> set[str]:
    """Names that a statement gives a value to; of `prepare.name = ...` the name."""
    if isinstance(node, ast.FunctionDef | ast.ClassDef):
        return {node.name}
    targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
    return {_last(target) for target in targets if isinstance(target, ast.Name | ast.Attribute)}


def _last(node: ast.AST | None) -> str:
    """The name, or the last part of a dotted one; empty for anything else."""
    if isinstance(node, ast.Attribute):
        return node.attr
    return node.id if isinstance(node, ast.Name) else ""


def _constants(call: ast.Call) -> set[object]:
    values = [*call.args, *(keyword.value for keyword in call.keywords)]
    return {value.value for value in values if isinstance(value, ast.Constant)}


def _span(node: ast.expr | ast.stmt) -> tuple[int, int, int, int]:
    return node.lineno, node.col_offset, node.end_lineno or node.lineno, node.end_col_offset or 0


def _listed(names: frozenset[str]) -> str:
    return ", ".join(sorted(names))
