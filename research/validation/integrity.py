"""Static checks of a candidate's change before anything runs: its paths, and what its code reaches for.

Paths are a law: a change outside the editable tree is structural and never runs. The syntax tree is a hint:
an import of `threading` is no crime, so a lint finding asks for a reader and never rejects by itself. What a
name cannot show is not checked here: git's mode tells whether an entry is a symbolic link, the sandbox what
the code does.
"""

import ast
import re
import sys
import unicodedata
import warnings
from collections.abc import Iterator, Mapping, Sequence

from research.validation.records import Finding, Severity

# Names that git, Python or a shell acts on by itself, wherever they lie.
SPECIAL_PARTS = frozenset({".git", ".gitmodules", ".gitattributes", ".hg", ".svn"})
HOOK_NAMES = frozenset({"sitecustomize.py", "usercustomize.py", "conftest.py", "pyvenv.cfg"})
LINK_NAMES = re.compile(r" -> | => |\.(lnk|symlink)$", re.IGNORECASE)
LARGE_LITERAL = 10_000  # characters; weights or text could hide in more
# Characters that reorder or hide text on a reviewer's screen ("Trojan Source", CVE-2021-42574).
HIDDEN_TEXT = re.compile("[\u200b-\u200f\u202a-\u202e\u2060-\u2069\ufeff]")


def check_paths(changed: Sequence[str], editable: Sequence[str], protected: Sequence[str]) -> list[Finding]:
    """Every path that a change may not touch is structural; hooks of Python's start ask for a reader.

    Patterns: `*` and `?` stay within a folder, `**` crosses them. A protected pattern also guards what lies
    under it, and is compared without case: some file systems do not tell `Judge.py` from `judge.py`.
    """
    allowed = [_pattern(glob) for glob in editable]
    guarded = [_pattern(_fold(glob).rstrip("/") + suffix) for glob in protected for suffix in ("", "/**")]
    findings = (_check_path(path, allowed, guarded) for path in changed)
    return [finding for finding in findings if finding]


def _check_path(path: str, allowed: list[re.Pattern[str]], guarded: list[re.Pattern[str]]) -> Finding | None:
    def structural(kind: str, message: str) -> Finding:
        return Finding(kind, Severity.STRUCTURAL, f"{path!r} {message}", (path,))

    parts = path.split("/")
    if "\\" in path or ":" in parts[0] or not set(parts).isdisjoint({"", ".", ".."}) or parts[0] == "~":
        return structural("path_traversal", "is not a plain path below the root")
    if any(unicodedata.category(char) in {"Cc", "Cf", "Zl", "Zp"} for char in path):
        return structural("path_traversal", "holds characters that do not show")
    if LINK_NAMES.search(path) or not SPECIAL_PARTS.isdisjoint(map(_fold, parts)):
        return structural("path_redirect", "is the name of a link or of git's own files")
    if any(pattern.fullmatch(_fold(path)) for pattern in guarded):
        return structural("protected_path", "is protected")
    if not any(pattern.fullmatch(path) for pattern in allowed):
        return structural("outside_editable", "is outside the editable paths")
    if _fold(parts[-1]) in HOOK_NAMES or parts[-1].endswith(".pth"):
        return Finding("startup_hook", Severity.REVIEW, f"{path!r} is run by Python without an import", (path,))
    return None


def _fold(path: str) -> str:
    return unicodedata.normalize("NFKC", path).casefold()


def _pattern(glob: str) -> re.Pattern[str]:
    tokens = {"**/": "(?:[^/]+/)*", "**": ".*", "*": "[^/]*", "?": "[^/]"}
    pieces = re.split(r"(\*\*/|\*\*|\*|\?)", glob)
    return re.compile("".join(tokens.get(piece) or re.escape(piece) for piece in pieces), re.DOTALL)


# Where code reaches outside the model: dotted name (and all below it) -> kind. The longest match wins.
REVIEWED: Mapping[str, str] = {
    **dict.fromkeys(("ctypes", "cffi", "_ctypes", "mmap", "torch.utils.cpp_extension"), "native_code"),
    **dict.fromkeys(("torch.ops.load_library", "torch.classes.load_library"), "native_code"),
    **dict.fromkeys(("subprocess", "multiprocessing", "torch.multiprocessing", "pty"), "process"),
    **dict.fromkeys(("os.system", "os.popen", "os.fork", "os.forkpty", "os.kill", "os.killpg"), "process"),
    **dict.fromkeys((f"os.exec{end}" for end in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")), "process"),
    **dict.fromkeys((f"os.spawn{end}" for end in ("l", "le", "lp", "lpe", "v", "ve", "vp", "vpe")), "process"),
    **dict.fromkeys(("os.posix_spawn", "os.posix_spawnp", "os._exit", "os.abort", "os.dup2"), "process"),
    **dict.fromkeys(("socket", "ssl", "http", "urllib", "urllib3", "requests", "httpx", "aiohttp"), "network"),
    **dict.fromkeys(("ftplib", "smtplib", "xmlrpc", "torch.hub", "huggingface_hub", "websockets"), "network"),
    **dict.fromkeys(("threading", "_thread", "concurrent.futures", "asyncio"), "threads"),
    **dict.fromkeys(("signal", "atexit", "weakref.finalize"), "exit_hooks"),
    **dict.fromkeys(("importlib", "runpy", "imp", "pkgutil", "sys.modules", "sys.meta_path"), "dynamic_code"),
    **dict.fromkeys(("sys.path_hooks", "exec", "eval", "compile", "__import__", "builtins"), "dynamic_code"),
    **dict.fromkeys(("marshal", "pickle", "dill", "cloudpickle", "shelve"), "pickle"),
    **dict.fromkeys(("sys._getframe", "sys._current_frames", "sys.settrace", "sys.setprofile"), "introspection"),
    **dict.fromkeys(("inspect.currentframe", "inspect.stack", "inspect.getouterframes"), "introspection"),
    **dict.fromkeys(("inspect._getframe", "inspect.getinnerframes", "inspect.trace"), "introspection"),
    **dict.fromkeys(("gc.get_objects", "gc.get_referrers", "gc.get_referents"), "introspection"),
    **dict.fromkeys(("inside_call", "zygote", "calls", "run_solutions", "weightfile", "run_train"), "harness"),
}
# Common in honest training code (a paused collector, an allocator setting); still worth a line.
NOTED: Mapping[str, str] = {
    "gc": "collector",
    **dict.fromkeys(("os.environ", "os.environb", "os.getenv", "os.putenv", "os.unsetenv"), "environment"),
}
INNER_ATTRIBUTES = frozenset(
    {
        "__globals__",
        "__builtins__",
        "__subclasses__",
        "__code__",
        "__closure__",
        "f_back",
        "f_locals",
        "f_globals",
    }
    | {"f_builtins", "gi_frame", "cr_frame", "tb_frame"}
)
LIBRARIES = sys.stdlib_module_names | {"torch", "triton", "numpy", "safetensors"}
COMPARISONS = frozenset({"__eq__", "__ne__", "__lt__", "__le__", "__gt__", "__ge__"})
LINES_SHOWN = 20
# Assigning below these segments sets an option, as in `torch.backends.cudnn.benchmark = True`.
OPTION_SEGMENTS = frozenset({"backends", "config", "_dynamo", "rcParams"})
MESSAGES: Mapping[str, str] = {
    "collector": "uses the garbage collector",
    "comparison": "redefines how objects compare",
    "dynamic_code": "builds or loads code while it runs",
    "environment": "reads or sets environment variables",
    "exit_hooks": "runs code on signals or at exit",
    "harness": "reaches into the lab's own modules",
    "hidden_text": "holds characters that reorder or hide text on screen",
    "introspection": "looks into frames, objects or functions that are not its own",
    "large_literal": "holds a literal large enough to carry data or weights",
    "monkeypatch": "replaces an attribute of a library",
    "native_code": "loads native code",
    "network": "can reach the network",
    "pickle": "reads or writes pickled objects, which run code when loaded",
    "process": "starts, ends or replaces processes",
    "threads": "starts threads or an event loop",
}


def lint(path: str, source: str) -> list[Finding]:
    """One finding a kind, each with the lines that show it. Only source that is no Python is structural."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # an odd escape in a string is not ours to report
            tree = ast.parse(source, path)
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return [Finding("syntax", Severity.STRUCTURAL, f"{path} is not valid Python: {error}", (path,))]
    lines = re.split("\r\n|\r|\n", source)  # as the parser counts; splitlines() would let a form feed shift them
    seen: dict[tuple[str, Severity], set[int]] = {}
    for kind, severity, line in _observe(tree, lines):
        seen.setdefault((kind, severity), set()).add(line)
    return [
        Finding(kind, severity, f"{path} {MESSAGES[kind]}", _quote(path, lines, numbers))
        for (kind, severity), numbers in sorted(seen.items())
    ]


Observation = tuple[str, Severity, int]


def _observe(tree: ast.Module, lines: list[str]) -> Iterator[Observation]:
    names = _imported(tree)
    for number, text in enumerate(lines, start=1):
        if HIDDEN_TEXT.search(text):
            yield "hidden_text", Severity.REVIEW, number
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom):
            yield from _imports(node)
        elif isinstance(node, ast.Name | ast.Attribute):
            yield from _reference(node, names)
        elif isinstance(node, ast.Call):
            yield from _call(node, names)
        elif isinstance(node, ast.FunctionDef) and node.name in COMPARISONS:
            yield "comparison", Severity.INFO, node.lineno
        elif isinstance(node, ast.Constant) and isinstance(node.value, str | bytes | int):
            yield from _literal(node)


def _imported(tree: ast.Module) -> dict[str, str]:
    """Local name -> dotted name it was imported from, so that an alias hides nothing."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            for alias in node.names:
                root = alias.name.partition(".")[0]
                names[alias.asname or root] = alias.name if alias.asname else root
        elif isinstance(node, ast.ImportFrom) and node.level == 0:
            for alias in node.names:
                names[alias.asname or alias.name] = f"{node.module}.{alias.name}"
    return names


def _imports(node: ast.Import | ast.ImportFrom) -> Iterator[Observation]:
    if isinstance(node, ast.ImportFrom):
        found = [f"{node.module}.{alias.name}" for alias in node.names] if node.level == 0 else []
    else:
        found = [alias.name for alias in node.names]
    for name in found:
        yield from _judge(name, node.lineno)


def _judge(name: str, line: int) -> Iterator[Observation]:
    parts = name.split(".")
    for end in range(len(parts), 0, -1):
        prefix = ".".join(parts[:end])
        if prefix in REVIEWED:
            yield REVIEWED[prefix], Severity.REVIEW, line
            return
        if prefix in NOTED:
            yield NOTED[prefix], Severity.INFO, line
            return


def _reference(node: ast.Name | ast.Attribute, names: Mapping[str, str]) -> Iterator[Observation]:
    if isinstance(node, ast.Attribute) and node.attr in INNER_ATTRIBUTES:
        yield "introspection", Severity.REVIEW, node.lineno
    dotted = _dotted(node, names)
    if dotted is None:
        return
    if isinstance(node.ctx, ast.Load):
        yield from _judge(dotted, node.lineno)
    elif isinstance(node, ast.Attribute) and _is_patch(dotted):
        yield "monkeypatch", Severity.REVIEW, node.lineno


def _call(node: ast.Call, names: Mapping[str, str]) -> Iterator[Observation]:
    """setattr on a library is an assignment in other words."""
    called = node.func
    if not (isinstance(called, ast.Name) and called.id in {"setattr", "delattr"} and node.args):
        return
    if (dotted := _dotted(node.args[0], names)) and _is_patch(dotted):
        yield "monkeypatch", Severity.REVIEW, node.lineno


def _is_patch(dotted: str) -> bool:
    parts = dotted.split(".")
    return parts[0] in LIBRARIES and OPTION_SEGMENTS.isdisjoint(parts)


def _literal(node: ast.Constant) -> Iterator[Observation]:
    value = node.value
    size = value.bit_length() // 8 if isinstance(value, int) else len(value)  # type: ignore[arg-type]
    if size > LARGE_LITERAL:
        yield "large_literal", Severity.REVIEW, node.lineno


def _dotted(node: ast.expr, names: Mapping[str, str]) -> str | None:
    """The full dotted name of an imported thing, or of a bare built-in; None for anything else."""
    attributes: list[str] = []
    while isinstance(node, ast.Attribute):
        attributes.append(node.attr)
        node = node.value
    if not isinstance(node, ast.Name):
        return None
    if node.id in names:
        return ".".join([names[node.id], *reversed(attributes)])
    return node.id if not attributes and node.id in {"exec", "eval", "compile", "__import__"} else None


def _quote(path: str, lines: list[str], numbers: set[int]) -> tuple[str, ...]:
    return tuple(f"{path}:{number}: {lines[number - 1].strip()[:160]}" for number in sorted(numbers)[:LINES_SHOWN])
