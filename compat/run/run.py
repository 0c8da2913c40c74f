"""One run of the suites in one process: settings, worker, results file.

This module knows nothing of pytest; the plugin translates hooks into calls of :class:`Run`.
"""

from __future__ import annotations

import secrets
import subprocess
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path

from compat import __version__, catalog
from compat.build import nursery
from compat.build.artifacts import entries
from compat.build.sources import OPSET
from compat.contract.case import Case, Target
from compat.contract.digests import file_digest
from compat.contract.places import FIXTURES, INSTALLED, ROOT
from compat.contract.profile import CORE, Profile
from compat.hardware import facts as hardware
from compat.inputs import corpus, stress
from compat.inputs.checkpoints import PACKAGE, CheckpointError, fetching, find_checkpoint
from compat.judge import expectations, recommendations, thresholds
from compat.judge.results import (
    SCHEMA_VERSION,
    Header,
    Observation,
    Planned,
    Started,
    Status,
    Writer,
    facts_of,
)
from compat.measure.request import CaseRequest
from compat.metrics import SCORER_VERSION
from compat.run import need
from compat.run.client import StageFailure, Worker
from compat.run.measurement import Check, Finding, Measurement, in_full, now
from compat.run.probing import Prober

RESULTS = Path("reports/local/results")
FOUND = "found-stress.toml"
COMMON_PACKAGES = ("numpy", "jiwer", "pytest", "transformers")


@dataclass(frozen=True)
class Settings:
    """The options of a run that a person gave, apart from the selection of cases."""

    profile: Profile = CORE
    results: Path = RESULTS
    corpus: Path = corpus.DEFAULT
    language: str = ""
    """Code of the language of recordings whose corpus names none, for instance ``de``."""
    checkpoints: Mapping[str, str] = field(default_factory=dict)
    threshold_files: tuple[Path, ...] = ()
    expectation_files: tuple[Path, ...] = ()
    device: str = ""
    threads: int = 0
    warmup: int = 1
    iterations: int = 0
    time_limit: float = 600.0
    memory_limit: int = 0
    required: tuple[str, ...] = ()
    strict_expectations: bool = False
    download: bool = False
    arguments: tuple[str, ...] = ()
    worker: str = "main"
    """Which of several parallel processes this is."""
    workers: int = 1
    run: str = ""


@dataclass
class Run:
    """Measures cases one after the other and writes their observations."""

    settings: Settings
    said: Callable[[str, str], None] = lambda case, stage: None
    """Callback that gets the case and the stage that begins, to show them."""
    _worker: Worker | None = None
    _writer: Writer | None = None
    _nursery: nursery.Nursery | None = None

    def __post_init__(self) -> None:
        self.thresholds = thresholds.load(
            [thresholds.default_path(), *self.settings.threshold_files]
        )
        self.expectations = expectations.load(
            [FIXTURES / "expectations", *self.settings.expectation_files]
        )
        self.recommendations = recommendations.load(recommendations.default_path())
        self.prober = Prober()
        self._lacking: dict[str, str] = {}

    @property
    def parallel(self) -> bool:
        return self.settings.workers > 1

    @property
    def threads(self) -> int:
        """Threads of every worker: the chosen number, or the processors per parallel process."""
        return self.settings.threads or max(1, hardware.available_cpus() // self.settings.workers)

    @property
    def available_memory(self) -> int:
        """Bytes that a worker may use: the chosen limit, or 90 % of the memory that is free now."""
        return self.settings.memory_limit or int(hardware.available_memory_bytes() * 0.9)

    @cached_property
    def corpora(self) -> corpus.Corpus:
        """The corpus that a person named, or the shipped one."""
        return corpus.load(self.settings.corpus, self.settings.language)

    @cached_property
    def machine_facts(self) -> dict[str, object]:
        return hardware.machine_facts()

    @cached_property
    def versions(self) -> dict[str, str]:
        runtimes = catalog.load().runtimes
        names = [name for runtime in runtimes for name in runtime.packages]
        found = hardware.package_versions((*COMMON_PACKAGES, *names))
        for runtime in runtimes:
            found |= runtime.versions()
        own = {"compat": __version__, "scorer": str(SCORER_VERSION), "opset": str(OPSET)}
        return {**own, **found}

    @cached_property
    def stress_files(self) -> tuple[str, ...]:
        """Paths of the shipped stress inputs and of those that searches on this machine found."""
        found = self.settings.results / FOUND
        added = [str(found)] if found.is_file() else []
        return (str(stress.DEFAULT), *added)

    def open(self, planned: Iterable[tuple[Case, tuple[str, ...]]]) -> None:
        """Check the inputs and begin the results file."""
        corpora = self.corpora
        stress.load([Path(path) for path in self.stress_files])
        stamp = datetime.now(UTC).strftime("%Y%m%dT%H%M%SZ")
        header = Header(
            schema=SCHEMA_VERSION,
            run=self.settings.run or f"{stamp}-{secrets.token_hex(3)}",
            worker=self.settings.worker,
            started=now(),
            profile=self.settings.profile.name,
            machine=hardware.machine_id(self.machine_facts),
            facts=self.machine_facts,
            versions=self.versions,
            commit=git_commit(),
            arguments=relative(self.settings.arguments),
            threads=self.threads,
            parallel=self.parallel,
            hashes={
                "corpus": corpora.fingerprint,
                "thresholds": self.thresholds.digest,
                "stress": "-".join(file_digest(Path(path)) for path in self.stress_files),
            },
            own=self.replaced(),
        )
        self._writer = Writer(self.settings.results, header)
        cases = list(planned)
        # If nothing was ever built, builders are needed as soon as the first case has imported its
        # runtime. Started now, they import the same meanwhile, on another processor.
        modules = catalog.load().runtime(cases[0][0].target.runtime).modules if cases else ()
        at_once = bool({*modules} & {*nursery.PRELOADED}) and not any(entries())
        self._nursery = nursery.Nursery(self.threads, at_once)
        if self.settings.worker in ("main", "gw0"):
            for case, checks in cases:
                self._writer.write(Planned(case=facts_of(case), checks=checks))

    def replaced(self) -> tuple[str, ...]:
        """Return the names of inputs that a person put in place of the shipped ones."""
        settings = self.settings
        return (
            *(["corpus"] if settings.corpus.resolve() != corpus.DEFAULT.resolve() else []),
            *(["thresholds"] if settings.threshold_files else []),
            *(["expectations"] if settings.expectation_files else []),
            *(f"checkpoint:{name}" for name in sorted(settings.checkpoints)),
        )

    @property
    def path(self) -> Path | None:
        """The results file, once it was begun."""
        return self._writer.path if self._writer else None

    def measurement(self, case: Case, check: Check) -> Measurement:
        """Return a measurement on this case's worker; the previous case's worker is ended."""
        if self._worker is None or self._worker.request.id != case.id:
            self.end_worker()
            request = CaseRequest(
                id=case.id,
                corpus=str(self.settings.corpus),
                language=self.settings.language,
                profile=self.settings.profile.name,
                stress=self.stress_files if in_full(case, self.settings.profile) else (),
                checkpoint=self._checkpoint(case),
                threads=self.threads,
                device=self.settings.device,
            )
            self._worker = Worker(
                request,
                self.settings.time_limit,
                self.available_memory,
                lambda stage: self.said(case.id, stage),
            )
        return Measurement(
            case,
            check,
            self._worker,
            self.thresholds,
            self.settings.iterations or self.settings.profile.rounds,
            self.settings.warmup,
            self.settings.profile,
            bool(self.settings.iterations) or self.settings.profile.whole,
            self.settings.results / FOUND,
            self.recommendations.of(case),
        )

    def begin(self, measurement: Measurement) -> None:
        """Write that a check begins, then see whether it can.

        Raises:
            Finding: the target or the checkpoint is absent, or timing would be false.
        """
        case = measurement.case
        self._write(Started(case=case.id, check=measurement.check.name, time=now()))
        self.absent(case)
        if measurement.check.timed and self.parallel:
            raise Finding("skipped", "not timed (parallel)", "run without -n")
        processors = hardware.available_cpus()
        if measurement.check.timed and self.threads > processors:
            said = f"not timed ({self.threads} threads on {processors} processors)"
            raise Finding("skipped", said, f"--threads {processors}, or fewer")

    def absent(self, case: Case) -> None:
        """Raise :class:`Finding` if a case cannot run here, for want of hardware or weights."""
        probe = self.prober(case.target)
        if probe.state != "here":
            status: Status = "error" if probe.state == "broken" else "skipped"
            said = f"{case.target.name} is {probe.state}: {probe.reason}"
            raise Finding(status, said, probe.remedy, fatal=self._required(case.target))
        if case.id not in self._lacking:
            # Asked once per case: at later checks its own worker already holds that memory.
            runtime = catalog.load().runtime(case.target.runtime)
            lacking = need.lacking(case, runtime, probe, self.available_memory)
            self._lacking[case.id] = lacking
        if lacking := self._lacking[case.id]:
            raise Finding("skipped", lacking, "run it on a larger machine, or end other programs")
        if case.weights == "pretrained" and not self._checkpoint(case):
            name, checkpoint = case.variant.name, case.variant.checkpoint
            said = f"no checkpoint {checkpoint} in the local cache"
            if checkpoint.startswith(PACKAGE):
                package = checkpoint.removeprefix(PACKAGE).split("/")[0]
                said = f"the weights inside the package {package} are not here"
            named = f"--checkpoint {name}=FOLDER, or --download"
            raise Finding("skipped", said, fetching(checkpoint) or named)

    def _required(self, target: Target) -> bool:
        """Return whether the absence of a target is a failure.

        It is if ``--require`` names the target. If it names the hardware, another device of the
        runtime with that hardware will do: an emulator in place of the NPU, a processor without the
        GPU beside it. For a runtime that is not installed, another runtime's device will do too. An
        installed runtime that finds no device is a failure.
        """
        if target.name in self.settings.required:
            return True
        if target.hardware not in self.settings.required:
            return False
        known = catalog.load()
        runtime = known.runtime(target.runtime)
        installed = all(find_spec(name.partition(".")[0]) for name in runtime.modules)
        return not any(
            self.prober(other).state == "here"
            for other in (runtime.targets if installed else known.targets)
            if other.hardware == target.hardware
        )

    def finish(self, measurement: Measurement, error: BaseException | None) -> Observation:
        """Write and return the observation of a check; ``error`` is None if it ended well."""
        case, check = measurement.case, measurement.check.name
        draft = measurement.observation(error, None, "")
        expectation = self.expectations.match(
            case.id,
            check,
            self.versions,
            date.today(),
            None if draft.status == "passed" else draft.reason,
        )
        observation = measurement.observation(error, expectation, self._executed(measurement))
        self._write(observation)
        return observation

    def _executed(self, measurement: Measurement) -> str:
        """Return the scheme that really ran, or one per graph; empty if the case did not load."""
        try:
            loaded = measurement.worker.known("loads")
        except StageFailure:
            return ""
        if loaded is None:
            return ""
        schemes = dict(loaded["executed"])
        distinct = set(schemes.values())
        if len(distinct) == 1:
            return str(distinct.pop())
        return ", ".join(f"{graph} {scheme}" for graph, scheme in schemes.items())

    def _checkpoint(self, case: Case) -> str:
        if case.weights == "seeded":
            return ""
        named = self.settings.checkpoints.get(case.variant.name)
        if named:
            return str(Path(named).expanduser().resolve())
        if case.weights == "trained":
            return case.variant.trained
        try:
            return str(find_checkpoint(case.variant.checkpoint, self.settings.download))
        except CheckpointError:
            return ""

    def _write(self, line: Started | Observation) -> None:
        assert self._writer is not None, "the results file is opened before anything is measured"
        self._writer.write(line)

    def end_worker(self) -> None:
        """End the current worker, if there is one."""
        if self._worker is not None:
            self._worker.close()
            self._worker = None

    def close(self) -> None:
        """End the worker and the nursery, and close the results file."""
        self.end_worker()
        if self._nursery is not None:
            self._nursery.close()
        if self._writer is not None:
            self._writer.close()


def git_commit() -> str:
    """Return the commit of the working tree, with ``+`` if it was changed; empty outside git.

    An installed package has none: a repository around its folder is somebody else's.
    """
    if INSTALLED:
        return ""

    def git(*words: str) -> str:
        try:
            done = subprocess.run(
                ["git", "-C", str(ROOT), *words],
                capture_output=True,
                text=True,
                timeout=20,
                stdin=subprocess.DEVNULL,
                check=False,
            )
        except (OSError, subprocess.TimeoutExpired):
            return ""
        return done.stdout.strip() if done.returncode == 0 else ""

    commit = git("rev-parse", "--short=12", "HEAD")
    changed = git("status", "--porcelain", "--untracked-files=no")
    return commit + ("+" if commit and changed else "")


def relative(arguments: Iterable[str]) -> tuple[str, ...]:
    """Return command-line arguments with absolute paths made relative, or cut to their names."""
    here = Path.cwd()

    def shortened(word: str) -> str:
        option, value = "", word
        while not Path(value).is_absolute():
            name, separator, value = value.partition("=")
            if not separator:
                return word
            option += name + separator
        path = Path(value)
        inside = path.is_relative_to(here)
        return option + str(path.relative_to(here) if inside else Path("…") / path.name)

    return tuple(shortened(word) for word in arguments)
