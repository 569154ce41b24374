"""`sol`: the speed of light of every workload, computed here and, where one is known, scaled from the published."""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from statistics import median

from benchmarks.kernels import anchors, bounds
from benchmarks.kernels.bounds import Peaks, Precision, Roof, Work
from benchmarks.kernels.formats.workload import Problem

HELP = "bytes, operations and bound of every workload; or measure the peaks that bounds are made of"


def arguments(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--problems", type=Path, help="a folder of problems instead of our own")
    parser.add_argument("--device", default="H200", help=f"whose datasheet: {', '.join(bounds.DATASHEET)}")
    parser.add_argument("--peaks", type=Path, help="a file that --calibrate wrote, instead of a datasheet")
    parser.add_argument("--calibrate", metavar="DEVICE", help="measure the peaks of cpu or cuda, print them as JSON")
    parser.add_argument("--json", action="store_true", help="everything on one line")


@dataclass(frozen=True)
class Line:
    """One workload; times in milliseconds. What could not be found is None, and `why` says so."""

    problem: str
    uuid: str
    bytes: int | None = None
    macs: int | None = None
    precision: Precision | None = None
    roof: Roof | None = None
    computed_ms: float | None = None
    published_ms: float | None = None
    scaled_ms: float | None = None
    why: str = ""

    @property
    def agreement(self) -> float | None:
        """Computed over scaled."""
        return self.computed_ms / self.scaled_ms if self.computed_ms and self.scaled_ms else None


def run(options: argparse.Namespace, problems: Sequence[Problem]) -> int:
    """Raises BoundError for an unknown device or a damaged file of peaks, AnchorError for damaged published figures."""
    if options.calibrate:
        return calibrate(options.calibrate)
    peaks = read_peaks(options.peaks) if options.peaks else bounds.datasheet(options.device)
    found = list(lines(problems, peaks))
    if options.json:
        print(json.dumps({"peaks": peaks.to_json(), "workloads": [asdict(line) for line in found]}))
        return 0
    print(f"{peaks.device}, {peaks.source} peaks; us")
    print(f"{'problem':44} {'workload':>8} {'MB':>9} {'GMAC':>10} {'at':>5} {'roof':>7} "
          f"{'T_SOL':>10} {'published':>10} {'scaled':>10}")  # fmt: skip
    for line in found:
        print(_text(line))
    print(summary(found))
    return 0


def lines(problems: Sequence[Problem], peaks: Peaks) -> Iterator[Line]:
    """In order. Scaled figures are of the datasheet of the device that `peaks` are of, where there is one."""
    for problem in problems:
        yield from of_problem(problem, peaks)


def of_problem(problem: Problem, peaks: Peaks) -> Iterator[Line]:
    from benchmarks.kernels.cost import CostError, cost  # torch: seconds to import

    name = problem.definition.name
    works: dict[str, Work] = {}
    why: dict[str, str] = {}
    for workload in problem.workloads:
        try:
            found = cost(problem.definition, workload)
            works[workload.uuid] = found.work
            if found.cut_off:
                why[workload.uuid] = "a long loop: what was read so far counts in full, operations so far"
        except CostError as error:
            why[workload.uuid] = str(error)
    published = anchors.published([problem])
    scaled = anchors.scaled(published, peaks.device, {name: works}) if bounds.known(peaks.device) else None
    for workload in problem.workloads:
        there = published.get(name, workload.uuid)
        here = scaled.get(name, workload.uuid) if scaled else None
        line = Line(name, workload.uuid, published_ms=there.bound_ms if there else None,
                    scaled_ms=here.bound_ms if here else None, why=why.get(workload.uuid, ""))  # fmt: skip
        yield _bound(line, works[workload.uuid], peaks) if workload.uuid in works else line


def _bound(line: Line, work: Work, peaks: Peaks) -> Line:
    """`line` with what `work` costs and, where the device can do it, how long that takes."""
    line = replace(line, bytes=work.bytes, macs=sum(work.macs.values()), precision=next(iter(work.macs), None))
    try:
        return replace(line, roof=work.roof(peaks), computed_ms=bounds.bound_ms(work, peaks))
    except bounds.BoundError as error:
        return replace(line, why=str(error))


def calibrate(name: str) -> int:
    """Print the peaks of this machine's device. Raises BoundError where there is no such device."""
    import torch

    from benchmarks.kernels.calibrate import calibrate as measure

    if name not in ("cpu", "cuda"):
        raise bounds.BoundError(f"no device {name!r} to calibrate; take cpu or cuda")
    if name == "cuda" and not torch.cuda.is_available():
        raise bounds.BoundError("torch sees no CUDA device here; run this on the machine that has it")
    print(json.dumps(measure(torch.device(name)).to_json()))
    return 0


def read_peaks(path: Path) -> Peaks:
    try:
        return Peaks.from_json(json.loads(path.read_text()))
    except (OSError, ValueError, AttributeError) as error:
        raise bounds.BoundError(f"{path}: no peaks ({error}); make the file with `sol --calibrate`") from error


def summary(found: Sequence[Line]) -> str:
    """How many there are, how many have no bound, and how far the computed lie from the scaled."""
    text = f"{len(found)} workloads, {sum(line.computed_ms is None for line in found)} without a computed bound"
    agreements = [line.agreement for line in found if line.agreement is not None]
    if not agreements:
        return text
    near = sum(0.8 <= each <= 1.25 for each in agreements)
    return (f"{text}; computed / scaled: median {median(agreements):.3f}, "
            f"{near} of {len(agreements)} between 0.8 and 1.25")  # fmt: skip


def _text(line: Line) -> str:
    def number(value: float | None, scale: float, digits: int) -> str:
        return "-" if value is None else f"{value * scale:.{digits}f}"

    bound, there, here = (number(each, 1e3, 2) for each in (line.computed_ms, line.published_ms, line.scaled_ms))
    text = (f"{line.problem[:44]:44} {line.uuid[:8]:>8} {number(line.bytes, 1e-6, 2):>9} "
            f"{number(line.macs, 1e-9, 3):>10} {line.precision or '-':>5} {line.roof or '-':>7} "
            f"{bound:>10} {there:>10} {here:>10}")  # fmt: skip
    return f"{text}  {line.why}" if line.why else text
