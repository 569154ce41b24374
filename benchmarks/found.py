"""Techniques that were found: a change of a researcher's own, applied again by the context of its hunks.

A hunk goes where its lines stand word for word, once, whatever moved above it; else the technique does not apply.
Nothing here ships with the lab: what applies such a technique is code from outside.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import pairwise

from unidiff.patch import PatchedFile, PatchSet

from benchmarks import edits
from benchmarks.catalogue import Catalogue, Sources, Step, Technique, Tunable, Tunables
from benchmarks.edits import DoesNotApply
from benchmarks.syntax import parse

CONSTANT = re.compile(r"^\+([A-Z][A-Z0-9_]*)\s*=\s*(-?\d+(?:\.\d+)?(?:e-?\d+)?)\s*(?:#.*)?$", re.MULTILINE)


@dataclass(frozen=True)
class Fit:
    """Where a technique applies. Empty: it does; else why not. `kept` of `others` still apply on top of it."""

    start: str
    champion: str
    kept: int
    others: int
    lost: tuple[str, ...]


def constants_of(patch: str) -> dict[str, float]:
    """Upper-case constants that the change sets to a number: what may become tunable."""
    return {name: float(value) for name, value in CONSTANT.findall(patch)}


def apply_patch(sources: Sources, patch: str) -> Sources:
    """The sources with every hunk in its place. Raises DoesNotApply."""
    changed = dict(sources)
    for file in PatchSet(patch):
        path = file.path
        if file.is_added_file:
            if path in changed:
                raise DoesNotApply(f"{path} is there already")
            lines = [line.value.rstrip("\n") for hunk in file for line in hunk if line.is_added]
        elif path not in changed:
            raise DoesNotApply(f"there is no {path}")
        else:
            lines = _changed(file, changed[path].splitlines())
        if file.is_removed_file:
            if lines:
                raise DoesNotApply(f"{path} holds more than what was removed")
            del changed[path]
            continue
        changed[path] = "\n".join(lines).rstrip("\n") + "\n"
        try:
            parse(changed[path], path)
        except (SyntaxError, ValueError) as error:
            raise DoesNotApply(f"{path} makes no valid Python") from error
    return changed


def _changed(file: PatchedFile, lines: list[str]) -> list[str]:
    """Each hunk where its old lines stand once, in the order of the patch."""
    places = []
    for hunk in file:
        old = [line.value.rstrip("\n") for line in hunk if line.is_context or line.is_removed]
        new = [line.value.rstrip("\n") for line in hunk if line.is_context or line.is_added]
        found = _places(lines, old)
        if not hunk.removed and _places(lines, new):  # at an end of a file, its context still stands beside it
            raise DoesNotApply(f"{file.path} has what it adds already")
        if len(found) != 1:
            first = next((line for line in old if line.strip()), "")
            raise DoesNotApply(
                f"the lines from {first.strip()[:60]!r} stand {len(found)} times in {file.path}, not once"
            )
        places.append((found[0], len(old), new))
    if any(at + size > below for (at, size, _), (below, _, _) in pairwise(places)):
        raise DoesNotApply(f"the changes of {file.path} would overlap")
    for at, size, new in reversed(places):
        lines[at : at + size] = new
    return lines


def _places(lines: Sequence[str], block: Sequence[str]) -> list[int]:
    """Where a block of lines stands."""
    return [at for at in range(len(lines) - len(block) + 1) if lines[at : at + len(block)] == block]


def technique_from(
    name: str, title: str, family: str, hypothesis: str, source: str, patch: str,
    tunables: Sequence[Mapping[str, object]], gain: float, sd: float, own_step: str = "",
) -> Technique:  # fmt: skip
    """The technique that does `patch` again. `tunables`: the constant's name, default, low, high, log, integer."""

    def apply(sources: Sources, chosen: Tunables) -> Sources:
        changed = apply_patch(sources, patch)
        for tunable in knobs:
            value = chosen.get(tunable.name, tunable.default)
            if value != tunable.default:
                changed = _set(changed, paths, tunable.name.upper(), value)
        return changed

    knobs = tuple(Tunable(**tunable) for tunable in tunables)  # type: ignore[arg-type]
    paths = files_of(patch)
    excludes = (own_step,) if own_step else ()
    return Technique(name, title, family, hypothesis, source, apply, knobs, gain, sd, excludes)


def files_of(patch: str) -> list[str]:
    return sorted({file.path for file in PatchSet(patch)})


def _set(sources: Sources, paths: Sequence[str], constant: str, value: object) -> Sources:
    for path in paths:
        if path in sources and re.search(rf"^{constant}\s*=", sources[path], re.MULTILINE):
            return sources | {path: edits.constant(sources[path], constant, value)}
    raise DoesNotApply(f"the change sets no constant {constant}")


def fit(catalogue: Catalogue, technique: Technique, start: Sources, champion: Sources) -> Fit:
    """Try it: on the start, on the champion, and every other technique of the catalogue on top of it."""
    with_it, why = _tried(technique, start)
    _, why_not_here = _tried(technique, champion)
    others = [other for other in catalogue.values() if other.name != technique.name and not _tried(other, start)[1]]
    lost = [other.name for other in others if with_it is not None and _tried(other, with_it)[1]]
    kept = len(others) - len(lost) if with_it is not None else 0
    return Fit(why, why_not_here, kept, len(others), tuple(lost))


def _tried(technique: Technique, sources: Sources) -> tuple[Sources | None, str]:
    try:
        return technique.apply(dict(sources), technique.defaults()), ""
    except DoesNotApply as error:
        return None, str(error)


def with_found(catalogue: Catalogue, found: Sequence[Technique]) -> Catalogue:
    """The lab's own techniques and those found here; a name that ships with the lab wins."""
    return Catalogue([*(one for one in found if one.name not in catalogue), *catalogue.values()])


def uses(steps: Sequence[Step], names: set[str]) -> bool:
    return any(step.technique in names for step in steps)


def module_of(technique: Technique, patch: str) -> str:
    """A Python module to begin from, for whoever brings the technique into the lab's own catalogue."""
    knobs = "".join(
        f"            Tunable({t.name!r}, {t.default!r}, {t.low!r}, {t.high!r}, {t.log!r}, {t.integer!r}),\n"
        for t in technique.tunables
    )
    tunables = f"        tunables=(\n{knobs}        ),\n" if knobs else ""
    constants = "".join(
        f"    # edits.constant(sources[...], {t.name.upper()!r}, tunables[{t.name!r}])\n" for t in technique.tunables
    )
    return (
        f'"""{_plain(technique.title)}. Made from a change that was found; rewrite it as anchored edits."""\n\n'
        "from __future__ import annotations\n\n"
        "from benchmarks.catalogue import Sources, Technique, Tunable, Tunables\n"
        "from benchmarks.found import apply_patch\n\n"
        f"PATCH = {patch!r}\n\n\n"
        f"def {technique.name}(sources: Sources, tunables: Tunables) -> Sources:\n{constants}"
        "    return apply_patch(sources, PATCH)\n\n\n"
        "TECHNIQUES = [\n    Technique(\n"
        f"        name={technique.name!r},\n        title={technique.title!r},\n        family={technique.family!r},\n"
        f"        hypothesis={technique.hypothesis!r},\n        source={technique.source!r},\n"
        f"        apply={technique.name},\n{tunables}"
        f"        prior_gain={technique.prior_gain!r},\n        prior_sd={technique.prior_sd!r},\n    ),\n]\n"
    )


def _plain(text: str) -> str:
    """For a docstring: no quotes, no backslashes."""
    return re.sub(r'["\\\s]+', " ", text).strip()
