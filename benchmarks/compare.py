"""The comparison: ``python -m benchmarks.compare [--engine sqlite|postgres] [--quick] [--pin]``.

Every contestant has its own process and its own database. A round of each operation goes to each of them in turn, in a
new order each time; the first round warms up. Figures are medians; a ratio is the median of the ratios to the raw
driver in the same round. After each writing round the rows are counted. All this is done by several crews, one after
the other: on which core the threads of a process come to lie lasts as long as the process, and can double its time.
"""

from __future__ import annotations

import argparse
import random
import tempfile
from collections import defaultdict
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks import report
from benchmarks.contestants import contestants
from benchmarks.crew import Crew, Member
from benchmarks.databases import places

ROUNDS = {
    "append": "append, 1 task",
    "append100": "append, 100 tasks",
    "update100": "update by id, 100 tasks",
    "bulk": "bulk of 10,000, per row",
    "get": "get by id",
    "latest": "latest 100 of an agent",
    "errors": "append, 100 tasks, 4 % bad rows",
}
_OPERATION = {"append100": "append", "update100": "update", "errors": "append"}
Times = dict[str, dict[str, list[float]]]


class Tally:
    """What the rounds gave."""

    def __init__(self) -> None:
        self.times: Times = defaultdict(lambda: defaultdict(list))
        self.lost: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self.acknowledged: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self.failed: dict[str, dict[str, int]] = defaultdict(lambda: defaultdict(int))
        self.messages: dict[str, set[str]] = defaultdict(set)

    def add(self, key: str, name: str, answer: dict[str, Any]) -> None:
        """Count a round."""
        if "broken" in answer:
            self.messages[key].add(answer["broken"])
            self.failed[key][name] += 1
            return
        self.times[key][name].append(answer["seconds"] * 1e6)
        self.acknowledged[key][name] += answer["acknowledged"]
        self.failed[key][name] += answer["failed"]
        if answer["failed"]:
            self.messages[key].update(answer.get("errors", ()))
        if "found" in answer:
            self.lost[key][name] += answer["acknowledged"] - answer["found"]


def able(member: Member, name: str) -> bool:
    """Whether the contestant takes part in this round."""
    if name == "errors" and not member.kind.fails:
        return False
    return member.kind.can(_OPERATION.get(name, name))


def run(crew: Crew, tally: Tally, rounds: int, share: float) -> None:
    """Interleaved rounds."""
    for number in range(rounds + 1):
        for name in ROUNDS:
            for member in random.sample(crew.members, len(crew.members)):
                if able(member, name):
                    answer = member.ask(name, share)
                    if number:
                        tally.add(member.key, name, answer)
        print(f"round {number} of {rounds}", flush=True)


def cell(tally: Tally, key: str, baseline: str, name: str) -> str:
    """Microseconds and ratio of one contestant in one round; what was lost or wrong in bold."""
    times = tally.times[key][name]
    if not times:
        return "failed" if tally.failed[key][name] else "n/a"
    text = f"{median(times):,.0f}" if median(times) >= 100 else f"{median(times):,.1f}"
    raw = tally.times[baseline][name]
    if raw:
        ratio = median(one / other for one, other in zip(times, raw, strict=False))
        text += f" ({ratio:.2f})"
    if tally.lost[key][name]:
        text += f" **{tally.lost[key][name]:,} of {tally.acknowledged[key][name]:,} lost**"
    if tally.failed[key][name]:
        text += f" **{tally.failed[key][name]:,} failed**"
    return text


def table(crew: Crew, tally: Tally, engine: str) -> str:
    """The Markdown table, its notes, and who is missing."""
    baseline = next(iter(contestants(engine)))
    kinds = contestants(engine)
    lines = [f"| µs an operation (ratio to {kinds[baseline].title}) | {' | '.join(ROUNDS.values())} |"]
    lines.append(f"|---|{'--:|' * len(ROUNDS)}")
    for member in sorted(crew.members, key=lambda member: list(kinds).index(member.key)):
        title = f"**{member.kind.title}**" if member.key.startswith("orchdb") else member.kind.title
        cells = " | ".join(cell(tally, member.key, baseline, name) for name in ROUNDS)
        lines.append(f"| {title} | {cells} |")
    lines.extend(f"| {title} | {reason}{' |' * len(ROUNDS)}" for title, reason in crew.absent.items())
    notes = [f"- {member.kind.title}: {member.kind.how}" for member in crew.members if member.kind.how]
    failures = [
        f"- {kinds[key].title} raised `{message}`" for key, found in tally.messages.items() for message in sorted(found)
    ]
    return "\n".join([*lines, "", "What was measured:", "", *notes, *(["", *failures] if failures else [])])


def ratios(crew: Crew, tally: Tally, engine: str) -> dict[str, dict[str, float]]:
    """For the plot: contestant → operation → ratio to the raw driver."""
    baseline = next(iter(contestants(engine)))
    result: dict[str, dict[str, float]] = {}
    for member in crew.members:
        result[member.kind.title.replace("`", "")] = {
            ROUNDS[name]: median(a / b for a, b in zip(times, tally.times[baseline][name], strict=False))
            for name in ROUNDS
            if name != "errors" and (times := tally.times[member.key][name]) and tally.times[baseline][name]
        }
    return result


def main() -> None:
    """Measure and write the section of RESULTS.md and the plot."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.compare", description=__doc__)
    parser.add_argument("--engine", choices=("sqlite", "postgres"), default="sqlite")
    parser.add_argument("--quick", action="store_true", help="three small rounds, and nothing is written")
    parser.add_argument("--crews", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=2, help="of each crew")
    parser.add_argument("--pin", action="store_true", help="everything on one core; without a plot")
    parser.add_argument("--only", nargs="+", help="only these; nothing is written")
    arguments = parser.parse_args()
    crews, rounds, share = (1, 3, 0.25) if arguments.quick else (arguments.crews, arguments.rounds, 1.0)
    engine: str = arguments.engine
    tally = Tally()
    for number in range(crews):
        print(f"crew {number + 1} of {crews}", flush=True)
        crew = send(engine, arguments.only or list(contestants(engine)), arguments.pin, tally, rounds, share)
    text = f"{crews} crews, {rounds} rounds each.\n\n{table(crew, tally, engine)}"
    print(text)
    if arguments.quick or arguments.only:
        return
    report.write(f"comparison on {report.NAMES[engine]}{', on one core' if arguments.pin else ''}", text)
    if not arguments.pin:
        title = f"{report.NAMES[engine]}: time as a ratio to the raw driver; less is better"
        report.plot(f"compare-{engine}", ratios(crew, tally, engine), title)


def send(engine: str, keys: list[str], pinned: bool, tally: Tally, rounds: int, share: float) -> Crew:
    """A crew of new processes on new databases, after its rounds."""
    with tempfile.TemporaryDirectory(prefix="orchdb-benchmark-") as name:
        folder = Path(name)
        with places(engine, folder) as place, Crew(engine, keys, place, folder, pinned=pinned) as crew:
            run(crew, tally, rounds, share)
    return crew


if __name__ == "__main__":
    main()
