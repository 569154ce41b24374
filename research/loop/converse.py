"""One step of a session: perform the next call of a tool, or ask the model. Run by the process of the sessions.

`turn` reads the rows, does exactly one thing, stores what came, and forgets everything: any process can go on. What
is in memory only, a reply that is still streaming, is what a kill loses; it is asked for again, and its reserve stays
on the account.

    a reply is there with a call        performed, its answer stored
    the finishing call                  the session has ended; `answer` is for the loop
    nothing is open                     what it may cost is reserved, the model asked, reply and cost stored together
    the endpoint says no                by kind: wait, next model, compact, fail
    a cap could be passed               stopped; raising the cap lets it go on
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path

from django.db import transaction
from django.utils import timezone

from research.loop.desk import RowDesk
from research.loop.scope import about, of_these, texts_of
from research.models import Call, Ceiling, HoldLost, Message, OverCap, Session
from research.models.session import CAP
from research.researchers.llm import tools
from research.researchers.llm.client import Client
from research.researchers.llm.conversation import Ask, Fitted, Give, Perform, Tell, fit, left, next_step
from research.researchers.llm.held import within
from research.researchers.llm.wire import ContextFull, ModelError, ModelSpec, Tool, ToolCall
from research.researchers.llm.wire import Message as Said
from research.researchers.llm.workspace import Workspace

log = logging.getLogger("lab.sessions")

HOLD_SECONDS = 60.0  # between two signs of life, beside the time-out of the model
SAVE_SECONDS = 0.5  # a streaming reply is shown so often
HOST, TOKEN = socket.gethostname()[:12], secrets.token_hex(3)
QUOTAS = tools.Quotas()
LONGEST_WAIT = 900.0
TRIES = {"rate_limited": 12, "unavailable": 4, "cut_off": 3, "refused": 1, "context_full": 4}  # in a row, of one model
FINAL = ("unauthorized", "bad_request")  # never tried again as it is


def owner_here() -> str:
    """Who holds, from this thread of this process: a process id can come back, the token does not."""
    return f"{HOST}-{os.getpid()}-{TOKEN}{threading.get_native_id()}"[:40]


def converse_until_idle(pk: int, models: Mapping[str, ModelSpec]) -> int:
    """Work on a session until it ends, waits or is somebody else's. Returns the number of steps."""
    owner, steps = owner_here(), 0
    try:
        while (session := _mine(pk, owner)) is not None:
            try:
                if not turn(session, owner, models):
                    break
            except HoldLost:
                break
            except Exception:  # noqa: BLE001  a broken step becomes a failed session, visibly: never asked for ever
                log.exception("%s failed", session)
                session.fail("broken", traceback.format_exc()[-2_000:])
                break
            steps += 1
    finally:
        Session(pk=pk).let_go(owner)
    return steps


def let_go_of_the_dead() -> None:
    """Free what a process of this host held when it was killed, without waiting for the hold to end."""
    for session in Session.objects.open().filter(held_by__startswith=f"{HOST}-"):
        pid, _, rest = session.held_by.removeprefix(f"{HOST}-").partition("-")
        mine = pid == str(os.getpid()) and rest.startswith(TOKEN)
        if not mine and (pid == str(os.getpid()) or not Path(f"/proc/{pid}").exists()):
            session.let_go(session.held_by)


def turn(session: Session, owner: str, models: Mapping[str, ModelSpec]) -> bool:
    """Exactly one step. False where nothing more is to be done now."""
    rows = list(session.messages.order_by("number"))
    said = [_said(row) for row in rows]
    offered = tools.tools_for(session.purpose)
    match next_step(said, offered, QUOTAS):
        case Perform(call):
            return _perform(session, owner, call, said)
        case Tell(text):
            session.add(Message.Role.USER, text)
            return True
        case Give(kind, reason):
            session.fail(kind, reason)
            return False
        case Ask():
            return _ask(session, owner, rows, models)
    raise AssertionError("a step of another kind")


def workspace_of(session: Session, said: Sequence[Said]) -> Workspace:
    """The files of the session's commit with the edits of its transcript."""
    project = session.project
    contract = project.contract
    sources = texts_of(project.repository_path, session.base)
    workspace = Workspace(sources, contract.editable, contract.protected)
    answered: list[ToolCall] = []
    for message in said:
        if message.role == "assistant":
            answered = list(message.tool_calls)
        elif message.role == "tool" and answered:
            tools.replay(answered.pop(0), workspace)
    return workspace


def _mine(pk: int, owner: str) -> Session | None:
    found = Session.objects.askable(owner).select_related("thread", "project").filter(pk=pk).first()
    return found if found is not None and found.hold(owner, HOLD_SECONDS) else None


def _said(row: Message) -> Said:
    calls = tuple(ToolCall(call["id"], call["name"], call["arguments"]) for call in row.tool_calls)
    return Said(row.role, row.content, calls, row.tool_call_id, row.name)


def _perform(session: Session, owner: str, call: ToolCall, said: Sequence[Said]) -> bool:
    quotas = left(said, QUOTAS)
    desk = RowDesk(session.project, session.base, session.public_id, session.created)
    outcome = tools.perform(call, workspace_of(session, said), desk, quotas, session.purpose)
    if outcome.waiting:
        session.wait(timezone.now() + timedelta(seconds=outcome.waiting))
        return False
    text = outcome.text
    if outcome.answer is None and quotas.turns <= 4:
        text += f"\n({quotas.turns} replies are left: finish)"
    with transaction.atomic():
        if not session.is_held_by(owner):
            raise HoldLost
        session.add(
            Message.Role.TOOL, text.replace("\0", "\N{SYMBOL FOR NULL}"), tool_call_id=call.id, name=call.name[:80],
            refused=outcome.refused,
        )  # fmt: skip
        if outcome.answer is not None:
            session.end(outcome.answer.to_json())
    return outcome.answer is None


# Asking


@dataclass(frozen=True)
class Choice:
    """Who is asked next, how often in a row that failed, and how often its context was found too small."""

    spec: ModelSpec
    failures: int
    shrink: int


def choose(session: Session, models: Mapping[str, ModelSpec]) -> Choice | str:
    """The first model of the chain that has not used up its tries; else why nobody is left."""
    calls = list(session.calls.order_by("-number").values_list("model", "state", "failure", "note"))
    last = "none of its models is configured any more"
    for name in session.chain:
        spec = models.get(name)
        if spec is None:
            continue
        failures: list[str] = []
        for model, state, failure, note in calls:  # its newest ones, back to its last reply
            if model == name and state == Call.State.ANSWERED:
                break
            if model == name and state == Call.State.FAILED:
                last = note if not failures else last
                failures.append(failure)
        shrink = failures.count("context_full")
        if all(failures.count(kind) < tries for kind, tries in TRIES.items()):
            return Choice(spec, len(failures), shrink)
    return last


def _ask(session: Session, owner: str, rows: Sequence[Message], models: Mapping[str, ModelSpec]) -> bool:
    choice = choose(session, models)
    if isinstance(choice, str):
        last = session.calls.filter(state=Call.State.FAILED).last()
        session.fail(last.failure if last else "no_model", choice)
        return False
    spec = choice.spec
    offered = tools.tools_for(session.purpose, spec.edits)
    if not spec.tools:
        workspace = workspace_of(session, [_said(row) for row in rows])
        mine = of_these(workspace.editable_paths(), about(session.idea) if session.idea else ())
        offered = within(offered, mine, workspace.constants(mine))
    try:
        fitted = _fitted(session, rows, offered, choice)
        most = Ceiling(fitted.tokens, spec.reply_tokens, spec.reserve(fitted.tokens))
        note = f"{len(fitted.left_out)} messages were left out to fit" if fitted.left_out else ""
        call = Call.reserve(session, owner, spec.name, most, note)
    except ContextFull as full:
        session.fail(full.kind, str(full))
        return False
    except OverCap as cap:
        session.stop(CAP, str(cap))
        return False
    session.hold(owner, HOLD_SECONDS + spec.timeout_seconds)
    try:
        reply = Client(spec).ask(fitted.messages, offered, _Watch(session, call, owner, spec).text)
    except ModelError as error:
        call.fail(error.kind, str(error), error.charged, error.text)
        return _after(session, error, choice)
    except HoldLost:
        call.fail("stopped", "the session was stopped while the reply came", charged=True)
        raise
    return call.settle(owner, reply, spec.price(reply.usage))


def _fitted(session: Session, rows: Sequence[Message], offered: Sequence[Tool], choice: Choice) -> Fitted:
    """What is sent; what no longer fits is marked as left out."""
    kept = [row for row in rows if not row.left_out]
    smaller = int(choice.spec.context_tokens * 0.75**choice.shrink)
    spec = replace(choice.spec, context_tokens=max(smaller, choice.spec.reply_tokens + 1))
    fitted = fit([_said(row) for row in kept], offered, spec, len(rows) - len(kept))
    session.leave_out(kept[at].number for at in fitted.left_out)
    return fitted


def _after(session: Session, error: ModelError, choice: Choice) -> bool:
    """What a failed call means for its session. True where it may be asked again at once."""
    if error.kind in FINAL:
        session.fail(error.kind, str(error))
        return False
    if error.kind in ("rate_limited", "unavailable"):
        pause = error.wait if error.wait is not None else min(2.0**choice.failures, 60.0)
        session.wait(timezone.now() + timedelta(seconds=min(pause, LONGEST_WAIT)))
        return pause <= 0
    return True


class _Watch:
    """Shows a reply while it streams, and keeps the hold. Raises HoldLost where the session was stopped meanwhile."""

    def __init__(self, session: Session, call: Call, owner: str, spec: ModelSpec) -> None:
        self.session, self.call, self.owner = session, call, owner
        self.seconds = HOLD_SECONDS + spec.timeout_seconds
        self.saved = 0.0

    def text(self, text: str) -> None:
        now = time.monotonic()
        if now - self.saved < SAVE_SECONDS:
            return
        self.saved = now
        if not self.session.hold(self.owner, self.seconds):
            raise HoldLost
        self.call.stream(text.replace("\0", "\N{SYMBOL FOR NULL}"))
