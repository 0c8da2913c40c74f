"""The pytest plugin: options, marks, collection, and one observation per check.

This module holds hooks only; their work is done in :mod:`compat.run.run` and
:mod:`compat.run.selection`, which need no pytest.
"""

from __future__ import annotations

import gc
import os
import re
from collections.abc import Generator
from contextlib import suppress
from datetime import date
from pathlib import Path
from typing import Any, cast

import pytest

from compat import catalog
from compat.contract.case import Case
from compat.contract.errors import CompatError
from compat.contract.places import SUITES
from compat.contract.profile import CORE, FULL, PROFILES, QUICK
from compat.contract.untrusted import clean
from compat.judge.results import Observation, ResultsError
from compat.run import invocation, selection
from compat.run.client import StageError, StageFailure
from compat.run.measurement import Check, Finding, Measurement
from compat.run.progress import Progress
from compat.run.run import RESULTS, Run, Settings, relative

ORDER = ("support", "accuracy", "latency", "memory", "robustness")
"""Order of suites within a case: first those whose results others need, and timing before stages
that heat the machine."""

REQUIRED_MISSING = 3
"""Exit status under ``--case-lines`` where hardware named with ``--require`` is absent."""

GROUP = "compat"
MEANT = pytest.StashKey[invocation.Invocation]()
"""Invocation that pytest is started again with; only set where it misread its command line."""
RUN = pytest.StashKey[Run]()
CASES: pytest.StashKey[Any] = pytest.StashKey()
CHECKS = pytest.StashKey[dict[Path, set[str]]]()
"""Names of the checks that were collected, by file."""
_STALE = "compat_stale_expectations"
STALE: pytest.StashKey[Any] = pytest.StashKey()
"""Known failures that match nothing of the whole catalog, or have expired."""


def words(text: str) -> tuple[str, ...]:
    """Split a comma-separated option."""
    return tuple(word.strip() for word in text.split(",") if word.strip())


def pytest_addoption(parser: pytest.Parser) -> None:
    """Declare the options of the suites, and those of runtimes."""
    group = parser.getgroup(GROUP, "hardware compatibility of audio models")
    add = group.addoption
    for profile, meaning in (
        (
            QUICK,
            "a first look, in minutes: one variant of each family in fp32, fewer inputs and rounds",
        ),
        (FULL, "every variant, recipe and check, and rounds enough to bound the p90"),
    ):
        add(
            f"--{profile.name}",
            dest="compat_profile",
            action="store_const",
            const=profile.name,
            help=meaning,
        )
    for name, meaning in (
        ("models", "variants, families or patterns: whisper-tiny,silero-vad"),
        ("targets", "targets, hardware or patterns: openvino-cpu,cuda; `here` for what is here"),
        ("recipes", "recipes or precisions: fp32,int8, or int8-weights+fp16-decoder"),
        ("weights", "kinds of weights: pretrained,trained,seeded"),
    ):
        add(f"--{name}", type=words, default=(), metavar="LIST", help=meaning)
    add(
        "--require",
        type=words,
        default=(),
        metavar="LIST",
        help="hardware or targets whose absence fails",
    )
    add("--device", default="", metavar="N", help="index of the device, where there are several")
    add(
        "--threads",
        type=int,
        default=0,
        metavar="N",
        help="threads of every runtime (default: all cores)",
    )
    add("--warmup", type=int, default=1, metavar="N", help="untimed rounds before timed ones")
    add(
        "--iterations",
        type=int,
        default=0,
        metavar="N",
        help=f"timed rounds (default: {QUICK.rounds}, {CORE.rounds} or {FULL.rounds} by profile)",
    )
    add(
        "--time-limit",
        type=float,
        default=600.0,
        metavar="S",
        help="seconds that a stage may take, without what it waits to have built",
    )
    add(
        "--memory-limit",
        type=float,
        default=0.0,
        metavar="GIB",
        help="memory that a case may take, exports left out (default: 90 %% of what is free)",
    )
    add(
        "--results",
        type=Path,
        default=None,
        metavar="DIR",
        help=f"where results files go (default: {RESULTS.as_posix()})",
    )
    add(
        "--corpus", type=Path, default=None, metavar="PATH", help="own recordings (docs/corpora.md)"
    )
    add("--language", default="", metavar="CODE", help="language of a corpus that names none: de")
    add(
        "--checkpoint",
        action="append",
        default=[],
        metavar="NAME=PATH",
        help="weights of a variant",
    )
    add("--download", action="store_true", help="fetch published checkpoints that are missing")
    add("--thresholds", action="append", type=Path, default=[], metavar="FILE", help="more limits")
    add(
        "--expectations",
        action="append",
        type=Path,
        default=[],
        metavar="PATH",
        help="more known failures: a file, or a folder of them",
    )
    add("--catalog", action="append", default=[], metavar="FILE", help="more models and runtimes")
    add(
        "--strict-expectations",
        action="store_true",
        help="unexpected passes and stale entries fail",
    )
    add(
        "--case-lines",
        action="store_true",
        help="one line per case under -q and -v too, which print letters or a line per test",
    )
    # A catalog that does not load is reported as the options are read.
    with suppress(CompatError):
        for runtime in catalog.load().runtimes:
            runtime.add_options(add)


@pytest.hookimpl(wrapper=True, tryfirst=True)
def pytest_load_initial_conftests(
    early_config: pytest.Config, parser: pytest.Parser, args: list[str]
) -> Generator[None]:
    """Notice that pytest took an option's value for a folder of tests, before it uses it."""
    options = parser.getgroup(GROUP).options
    given = invocation.Invocation(
        tuple(map(str, early_config.invocation_params.args)),
        os.environ.get(invocation.ADDED, ""),
    )
    meant = invocation.meant(
        given,
        {name for one in options if one.attrs()["nargs"] is None for name in one.names()},
        early_config.known_args_namespace,
        {one.dest: one.default for one in options},
        early_config.invocation_params.dir,
        early_config.inipath,
    )
    if meant != given:
        early_config.stash[MEANT] = meant
        # Nothing of this configuration is used, since settings and conftests may be another
        # project's.
        args.clear()
        early_config.known_args_namespace.noconftest = True
        early_config.known_args_namespace.capture = "no"
        invocation.forget(early_config.getini("pythonpath"))
    return (yield)


@pytest.hookimpl(tryfirst=True)
def pytest_cmdline_main(config: pytest.Config) -> int | pytest.ExitCode | None:
    """Start pytest again with a corrected command line if it misread the given one."""
    if MEANT not in config.stash:
        return None
    meant = config.stash[MEANT]
    with meant.environment():
        return pytest.main(list(meant.arguments), config.invocation_params.plugins)


def pytest_configure(config: pytest.Config) -> None:
    """Check the options, declare the marks, and begin a run unless cases are only collected."""
    options = config.option
    try:
        for runtime in catalog.load().runtimes:
            runtime.use(options)
        catalog.use(options.catalog)
        known = selection.marks(catalog.load())
        for name, meaning in known.items():
            config.addinivalue_line("markers", f"{name}: {meaning}")
        if options.markexpr:
            registered = {line.split(":")[0].split("(")[0] for line in config.getini("markers")}
            selection.check_mark_expression(options.markexpr, registered)
        chosen = _selection(config)
        chosen.check(catalog.load())
        chosen.check_required(options.require, catalog.load())
    except CompatError as error:
        raise pytest.UsageError(clean(error)) from error
    lines = options.case_lines or config.get_verbosity() == 0
    if lines and not hasattr(config, "workerinput"):
        config.pluginmanager.register(Progress(config), "compat-progress")


def _selection(config: pytest.Config) -> selection.Selection:
    options = config.option
    checkpoints = {}
    for pair in options.checkpoint:
        name, separator, path = pair.partition("=")
        if not separator:
            raise CompatError(f"--checkpoint {pair}", "write it as VARIANT=FOLDER.")
        checkpoints[name] = path
    return selection.Selection(
        options.models,
        options.targets,
        options.recipes,
        options.weights,
        PROFILES[options.compat_profile or CORE.name],
        checkpoints,
        frozenset(re.findall(r"\w+", options.markexpr or "")),
    )


def _run(config: pytest.Config) -> Run:
    if RUN not in config.stash:
        options = config.option
        worker = getattr(config, "workerinput", {})
        given = _selection(config)
        settings = Settings(
            profile=given.profile,
            checkpoints=given.checkpoints,
            threshold_files=tuple(options.thresholds),
            expectation_files=tuple(options.expectations),
            device=options.device,
            threads=options.threads,
            language=options.language,
            warmup=options.warmup,
            iterations=options.iterations,
            time_limit=options.time_limit,
            memory_limit=int(options.memory_limit * 2**30),
            required=options.require,
            strict_expectations=options.strict_expectations,
            download=options.download,
            arguments=relative(config.invocation_params.args),
            worker=worker.get("workerid", "main"),
            workers=int(worker.get("workercount", 1)),
            run=f"{worker['testrunuid'][:12]}" if "testrunuid" in worker else "",
            **{
                name: (config.invocation_params.dir / value).resolve()
                for name, value in (("results", options.results), ("corpus", options.corpus))
                if value is not None
            },
        )
        progress = config.pluginmanager.get_plugin("compat-progress")
        said = progress.stage if progress else (lambda case, stage: None)
        config.stash[RUN] = Run(settings, said)
    return config.stash[RUN]


# Collection ------------------------------------------------------------------------------------


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Generator[None, object, object]:
    """Keep the tests of cases out of garbage collection.

    There are tens of thousands of them, and none is garbage: searching them again and again took a
    third of the time. Another project's tests are collected as ever.
    """
    enabled = gc.isenabled()
    try:
        return (yield)
    finally:
        if enabled and not gc.isenabled():
            gc.freeze()
            gc.enable()


def _parameters(config: pytest.Config) -> list[Any]:
    """Return the selected cases as parameters with their marks; they are made once per session."""
    if CASES not in config.stash:
        gc.disable()  # Until pytest_collection ends.
        chosen = _selection(config)
        cases = chosen.cases(catalog.load())
        if selection.HERE in chosen.targets:
            try:
                cases = chosen.worth(_here(_run(config), cases))
            except CompatError as error:
                raise pytest.UsageError(clean(error)) from error
        if chosen.profile.first_look:
            cases = selection.widest_first(cases)
        marks: dict[str, Any] = {}
        parameters = []
        for case in cases:
            own = [marks.setdefault(m, getattr(pytest.mark, m)) for m in case.marks]
            parameters.append(pytest.param(case, id=case.id, marks=own))
        config.stash[CASES] = parameters
    return cast("list[Any]", config.stash[CASES])


def _here(run: Run, cases: list[Case]) -> list[Case]:
    """Return the cases without those of absent hardware, unless it is required or broken."""
    run.prober.all(case.target for case in cases)
    found = []
    for case in cases:
        try:
            run.absent(case)
        except Finding as finding:
            if not finding.fatal and finding.status != "error":
                continue
        found.append(case)
    return found


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """Make one test of a check for each case that was selected."""
    check: Check | None = getattr(metafunc.function, "check", None)
    if check is not None and "measurement" in metafunc.fixturenames:
        file = Path(str(metafunc.module.__file__)).resolve()
        metafunc.config.stash.setdefault(CHECKS, {}).setdefault(file, set()).add(check.name)
        profile = _selection(metafunc.config).profile
        asked = _parameters(metafunc.config)
        parameters = [p for p in asked if check.asked(p.values[0], profile)]
        metafunc.parametrize("case", parameters)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order by case, then by suite, so that one worker serves all checks of a case."""
    if CASES in config.stash:
        # A check that applies to no selected case is left out, rather than shown as skipped.
        items[:] = [i for i in items if _case(i) or not hasattr(i, "callspec") or not _declared(i)]
        order = {p.id: index for index, p in enumerate(config.stash[CASES])}
        items.sort(key=lambda item: (order.get(_case_id(item), -1), _suite_rank(item)))


def _declared(item: pytest.Item) -> bool:
    return hasattr(getattr(item, "function", None), "check")


def _suite_rank(item: pytest.Item) -> int:
    suite = getattr(getattr(item, "function", None), "check", Check("")).name.split(".")[0]
    return ORDER.index(suite) if suite in ORDER else len(ORDER)


def _case_id(item: pytest.Item) -> str:
    case = _case(item)
    return case.id if case else ""


def _case(item: pytest.Item) -> Case | None:
    parameters = getattr(getattr(item, "callspec", None), "params", {})
    found = parameters.get("case")
    return found if isinstance(found, Case) else None


def _check(item: pytest.Item) -> Check:
    return cast(Check, item.function.check)  # type: ignore[attr-defined]


def pytest_collection_finish(session: pytest.Session) -> None:
    """Write down which checks of which cases are planned."""
    config = session.config
    if config.option.collectonly:
        return
    planned: dict[str, tuple[Case, list[str]]] = {}
    for item in session.items:
        case = _case(item)
        if case is not None and hasattr(item.function, "check"):  # type: ignore[attr-defined]
            planned.setdefault(case.id, (case, []))[1].append(_check(item).name)
    progress = config.pluginmanager.get_plugin("compat-progress")
    if progress:
        progress.plan({name: checks for name, (_, checks) in planned.items()})
    if not planned or getattr(config.option, "numprocesses", None):
        return  # The parallel processes write; their controller runs nothing.
    try:
        run = _run(config)
        run.open((case, tuple(checks)) for case, checks in planned.values())
        reporter = config.pluginmanager.get_plugin("terminalreporter")
        if reporter and config.option.corpus:
            reporter.write_line(clean(f"corpus: {run.corpora.described}"))
    except CompatError as error:
        raise pytest.UsageError(clean(error)) from error


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_make_scheduler(config: pytest.Config, log: Any) -> Any:
    """Give all checks of a case to one process, because they share a worker."""
    from xdist.scheduler import LoadScopeScheduling

    class ByCase(LoadScopeScheduling):  # type: ignore[misc]
        def _split_scope(self, nodeid: str) -> str:
            return nodeid.partition("[")[2] or nodeid

    return ByCase(config, log) if config.option.dist in ("load", "loadgroup") else None


# Running ---------------------------------------------------------------------------------------


@pytest.fixture
def measurement(request: pytest.FixtureRequest, case: Case) -> Measurement:
    """The measurement with which a test performs its check on a case."""
    return _run(request.config).measurement(case, _check(request.node))


@pytest.hookimpl(wrapper=True)
def pytest_runtest_call(item: pytest.Item) -> Generator[None, Any, Any]:
    """Run a test's measurement and write one observation of it, however the test ends."""
    measured = getattr(item, "funcargs", {}).get("measurement")
    if not isinstance(measured, Measurement):
        return (yield)
    run = _run(item.config)
    error: BaseException | None = None
    try:
        try:
            run.begin(measured)
            yield
        except (KeyboardInterrupt, ResultsError):
            raise
        except BaseException as caught:
            error = caught
        observation = run.finish(measured, error)
    except ResultsError as problem:
        pytest.exit(str(problem), returncode=3)
    # Plain strings, because they travel to the controller of a parallel run and into JUnit's file.
    for name in ("case", "check", "status", "level", "executed", "reason"):
        item.user_properties.append((name, str(getattr(observation, name) or "")))
    missing = isinstance(error, Finding) and error.fatal
    item.user_properties.append(("required", "missing" if missing else ""))
    _conclude(observation, error, run.settings.strict_expectations)
    return None


def _conclude(observation: Observation, error: BaseException | None, strict: bool) -> None:
    """Tell pytest the outcome of an observation: pass, fail, skip or expected failure."""
    said = f"{observation.status}: {observation.reason}"
    if observation.remedy:
        said += f" (remedy: {observation.remedy})"
    if isinstance(error, Finding) and error.fatal:
        pytest.fail(said, pytrace=False)
    match observation.status:
        case "passed":
            return
        case "unexpected-pass":
            if strict:
                pytest.fail(f"{said} ({observation.expected})", pytrace=False)
        case "known-failure":
            pytest.xfail(said)
        case "skipped" | "unsupported" | "inconclusive":
            pytest.skip(said)
        case "error" if isinstance(error, StageError):
            pytest.fail(f"{said}\n{error.trace}", pytrace=False)
        case "error" if error is not None and not isinstance(error, Finding | StageFailure):
            raise error
        case _:
            pytest.fail(said, pytrace=False)


def pytest_sessionfinish(session: pytest.Session, exitstatus: int) -> None:
    """End the worker and the results file, and look for expectations that match nothing."""
    config = session.config
    if CASES in config.stash:
        config.stash[STALE] = _stale_expectations(config)
    if RUN in config.stash:
        config.stash[RUN].close()
    if hasattr(config, "workeroutput") and STALE in config.stash:
        config.workeroutput[_STALE] = list(config.stash[STALE])
    if exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED and STALE in config.stash:
        session.exitstatus = pytest.ExitCode.OK
    strict = config.option.strict_expectations and exitstatus == pytest.ExitCode.OK
    if strict and config.stash.get(STALE, ()):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
    progress = config.pluginmanager.get_plugin("compat-progress")
    missing = config.option.case_lines and progress and progress.missing
    if missing and exitstatus == pytest.ExitCode.TESTS_FAILED:
        # A status of its own, since `compat matrix` takes that of a failed check for a finding.
        session.exitstatus = REQUIRED_MISSING


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    """Take over the stale expectations that a parallel process found.

    The controller collects no tests and finds none itself.
    """
    found = getattr(node, "workeroutput", {}).get(_STALE)
    if found is not None:
        node.config.stash[STALE] = tuple(found)


def pytest_terminal_summary(terminalreporter: Any, exitstatus: int, config: pytest.Config) -> None:
    """Print that nothing was selected, or the stale expectations and where the results are."""
    if hasattr(config, "workerinput"):
        return
    write = terminalreporter.write_line
    if STALE not in config.stash:
        nothing = exitstatus == pytest.ExitCode.NO_TESTS_COLLECTED
        if nothing and (config.option.markexpr or not terminalreporter.stats.get("deselected")):
            write(invocation.hint())
        return
    if not any(
        terminalreporter.stats.get(kind) for kind in ("passed", "failed", "skipped", "xfailed")
    ):
        if not config.option.collectonly:
            write(
                "Nothing was selected: no case of the catalog answers to these options. "
                "`compat list` shows the cases, `pytest --markers` the marks."
            )
        return
    run = config.stash.get(RUN, None)
    for problem in config.stash[STALE]:
        write(clean(f"expectation: {problem}"), yellow=True)
    folder = run.settings.results if run else Path(config.option.results or "reports/local/results")
    where = os.path.relpath(run.path or folder) if run else os.path.relpath(folder)
    write(clean(f"results: {where} (`compat report` makes the matrix of them)"))


def _stale_expectations(config: pytest.Config) -> tuple[str, ...]:
    if RUN not in config.stash:
        return ()
    cases = [case.id for case in catalog.load().cases()]
    collected = config.stash.get(CHECKS, {})
    # Names of checks can be judged only if the checks of all suites were collected.
    seen = set(SUITES.glob("test_*.py")) <= collected.keys()
    checks = {name for names in collected.values() for name in names} if seen else None
    return config.stash[RUN].expectations.audit(cases, date.today(), checks or None)
