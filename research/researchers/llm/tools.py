"""What a model may do in a session: read, search, edit in memory, ask the lab, and finish. Nothing else.

`perform` does one call. Whatever it answers is quoted as data; what is outside the workspace or a quota is refused,
told and recorded; arguments that cannot be read are told, and counted by the conversation.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

from research.researchers.llm.answers import CHANGE, IDEA, REVIEW, ChangeAnswer, IdeaAnswer, ReviewAnswer
from research.researchers.llm.desk import Desk, Waiting
from research.researchers.llm.quoting import quoted
from research.researchers.llm.wire import FormatError, Tool, ToolCall
from research.researchers.llm.workspace import NotThere, ToolRefused, Workspace

MALFORMED = "That is not what was asked for: "  # begins the answer to a call that cannot be read
LONGEST_ANSWER = 16_000  # characters
EDITS = ("replace", "write_file", "set_constant")
Answer = IdeaAnswer | ChangeAnswer | ReviewAnswer


@dataclass(frozen=True)
class Quotas:
    """What one session may still do."""

    turns: int = 40  # replies of the model
    calls: int = 80  # of tools
    characters: int = 300_000  # read through tools
    edits: int = 40
    checks: int = 4


@dataclass(frozen=True)
class Outcome:
    """What a call came to. `answer` is set by the tool that finishes; `waiting`: not done yet, perform it again."""

    text: str
    refused: bool = False
    answer: Answer | None = None
    waiting: float = 0.0


def _tool(name: str, description: str, needed: tuple[str, ...] = (), **properties: Mapping[str, Any]) -> Tool:
    schema = {"type": "object", "properties": properties, "required": list(needed), "additionalProperties": False}
    return Tool(name, description, schema)


TEXT, WHOLE = {"type": "string"}, {"type": "integer"}
LOOK = (
    _tool("list_files", "The files, with their length in lines; of a folder alone, where you name one.", folder=TEXT),
    _tool("read_file", "Lines of a file, numbered.", ("path",), path=TEXT, first=WHOLE, last=WHOLE),
    _tool("search", "Lines of all files that hold a text or match a simple regular expression.", ("pattern",),
          pattern=TEXT),
    _tool("lessons", "What earlier experiments taught about something, in a few words.", ("query",), query=TEXT),
    _tool("results", "The newest verdicts of the project.", limit=WHOLE),
    _tool("log", "The end of the log of an experiment's candidate.", ("experiment",), experiment=WHOLE),
    _tool("curve", "A metric of both arms over the steps of a training.", ("experiment", "metric"), experiment=WHOLE,
          metric=TEXT),
)  # fmt: skip
EDIT = (
    _tool("replace", "Exchange a piece of a file that stands in it exactly once.", ("path", "old", "new"), path=TEXT,
          old=TEXT, new=TEXT),
    _tool("write_file", "Write a whole file, new or in the place of the old one.", ("path", "text"), path=TEXT,
          text=TEXT),
    _tool("set_constant", "Give an upper-case constant that holds a number another value.", ("constant", "value"),
          constant=TEXT, value={"type": "number"}, path=TEXT),
    _tool("check", "Look whether the files as they are now can run."),
)  # fmt: skip
FINISH = {
    "propose": Tool("finish_idea", "Propose this idea, and end.", IDEA),
    "implement": Tool("finish_change", "Hand in the files as they are now, and end.", CHANGE),
    "review": Tool("finish_review", "Give your advice on the change, and end.", REVIEW),
}


def tools_for(purpose: str, edits: Collection[str] = EDITS) -> tuple[Tool, ...]:
    """The tools of a session of this purpose, of the edits only these; the last one finishes it."""
    changing = (tool for tool in EDIT if tool.name in edits or tool.name not in EDITS)
    return (*LOOK, *(changing if purpose == "implement" else ()), FINISH[purpose])


def perform(call: ToolCall, workspace: Workspace, desk: Desk, quotas: Quotas, purpose: str) -> Outcome:
    """Do one call. `quotas`: what is left."""
    if call.name not in {tool.name for tool in tools_for(purpose)}:
        return Outcome(f"there is no tool {call.name[:60]!r} here", refused=True)
    try:
        arguments = call.parsed()
        if call.name == FINISH[purpose].name:
            return Outcome("Thank you.", answer=_answer(purpose, arguments, workspace))
        if refusal := _over(call.name, quotas):
            return Outcome(refusal, refused=True)
        text = _act(call.name, arguments, workspace, desk)
    except NotThere as slip:
        return Outcome(f"Nothing was changed: {slip}")
    except FormatError as error:
        return Outcome(f"{MALFORMED}{error}")
    except ToolRefused as refusal:
        return Outcome(f"Refused: {refusal}", refused=True)
    if isinstance(text, Waiting):
        return Outcome("", waiting=text.seconds)
    return Outcome(quoted(call.name, text, min(LONGEST_ANSWER, max(200, quotas.characters))))


def replay(call: ToolCall, workspace: Workspace) -> None:
    """Do an edit of an earlier turn once more; one that was no edit then is none now."""
    try:
        if call.name in EDITS:
            _edit(call.name, call.parsed(), workspace)
    except (FormatError, ToolRefused):
        pass


def _over(name: str, quotas: Quotas) -> str:
    spent = {
        "calls of tools": quotas.calls <= 0,
        "characters to read": quotas.characters <= 0,
        "edits": name in EDITS and quotas.edits <= 0,
        "checks": name == "check" and quotas.checks <= 0,
    }
    gone = [what for what, is_spent in spent.items() if is_spent]
    return f"Refused: this session has used up its {gone[0]}; finish with what you have" if gone else ""


def _answer(purpose: str, arguments: Mapping[str, Any], workspace: Workspace) -> Answer:
    if purpose == "propose":
        return IdeaAnswer.from_json(arguments)
    if purpose == "review":
        return ReviewAnswer.from_json(arguments)
    said = ChangeAnswer.from_json({**arguments, "files": {}})
    if not (changed := workspace.changed()):
        raise FormatError("no file is changed yet; edit first, then finish")
    return ChangeAnswer(said.summary, changed)


def _act(name: str, given: Mapping[str, Any], workspace: Workspace, desk: Desk) -> str | Waiting:
    if name in EDITS:
        return _edit(name, given, workspace)
    acts: dict[str, Callable[[], str | Waiting]] = {
        "list_files": lambda: workspace.listing(_text(given, "folder") if given.get("folder") else ""),
        "read_file": lambda: workspace.read(_text(given, "path"), _whole(given, "first", 1), _whole(given, "last", 0)),
        "search": lambda: workspace.search(_text(given, "pattern")),
        "lessons": lambda: desk.lessons(_text(given, "query")[:400]),
        "results": lambda: desk.results(_whole(given, "limit", 20)),
        "log": lambda: desk.log(_whole(given, "experiment")),
        "curve": lambda: desk.curve(_whole(given, "experiment"), _text(given, "metric")[:120]),
        "check": lambda: desk.check(workspace.changed()),
    }
    return acts[name]()


def _edit(name: str, given: Mapping[str, Any], workspace: Workspace) -> str:
    if name == "replace":
        return workspace.replace(_text(given, "path"), _text(given, "old"), _text(given, "new"))
    if name == "set_constant":
        path = _text(given, "path") if "path" in given else ""
        return workspace.set_constant(_text(given, "constant"), _number(given, "value"), path)
    return workspace.write(_text(given, "path"), _text(given, "text"))


def _text(given: Mapping[str, Any], name: str) -> str:
    if not isinstance(found := given.get(name), str):
        raise FormatError(f"{name} must be a text")
    return found


def _number(given: Mapping[str, Any], name: str) -> float:
    found = given.get(name)
    if isinstance(found, bool) or not isinstance(found, int | float) or not abs(found) < 1e300:
        raise FormatError(f"{name} must be a number")
    return found


def _whole(given: Mapping[str, Any], name: str, default: int | None = None) -> int:
    found = given.get(name, default)
    if isinstance(found, float) and found.is_integer():
        found = int(found)
    if isinstance(found, bool) or not isinstance(found, int) or abs(found) > 10**9:
        raise FormatError(f"{name} must be a whole number")
    return found
