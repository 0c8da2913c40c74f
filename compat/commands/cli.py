"""The ``compat`` command."""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from compat import __version__, catalog, processes
from compat.build import artifacts
from compat.contract.case import Case
from compat.contract.places import ROOT
from compat.contract.untrusted import clean, one_line
from compat.inputs.checkpoints import INSTALL_WEIGHTS, PACKAGE, CheckpointError, find_checkpoint
from compat.judge import recommendations, results
from compat.judge.results import Collection, ResultsError
from compat.run import selection

if TYPE_CHECKING:
    from compat.report.model import Report

LOCAL = Path("reports/local")
PUBLISHED = Path("reports")
REJECTED = 20
"""Files that were not published and are told one by one; the others are counted."""

EXAMPLES = """\
examples:
  compat matrix --quick               this machine's matrix, in a few minutes
  compat doctor                       what is here, what is absent, and the remedy
  compat list --models whisper-tiny   the cases of a variant
  compat show whisper-tiny@seeded/cpu-torch/fp32
  compat report reports/results       the site and the matrix of published results
  compat cache clear                  free the disk of exports and references
"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command line; return the exit status."""
    parser = _parser()
    parsed, rest = parser.parse_known_args(arguments)
    if rest and parsed.command is not matrix:
        parser.error(f"unrecognized arguments: {' '.join(rest)}")
    parsed.rest = rest
    try:
        if getattr(parsed, "catalog", None):
            catalog.use(parsed.catalog)
        return int(parsed.command(parsed))
    except KeyboardInterrupt:
        return 130
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        return 0
    except Exception as error:
        if type(error).__module__.split(".")[0] != "compat":
            raise
        _warn(f"compat: {error}")
        return 3


def _say(line: object) -> None:
    """Print what may hold names of files and words of results: nothing in it steers a terminal."""
    print(clean(line))


def _warn(line: object) -> None:
    print(clean(line), file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="compat",
        description="Which audio model runs how well on which hardware, measured.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action="version", version=f"compat {__version__}")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")

    def command(function: Any, name: str, text: str, epilog: str = "") -> argparse.ArgumentParser:
        made = commands.add_parser(
            name,
            help=text,
            description=text[0].upper() + text[1:] + ".",
            epilog=epilog,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        made.set_defaults(command=function)
        made.add_argument(
            "--catalog", action="append", metavar="FILE", help="more models, runtimes"
        )
        return made

    command(
        matrix,
        "matrix",
        "measure what is on this machine and show its matrix",
        "Every option of the suites is taken too, see `pytest --help`, group compat:\n"
        "  compat matrix --quick --models whisper-nano\n"
        "  compat matrix --targets openvino --recipes fp32,int8-weights",
    ).add_argument("--results", type=Path, default=LOCAL / "results", metavar="DIR")

    made = command(doctor, "doctor", "say what is here, absent or broken, and the remedy")
    made.add_argument("--json", action="store_true", help="print JSON")

    made = command(listing, "list", "list the cases of the catalog", "compat list --targets cuda")
    for name in ("models", "targets", "recipes", "weights"):
        made.add_argument(f"--{name}", type=_words, default=(), metavar="LIST")
    made.add_argument("--core", action="store_true", help="only those of the core profile")
    made.add_argument("--json", action="store_true", help="print JSON")

    made = command(show, "show", "show everything known of one case")
    made.add_argument("case", help="for example whisper-tiny@seeded/cpu-torch/fp32")
    _sources(made)

    made = command(report, "report", "make the matrix and the site of results")
    _sources(made)
    made.add_argument("--output", type=Path, default=LOCAL / "site", metavar="DIR")
    made.add_argument("--no-site", action="store_true", help="print the matrix only")

    made = command(publish, "publish", "put own results under reports/, to be committed")
    _sources(made)
    made.add_argument("--output", type=Path, default=PUBLISHED, metavar="DIR")
    made.add_argument(
        "--own", action="store_true", help="also results on an own corpus, checkpoint or thresholds"
    )
    made.add_argument(
        "--dry-run", action="store_true", help="say what would be done, and change nothing"
    )

    made = command(rescore, "rescore", "score and judge stored results anew, with other thresholds")
    _sources(made)
    made.add_argument("--thresholds", action="append", type=Path, default=[], metavar="FILE")
    made.add_argument("--output", type=Path, default=LOCAL / "rescored", metavar="DIR")

    made = command(cache, "cache", "show or clear the cache of exports and references")
    made.add_argument("action", choices=("show", "clear"), nargs="?", default="show")
    made.add_argument("match", nargs="?", default="", help="only artifacts that mention this")

    made = command(
        experiment,
        "experiment",
        "answer a question that no single case answers",
        "compat experiment browsers    is Firefox faster than Chrome on WebGPU?",
    )
    made.add_argument("name", choices=("browsers",))
    made.add_argument("--rounds", type=int, default=10, help="interleaved rounds")
    made.add_argument("--json", action="store_true", help="print JSON")

    command(schema, "schema", "print the JSON Schema of a line of a results file")
    return parser


def _words(text: str) -> tuple[str, ...]:
    return tuple(word.strip() for word in text.split(",") if word.strip())


def _sources(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "sources",
        nargs="*",
        type=Path,
        help=f"results files or folders (default: {LOCAL / 'results'})",
    )


def _collect(sources: Sequence[Path]) -> Collection:
    """Read results; the caller tells what could not be read."""
    folders = list(sources) or [LOCAL / "results"]
    for folder in folders:
        if not os.path.lexists(folder):
            raise ResultsError(
                f"no results in {folder}: run `compat matrix` or `pytest` first, or name a folder."
            )
    return results.read_all(folders)


def _tell(problems: Sequence[str]) -> None:
    """Say on standard error what could not be read."""
    for problem in problems:
        _warn(f"compat: {problem}")


# Commands --------------------------------------------------------------------------------------


def matrix(arguments: argparse.Namespace) -> int:
    """Run the suites for what is here, then show what was found."""
    from rich.console import Console

    rest = list(arguments.rest)
    if not any(word.startswith("--targets") for word in rest):
        rest.append(f"--targets={selection.HERE}")
    for file in arguments.catalog or ():
        rest.append(f"--catalog={file}")
    command = [sys.executable, "-m", "pytest", str(ROOT / "suites"), "--rootdir", str(ROOT)]
    command += ["-q", "-r", "", "--tb=no", "--no-header", "--no-summary", "--case-lines"]
    command += ["--benchmark-quiet"]
    command += ["-p", "no:cacheprovider", f"--results={arguments.results}", *rest]
    started = set(arguments.results.glob("*.jsonl"))
    try:
        status = subprocess.run(command).returncode
    except KeyboardInterrupt:
        status = 2
    fresh = [path for path in arguments.results.glob("*.jsonl") if path not in started]
    if fresh:
        shown = _build(results.read_all(fresh))
        _print(shown, Console())
    if arguments.results.is_dir() and any(arguments.results.glob("*.jsonl")):
        own = arguments.results != LOCAL / "results"
        site = arguments.results / "site" if own else LOCAL / "site"
        _write_site(_build(results.read_all([arguments.results])), site)
    if status == 2:
        print("Interrupted: what was measured is kept and shown above.", file=sys.stderr)
        return 130
    # Failed checks are findings, not faults of the run; required hardware that is absent is one.
    return 0 if status in (0, 1, 5) else 3


def _build(collection: Collection) -> Report:
    from compat.report import build

    return build(collection)


def _print(shown: Report, console: Any) -> None:
    from compat.report import print_matrix

    print_matrix(shown, console)


def _write_site(shown: Report, folder: Path) -> None:
    from compat.report import write_site

    index = write_site(shown, folder)
    _say(f"site: {os.path.relpath(index)}")


def doctor(arguments: argparse.Namespace) -> int:
    """Probe every target."""
    from compat.hardware import facts
    from compat.run.probing import Prober

    loaded = catalog.load()
    found = Prober().all(loaded.targets)
    machine = facts.machine_facts()
    rows: list[dict[str, Any]] = [
        {
            "hardware": target.hardware,
            "target": target.name,
            "state": found[target.name].state,
            "reason": found[target.name].reason,
            "remedy": found[target.name].remedy,
            "facts": dict(found[target.name].facts),
            "evidence": target.evidence,
        }
        for target in loaded.targets
    ]
    for hardware in loaded.hardware:
        if not any(row["hardware"] == hardware for row in rows):
            rows.append(
                {
                    "hardware": hardware,
                    "target": f"({hardware})",
                    "state": "absent",
                    "reason": "no runtime of the catalog serves this hardware yet",
                    "remedy": "add one with --catalog FILE, see docs/extending.md",
                    "facts": {},
                    "evidence": "",
                }
            )
    rows.sort(key=lambda row: loaded.hardware.index(row["hardware"]))
    packaged = _packaged_weights(loaded)
    if arguments.json:
        shown = {"machine": facts.machine_id(machine), "facts": machine, "targets": rows}
        print(json.dumps({**shown, "weights": packaged}))
        return 0
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    console = Console()
    processor = machine.get("cpu", {})
    console.print(
        f"Machine {facts.machine_id(machine)}: "
        f"{escape(one_line(processor.get('model', 'unknown processor')))}, "
        f"{facts.available_cpus()} cores, "
        f"{facts.available_memory_bytes() / 2**30:.0f} GiB of memory"
    )
    table = Table(box=None, pad_edge=False)
    for column in ("target", "state", "what was found", "remedy"):
        table.add_column(column, overflow="fold")
    symbols = {
        "here": "[green]✓ here[/]",
        "absent": "[dim]· absent[/]",
        "broken": "[red]! broken[/]",
    }
    for row in rows:
        known = ", ".join(f"{name} {value}" for name, value in row["facts"].items())
        # What a device measures needs no word; an emulator or a conversion times nothing.
        proves = f"{row['evidence']} evidence" if row["evidence"] not in ("", "device") else ""
        said = ". ".join(part for part in (str(row["reason"]), known, proves) if part)
        table.add_row(
            escape(one_line(row["target"])),
            symbols[str(row["state"])],
            escape(clean(said)),
            escape(clean(row["remedy"])),
        )
    for row in packaged:
        what = f"weights of {row['families']}"
        found_in = f"in the package {row['package']}"
        table.add_row(escape(what), symbols[row["state"]], escape(found_in), escape(row["remedy"]))
    console.print(table)
    console.print(f"cache: {artifacts.cache_folder()} (${processes.CACHE} names another)")
    return 0


def _packaged_weights(loaded: catalog.Catalog) -> list[dict[str, str]]:
    """Return which packages hold published weights, and whether they are installed."""
    families: dict[str, list[str]] = {}
    for family in loaded.families:
        for checkpoint in dict.fromkeys(variant.checkpoint for variant in family.variants):
            if checkpoint.startswith(PACKAGE):
                families.setdefault(checkpoint, []).append(family.name)
    rows = []
    for checkpoint, names in families.items():
        try:
            find_checkpoint(checkpoint)
            state, remedy = "here", ""
        except CheckpointError:
            state, remedy = "absent", INSTALL_WEIGHTS
        package = checkpoint.removeprefix(PACKAGE).partition("/")[0]
        said = {"package": package, "families": ", ".join(names), "state": state}
        rows.append({**said, "remedy": remedy})
    return rows


def listing(arguments: argparse.Namespace) -> int:
    """List cases."""
    loaded = catalog.load()
    chosen = selection.Selection(
        arguments.models,
        arguments.targets,
        arguments.recipes,
        arguments.weights,
        "core" if arguments.core else "full",
    )
    chosen.check(loaded)
    cases = chosen.cases(loaded)
    if arguments.json:
        print(json.dumps([{"id": case.id, "marks": case.marks} for case in cases]))
    else:
        for case in cases:
            print(case.id)
    return 0


def show(arguments: argparse.Namespace) -> int:
    """Show what the catalog, recommendations, thresholds and results say of a case."""
    from rich.console import Console

    from compat.judge.results import facts_of
    from compat.judge.thresholds import default_path, load

    loaded = catalog.load()
    try:
        case: Case = loaded.case(arguments.case)
    except KeyError:
        said = selection.suggestion(arguments.case, [case.id for case in loaded.cases()])
        if len(said) > 300:
            said = "`compat list` names them all."
        raise selection.SelectionError(f"no case {arguments.case}: {said}") from None
    console = Console(highlight=False, soft_wrap=True)
    facts = facts_of(case)
    console.print(f"[bold]{case.id}[/bold]")
    console.print(
        f"  {facts.parameters:g} M parameters, task {facts.task}, row {facts.row}; "
        f"runs on {facts.hardware} by {facts.runtime}, evidence: {facts.evidence}"
    )
    console.print(f'  pytest -m "{" and ".join(case.marks)}"')
    reason = loaded.runtime(case.target.runtime).unsupported(case.target, case.recipe)
    if reason:
        console.print(f"  unsupported: {reason}")
    recommended = recommendations.load(recommendations.default_path()).of(case)
    if recommended:
        words = f"{recommended.precision}, batch {recommended.batches}"
        if recommended.memory_gb:
            words += f", {recommended.memory_gb:g} GB"
        if recommended.precision != facts.precision:
            words += f"; this case is {facts.precision}"
        said = f"  recommended on {facts.hardware}: {words} ({recommended.source})"
        console.print(said, markup=False)
    console.print("\nlimits")
    for entry in load([default_path()]).entries:
        if entry.applies(facts):
            sign = "≥" if entry.direction == "at_least" else "≤"
            console.print(
                f"  {entry.check} {entry.metric} {sign} {entry.strict:g} "
                f"(relaxed {entry.relaxed:g}): {entry.reason}",
                markup=False,
            )
    folders = list(arguments.sources) or [p for p in (LOCAL / "results", PUBLISHED) if p.exists()]
    console.print("\nobservations")
    count = 0
    collection = results.read_all(folders)
    _tell(collection.problems)
    for run in collection.runs:
        for one in run.observations:
            if one.case == case.id:
                count += 1
                level = f" ({one.level})" if one.level else ""
                line = (
                    f"  {one.time} machine {run.header.machine} {run.header.profile} {one.check}: "
                )
                line += f"{one.status}{level} {one.reason}"
                console.print(clean(line), markup=False)
                console.print(clean("    " + json.dumps(one.values)[:600]), markup=False)
    if not count:
        console.print(f"  none yet: pytest --models {facts.variant} --targets {facts.target}")
    return 0


def report(arguments: argparse.Namespace) -> int:
    """Render results; where there are none to render, an earlier site stays as it is."""
    from rich.console import Console

    from compat.report import matrix_markdown

    shown = _build(_collect(arguments.sources))
    if not shown.rows:
        _tell(shown.problems)
        where = ", ".join(map(str, arguments.sources or [LOCAL / "results"]))
        raise ResultsError(
            f"no results in {where} can be reported, so no site is written. "
            + (
                "Mend what is named above, or measure again with `compat matrix` or `pytest`."
                if shown.problems
                else "Run `compat matrix` or `pytest` first, or name another folder."
            )
        )
    _print(shown, Console())
    if not arguments.no_site:
        _write_site(shown, arguments.output)
        matrix_file = arguments.output / "MATRIX.md"
        matrix_file.write_text(matrix_markdown(shown), encoding="utf-8")
        _say(f"matrix: {os.path.relpath(matrix_file)}")
    return 0


def publish(arguments: argparse.Namespace) -> int:
    """Copy own results to where they are kept as evidence."""
    from compat.report.publish import publish as put

    sources = list(arguments.sources) or [LOCAL / "results"]
    outcome = put(sources, arguments.output, arguments.own, arguments.dry_run)
    would = "would be " if arguments.dry_run else ""
    for path in outcome.published:
        done = f"{would}published" if path in outcome.added else "unchanged"
        _say(f"{done} {os.path.relpath(path)}")
    for path in outcome.superseded:
        if path in outcome.archived:
            place = os.path.relpath(outcome.archived[path])
            _say(f"{would}superseded {os.path.relpath(path)}: {would}kept in {place}")
        else:
            _say(f"left out {path.name}: none of its observations counts beside what is published")
    for reason in outcome.rejected[:REJECTED]:
        _warn(f"rejected {reason}")
    if len(outcome.rejected) > REJECTED:
        _warn(f"and {len(outcome.rejected) - REJECTED:,} more rejected")
    for change in outcome.cells:
        _say(f"cell {change}")
    _say(
        "dry run: nothing was changed"
        if arguments.dry_run
        else f"matrix: {os.path.relpath(outcome.matrix)}"
    )
    return 3 if outcome.rejected else 0


def rescore(arguments: argparse.Namespace) -> int:
    """Write results files again, scored from their predictions and judged by other thresholds."""
    from compat.judge.rescoring import rescore as judge_again
    from compat.judge.thresholds import default_path, load

    limits = load([default_path(), *arguments.thresholds])
    collection = _collect(arguments.sources)
    _tell(collection.problems)
    for one in judge_again(collection.runs, limits, arguments.output):
        _say(f"{one.changed} levels changed: {os.path.relpath(one.path)}")
        if one.unplanned:
            print(f"  {one.unplanned} observations kept as they were: no header planned their case")
    _say(f"`compat report {arguments.output}` shows the matrix of them")
    return 0


def cache(arguments: argparse.Namespace) -> int:
    """Show or clear the cache."""
    if arguments.action == "clear":
        freed = artifacts.clear(arguments.match)
        _say(f"freed {freed / 1e6:.0f} MB in {artifacts.cache_folder()}")
        return 0
    total = 0
    for entry in artifacts.entries():
        if arguments.match and arguments.match not in json.dumps([entry.job, entry.arguments]):
            continue
        total += entry.bytes
        job, _, words = artifacts.described(entry.job, entry.arguments).partition(" ")
        _say(f"{entry.bytes / 1e6:9.1f} MB  {job:24} {words}")
    _say(f"{total / 1e6:9.1f} MB in {artifacts.cache_folder()}")
    return 0


def experiment(arguments: argparse.Namespace) -> int:
    """Run an experiment and say what it found."""
    from compat.experiments import browsers as experiments
    from compat.hardware.facts import available_cpus

    if arguments.rounds < 2:
        print("compat: --rounds: an interval needs at least two", file=sys.stderr)
        return 2
    try:
        found = experiments.browsers(
            arguments.rounds, available_cpus(), lambda text: print(text, file=sys.stderr)
        )
    except experiments.CannotCompare as error:
        _warn(f"compat: {error}")
        return 3
    if arguments.json:
        print(found.json())
        return 0
    for one in found.comparisons:
        print(
            f"{one.measure}: Chromium {one.chromium_ms:.1f} ms, "
            f"Firefox {one.firefox_ms:.1f} ms; {one.words}"
        )
    print(found.verdict)
    return 0


def schema(arguments: argparse.Namespace) -> int:
    """Print the schema of the results file."""
    print(results.schema())
    return 0


if __name__ == "__main__":
    sys.exit(main())
