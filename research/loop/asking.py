"""What a model is asked: the opening of a session, and which models are asked in which order. Used by steps.

What always holds for a project comes first, word for word the same, so that endpoints can keep it; what changes from
one session to the next comes last. Words of others go in as quotations.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from functools import cache

from research.loop.decide import direction_of
from research.loop.desk import RowDesk
from research.loop.scope import about, shown, steered
from research.models import Call, Idea, Project, ProjectPrompt, Session, Thread
from research.models.asked import lines_of
from research.models.session import CAP
from research.researchers.llm import prompts
from research.researchers.llm.conversation import room_for_files, room_for_words
from research.researchers.llm.models import HOW, ModelsError, models_from, with_role
from research.researchers.llm.quoting import RULE, quoted, wishes
from research.researchers.llm.wire import ModelSpec

FAILURES = 3  # failed sessions in a row, until a thread waits for a person
AT_ONCE = ("unauthorized", "bad_request", "broken")  # another try would end the same way
RESULTS = 20  # verdicts that an opening shows
Purpose = Session.Purpose


class NoModel(Exception):
    """Nobody can be asked. One line with what to do."""


@cache
def models() -> tuple[ModelSpec, ...]:
    """The configured models. Raises ModelsError where they cannot be read."""
    return models_from(os.environ)


def known_models() -> tuple[ModelSpec, ...]:
    """The configured models; none where they cannot be read, which whoever asks one is told."""
    try:
        return models()
    except ModelsError:
        return ()


def for_role(purpose: str) -> tuple[ModelSpec, ...]:
    """Who is asked, in order. Raises NoModel where nobody is there to propose or implement."""
    found = with_role(models(), purpose)
    if not found and purpose != Purpose.REVIEW:
        raise NoModel(f"no model is configured that may {purpose}: {HOW}, then resume this thread")
    return found


def next_key(purpose: str, of: str) -> str:
    """The key of one more try at this: tries are counted, so a step that runs again finds the one it began."""
    prefix = f"{purpose}-{of}."
    return f"{prefix}{Session.objects.filter(key__startswith=prefix).count() + 1}"


def latest(purpose: str, of: str) -> Session | None:
    """The newest try at this."""
    return Session.objects.of_the_loop().filter(key__startswith=f"{purpose}-{of}.").order_by("-pk").first()


def ask_for_idea(thread: Thread, number: int) -> Session:
    """Open the session that is to end in the thread's idea `number`."""
    specs = for_role(Purpose.PROPOSE)
    desk, direction = RowDesk(thread.project, thread.head), direction_of(thread, number, specs)
    chain = {name: at for at, name in enumerate(direction.model_chain)}
    specs = tuple(sorted(specs, key=lambda spec: chain[spec.name]))
    words = min(room_for_words(spec, 8_000) for spec in specs)
    parts = {
        "direction": direction.words,
        "results": quoted("results", desk.results(RESULTS), words),
        "lessons": quoted("lessons", desk.lessons(direction.words), words + 1_000),
    }
    of = f"{thread.public_id}-{number}"
    return _open(thread, Purpose.PROPOSE, of, specs, parts, steered(thread) or direction.problems, mode=direction.mode)


def ask_for_change(idea: Idea, feedback: str = "") -> Session:
    """Open the session that is to end in the code of an idea, on the head. `feedback`: why it is asked once more."""
    specs = for_role(Purpose.IMPLEMENT)
    thread = idea.thread
    desk = RowDesk(thread.project, thread.head)
    words = min(room_for_words(spec, 8_000) for spec in specs)
    parts = {
        "idea": quoted("the idea", words_of(idea), 8_000),
        "lessons": quoted("lessons", desk.lessons(" ".join([idea.name, *idea.tags])), words + 1_000),
        "feedback": f"{feedback}\n" if feedback else "",
    }
    return _open(thread, Purpose.IMPLEMENT, idea.public_id, specs, parts, about(idea), idea)


def ask_for_review(idea: Idea, change: Session, patch: str) -> Session | None:
    """Open the session that looks at a change; None where no model reviews."""
    if not (specs := for_role(Purpose.REVIEW)):
        return None
    parts = {"idea": quoted("the idea", words_of(idea), 8_000), "change": quoted("the change", patch, 40_000)}
    return _open(idea.thread, Purpose.REVIEW, change.public_id, specs, parts, about(idea), idea, change.base)


def begin_session(thread: Thread, ask: Callable[[], Session]) -> bool:
    """Open one; a thread for which nobody can be asked halts, with what to do."""
    try:
        ask()
    except (NoModel, ModelsError) as nobody:
        thread.give_up(str(nobody))
        return False
    return True


def ended_without(session: Session) -> bool:
    """A session that brought no answer: by a cap, by steering, by failure. True where the thread can go on at once.

    Once for each. A thread that lacks money ends, when nothing of it runs any more; the reason stays on it.
    """
    thread = session.thread
    if session.state == Session.State.STOPPED and session.failure == CAP:
        if thread.note != session.note:
            thread.tell(session.note)
        if not (thread.experiments.running().exists() or thread.waiting_candidate):
            thread.finish(session.note)
        return False
    if not session.take() or session.state == Session.State.STOPPED:
        return True
    row = thread.sessions.filter(purpose=session.purpose).failures_in_a_row()
    what = f"a session to {session.purpose} failed ({session.failure.replace('_', ' ')}): {session.note}"
    if session.failure in AT_ONCE:
        thread.give_up(f"{what}; mend that, then resume this thread")
        return False
    if row % FAILURES == 0:
        thread.give_up(f"{row} sessions to {session.purpose} failed in a row; the last: {session.note}. Look at the "
                       "session, mend what it says, then resume this thread")  # fmt: skip
        return False
    thread.tell(what)
    return True


def answering_model(session: Session) -> str:
    """The model that gave the answer."""
    call = session.calls.filter(state=Call.State.ANSWERED).order_by("-number").first()
    return call.model if call else ""


def words_of(idea: Idea) -> str:
    return f"{idea.name}\n\n{idea.hypothesis}\n\nPlan: {idea.plan}\n\nExpected: {idea.expected_effect:+.2%}"


def prompt_for(project: Project, name: str) -> prompts.Prompt:
    """The text that this project's sessions begin with: its own where it has one."""
    own = ProjectPrompt.of(project, name)
    return prompts.prompt_of(name, f"own-{own.version}", own.text) if own else prompts.load(name)


def _open(
    thread: Thread, purpose: Purpose, of: str, specs: tuple[ModelSpec, ...], parts: dict[str, str],
    problems: Sequence[str], idea: Idea | None = None, base: str = "", mode: str = "",
) -> Session:  # fmt: skip
    base = base or thread.head
    prompt = prompt_for(thread.project, purpose)
    room = min(room_for_files(spec) for spec in specs)
    parts = {
        "question": thread.project.question, "facts": facts(thread.project), "data_rule": RULE,
        "editable": ", ".join(thread.project.contract.editable), "files": shown(thread.project, base, room, problems),
        "directives": wishes(directives(thread)), **parts,
    }  # fmt: skip
    system, task = prompts.opening(prompt, **parts)
    return Session.begin(
        next_key(purpose, of), thread, purpose, [("system", system), ("user", task)], base=base,
        prompt=str(prompt)[:80], chain=[spec.name for spec in specs], idea=idea, mode=mode,
    )  # fmt: skip


def facts(project: Project) -> str:
    """The benchmark in a few lines."""
    contract, sizes = project.contract, project.sizes
    better = "lower is better" if contract.metric.lower_is_better else "higher is better"
    return "\n".join(
        (
            f"- {contract.title}, preset {project.preset}",
            f"- metric: {contract.metric.name} ({contract.metric.unit}), {better}",
            f"- a trial's {contract.work} gets {sizes.budget_seconds:g} {sizes.clock} seconds",
            f"- protected: {', '.join(contract.protected)}",
            *(f"- {line}" for line in contract.explain(sizes, project.data_path) if project.problems),
        )
    )


def directives(thread: Thread) -> str:
    """What people asked of this thread, each on a line."""
    asked = thread.directives
    rows = [f"only: {', '.join(asked['focus'])}"] if asked.get("focus") else []
    rows += [f"leave alone: {', '.join(asked['forbid'])}"] if asked.get("forbid") else []
    rows += [f"note: {asked['note']}"] if asked.get("note") else []
    rows += lines_of(asked)
    if asked.get("try"):
        rows.append(f"sent back, to be done differently: {', '.join(_names(thread, asked['try']))}; {thread.note}")
    return "\n".join(rows) or "nothing in particular"


def _names(thread: Thread, techniques: list[str]) -> list[str]:
    titles = {f"change-{idea.public_id}": idea.name for idea in Idea.objects.filter(thread__project=thread.project)}
    return [titles.get(name, name) for name in techniques]
