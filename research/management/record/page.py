"""The page of a record: Markdown with its tables and figures, from the record alone."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from research.management.record import Record, check
from research.management.record.figures import Figure, closing_gain, over_time
from research.management.record.words import ASSEMBLED, between, label, percent, signed


def page(record: Record, name: str, drawn: Sequence[Figure]) -> str:
    """`name`: of the record's file, without its ending; the figures lie in a folder of that name beside the page."""
    pictures = {figure.name: f"![{figure.title}]({name}/{figure.name}.svg)" for figure in drawn}
    sections = [_head(record, name), _seeds(record), _quality(record), _frontier(record), _merges(record, name)]
    titles = (
        ("seeds", "Champion and start, seed by seed"), ("quality", "Quality against training time"),
        ("frontier", "The search"), ("parts", "What was merged"),
    )  # fmt: skip
    parts = [sections[0]]
    for (figure, title), text in zip(titles, sections[1:], strict=True):
        if text or figure in pictures:
            parts += [f"## {title}", pictures.get(figure, ""), text]
    for figure, title in (("curves", "Learning curves"), ("fidelity", "The screening preset")):
        if figure in pictures:
            parts += [f"## {title}", pictures[figure]]
    parts += [_ablation(record), _surroundings(record), _commands(record, name), _verdicts(record)]
    return "\n\n".join(part for part in parts if part) + "\n"


def _head(record: Record, name: str) -> str:
    project, summary, gain = record["project"], record["summary"], closing_gain(record)
    screened = f", screened at `{project['screen_preset']}`" if project["screen_preset"] else ""
    lines = [
        f"# {project['benchmark']}, preset `{project['preset']}`, start `{project['start']}`",
        f"**{label(record).capitalize()}.** {_assembled(record)}Researcher: {', '.join(project['researchers'])}"
        f"{screened}. This page and its figures are made from the [record]({name}.json) alone.",
    ]  # fmt: skip
    lines += [_withheld(record)] if record.get("withheld") else []
    if gain is not None and gain.effect is not None:
        start, now, share = (summary[key] for key in ("start_score", "champion_score", "gain_percent"))
        lines.append(
            f"On {gain.pairs} fresh pairs (`{record['closing']['set']}`): **{start:.4f} → {now:.4f} "
            f"{project['metric']['unit']}, {abs(share):.1f} % {'better' if share >= 0 else 'worse'}**; gain "
            f"{signed(gain.effect)}{between(vars(gain))}."
        )
    return "\n\n".join(lines)


def _withheld(record: Record) -> str:
    project, names = record["project"], record["withheld"]
    return (
        f"**Left out:** definitions, workloads and references of {len(names)} problem{'s' * (len(names) != 1)} that "
        f"others wrote, whose licence may forbid to pass them on ({', '.join(names)}); diffs show added lines alone. "
        f"Fetch the problems from where they are published, then `python -m benchmarks.{project['benchmark']} prepare "
        f"--problems DIR --preset {project['preset']}` makes the data of this record, `{project['data_id'][:16]}`."
    )


def _assembled(record: Record) -> str:
    """Where the gain comes from, if every step of the champion was known before."""
    if label(record) != ASSEMBLED:
        return ""
    steps = record["champion"]["steps"]
    said = (
        "Every step of the champion stands in the lab's catalogue, with its source; the search chose and ordered them. "
    )
    if tuned := sum(step["tuned_here"] for step in steps):
        said += f"Of {len(steps)} steps {tuned} had their defaults tuned by hand on the screening text before. "
    return said


def _seeds(record: Record) -> str:
    closing = record["closing"]
    if not closing or not closing["pairs"]:
        return ""
    rows = [
        [str(row["seed"]), f"{row['baseline']:.4f}", f"{row['candidate']:.4f}", _better(record, row)]
        for row in closing["pairs"]
    ]
    return table(("seed", "start", "champion", "better by"), rows)


def _better(record: Record, row: dict[str, Any]) -> str:
    sign = 1 if record["project"]["metric"]["lower_is_better"] else -1
    return percent(sign * (row["baseline"] - row["candidate"]) / abs(row["baseline"]))


def _quality(record: Record) -> str:
    rows = [
        [name, row.preset, f"{row.seconds:g} s", f"{row.mean:.4f}" + (f" ± {row.half:.4f}" if row.half else ""),
         str(len(row.scores))]
        for name, mine in over_time(record).items()
        for row in mine
    ]  # fmt: skip
    if not rows:
        return ""
    found = [f"- {name}: **{row['words']}**" for name, mine in record["results"]["sooner"].items() for row in mine]
    transfers = [
        [row["label"], f"{row['baseline']:.4f}", f"{row['candidate']:.4f}", signed(row["effect"]) + between(row),
         str(row["pairs"])]
        for row in record["results"]["transfers"]
    ]  # fmt: skip
    said = [table(("commit", "preset", "budget", record["project"]["metric"]["unit"], "trials"), rows)]
    said += ["\n".join(found)] if found else []
    said.append("What transfers, pair by pair, with intervals whose ends hold at every look:")
    said.append(table(("measured", "start", "other", "gain", "pairs"), transfers))
    return "\n\n".join(said)


def _frontier(record: Record) -> str:
    summary = record["summary"]
    kinds = ", ".join(f"{count} {kind.replace('_', ' ')}" for kind, count in summary["experiments"].items())
    return (
        f"{summary['ended_in_verdict']} verdicts ({kinds}), {summary['trials']} trials, "
        f"{summary['merges']} merge{'s' * (summary['merges'] != 1)}, "
        f"{summary['device_seconds']:,.0f} device-seconds, {summary['wall_seconds']:,.0f} seconds of search."
    )


def _merges(record: Record, name: str) -> str:
    sources = {step["name"]: step for step in record["champion"]["steps"]}
    verdicts = {row["number"]: row for row in record["verdicts"]}
    rows = []
    for at, one in enumerate(record["merges"], 1):
        row = verdicts[one["number"]]
        names = [step["technique"] for step in row["idea"].get("steps", [])]
        known = {sources[name]["source"] for name in names if name in sources and sources[name]["source"]}
        rows.append([
            f"{at}", str(one["number"]), one["name"], signed(row["effect"]) + between(row), str(row["pairs"]),
            f"{row['e_value']:.3g}", "; ".join(sorted(known)) or row["idea"].get("researcher", ""),
        ])  # fmt: skip
    heads = ("merge", "experiment", "what", "gain", "confirm pairs", "e-value", "source")
    whole = f"What the champion is more than the start, as one diff: [champion.patch]({name}/champion.patch)."
    return f"{table(heads, rows)}\n\n{whole}" if rows else ""


def _ablation(record: Record) -> str:
    rows = [
        [row["label"], signed(row["loss"]["effect"]) + between(row["loss"]), str(row["loss"]["pairs"])]
        for row in record["summary"]["ablation"] or []
    ]
    return "## Without each change\n\n" + table(("without", "lost", "pairs"), rows) if rows else ""


def _surroundings(record: Record) -> str:
    around, project = record["surroundings"], record["project"]
    machines = [[row["machine_class"], str(row["isolation_level"]), str(row["trials"])] for row in around["machines"]]
    earlier = ({"preset": name, **floor} for name, floor in record["noise_floors"].items())  # records without classes
    floors = [
        [" on ".join(floor[key] for key in ("preset", "machine_class") if key in floor),
         f"{floor['sigma_trial']:.5f}", f"{floor['sigma_pair']:.5f}", str(floor["trials"])]
        for floor in record.get("floors_by_class", earlier)
    ]  # fmt: skip
    device = ", ".join(f"{name} {value}" for name, value in around["device"].items())
    versions = ", ".join(f"{name} {value}" for name, value in around["recorded_with"].items())
    hashes = "; ".join(f"{name} {' '.join(value[:12] for value in found)}" for name, found in around["hashes"].items())
    said = [
        "## Surroundings",
        table(("machine", "isolation level", "trials"), machines),
        f"The same in all trials: {device}. Recorded with {versions}. Hashes: {hashes}. Begun {project['created']}.",
        table(("noise floor at", "sd of a trial", "sd of a pair", "trials"), floors) if floors else "",
    ]
    return "\n\n".join(part for part in said if part)


def _commands(record: Record, name: str) -> str:
    lines = [f"python {command}" for command in record["commands"]]
    lines.append(f"python manage.py record {record['project']['name']} --out docs/results/{name}.json")
    return "## Commands\n\n```sh\n" + "\n".join(lines) + "\n```"


def _verdicts(record: Record) -> str:
    rows = [
        [str(row["number"]), row["idea"]["name"] + f" ({row['purpose']})" * (row["purpose"] != "compare"),
         row["kind"].replace("_", " ") + (", merged" * row["merged"]),
         row["stage"], percent(row["relative"]), str(row["pairs"]), str(row["trials"])]
        for row in record["verdicts"]
    ]  # fmt: skip
    if not rows:
        return ""
    wrong = check.broken(record)
    sound = (
        f"All {len(rows)} follow from the evidence in the record by the rule in it: recomputed when this page was made."
        if not wrong
        else f"Not reached again from the evidence in the record: experiments {', '.join(map(str, wrong))}."
    )
    heads = ("experiment", "change", "verdict", "stage", "gain, all pairs", "confirm pairs", "trials")
    return (
        f"## Verdicts\n\n{sound}\n\n<details><summary>All {len(rows)}</summary>\n\n{table(heads, rows)}\n\n</details>"
    )


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [
        heads,
        ["---"] * len(heads),
        *([cell.replace("|", "\\|").replace("\n", " ") for cell in row] for row in rows),
    ]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
