"""The protocol that a worker performs: everything that is measured of one case, in stages.

Each stage is computed when it is first asked for and remembered. Stages return JSON; they
measure and compare, and judge nothing: thresholds are applied where the results are written.
"""

from __future__ import annotations

import importlib
import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import cycle, islice
from time import perf_counter
from typing import Any

import numpy as np

from compat import catalog
from compat.build import artifacts
from compat.build.reference import BRIEF, REFERENCE, Inputs, oracle_session
from compat.build.sources import sources
from compat.contract.case import precision_of
from compat.contract.graph import Stopwatch
from compat.contract.item import Item, Prediction
from compat.contract.model_reference import ModelReference
from compat.contract.runtime import Options
from compat.contract.session import Pipeline, Session, Unsupported
from compat.inputs import stress
from compat.measure import occupancy
from compat.measure.latency import FETCHES, HOST_ROUNDS, PAIRS, _goes_on, calibrate
from compat.measure.memory import peak_bytes, resident_bytes
from compat.measure.predictions import prediction_faults, same_prediction, scored_row
from compat.measure.request import CaseRequest
from compat.metrics import numerics, timing
from compat.models.base import OUTSIDE_UEM, score_sets

EPSILON = 1e-5
"""Relative error that is allowed whatever the oracle's: two honest float32 sums differ by it."""

EPSILON_FLOAT32 = 1e-4
"""The same where the reference itself is float32, and errs as its oracle does."""

LARGE = 400.0
"""Millions of parameters above which the reference is float32, as float64 would not fit."""


@dataclass
class Protocol:
    """Measures one case; built from a :class:`CaseRequest` given as a mapping."""

    request: Mapping[str, Any]
    _remembered: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        known = CaseRequest(**self.request)
        self.case = catalog.load().case(known.id)
        weights, variant = self.case.weights, self.case.variant
        checkpoint = known.checkpoint or (variant.trained if weights == "trained" else "")
        reference = ModelReference(self.case.family.name, variant.name, weights, checkpoint)
        brief = known.profile == "quick" and self.case.target.slow
        profile, hard = (BRIEF, ()) if brief else (known.profile, known.stress)
        self.inputs = Inputs(reference, known.corpus, profile, tuple(hard))
        self.options = Options(known.threads, known.device, known.corpus, self._batched)
        self.reference_scheme = REFERENCE if variant.parameters < LARGE else "fp32"
        self.epsilon = EPSILON if self.reference_scheme == REFERENCE else EPSILON_FLOAT32
        self._timings: dict[str, float] = {}
        self._ran: dict[str, tuple[Prediction, float]] = {}
        self._device_peak_bytes: int | None = None
        self._allowed = occupancy.allowed()

    def stage(self, name: str, arguments: Mapping[str, Any]) -> Any:
        """Perform a stage, or return what it gave before."""
        if name in REPEATABLE:
            return REPEATABLE[name](self, **arguments)
        key = name + json.dumps(arguments, sort_keys=True)
        if key not in self._remembered:
            self._remembered[key] = STAGES[name](self, **arguments)
        return self._remembered[key]

    # What stages share -------------------------------------------------------------------------

    @cached_property
    def session(self) -> Session:
        """The compiled case; times its parts the first time."""
        runtime = catalog.load().runtime(self.case.target.runtime)
        reason = runtime.unsupported(self.case.target, self.case.recipe)
        if reason:
            raise Unsupported(reason)
        model = self.inputs.model
        model.graphs()
        self._timings["baseline_bytes"] = resident_bytes()
        started = perf_counter()
        for package in runtime.modules:
            importlib.import_module(package)
        imported = perf_counter()
        built = artifacts.seconds_building()
        opened = sources(self.inputs.reference, model, self.options.threads)
        session = runtime.compile(opened, self.case.target, self.case.recipe, self.options)
        names = {part.rpartition("-")[2] for part in self.case.recipe.name.split("+")[1:]}
        if not names <= set(opened):
            raise ValueError(
                f"{self.case.recipe.name} names {', '.join(sorted(names - set(opened)))}; the "
                f"components of {self.case.variant.name} are {', '.join(opened)}"
            )
        building = artifacts.seconds_building() - built
        self._timings |= {
            "import_s": imported - started,
            "load_s": perf_counter() - imported - building,
            "artifacts_s": building,
        }
        return session

    @cached_property
    def reference(self) -> Any:
        """The stored reference outputs on this case's inputs."""
        return self.inputs.fetch_reference(self.reference_scheme, self.options.threads)

    def transcribe(self, items: Sequence[Item]) -> tuple[list[Prediction], Stopwatch, float]:
        """Run the whole task on a batch; return predictions, stages and seconds."""
        stopwatch = Stopwatch()
        started = perf_counter()
        session = self.session
        crossed = session.crossing_s
        if isinstance(session, Pipeline):
            predictions = session.perform(items, stopwatch)
        else:
            predictions = self.inputs.model.run(session, items, stopwatch)
        crossing = session.crossing_s - crossed
        if crossing:
            stopwatch.marks["crossing"] = crossing
        return predictions, stopwatch, perf_counter() - started - crossing

    def trace(self, item: Item, guide: Prediction) -> dict[str, np.ndarray]:
        """Return the outputs of one input whose numerics are judged."""
        if isinstance(self.session, Pipeline):
            return self.session.trace(item, guide)
        return self.inputs.model.trace(self.session, item, guide)

    # Stages ------------------------------------------------------------------------------------

    def loads(self) -> dict[str, Any]:
        """Compile, and run one standard input; report cold start, sizes, executed precision."""
        session = self.session
        first = self._standard_items()[0]
        built = artifacts.seconds_building()
        predictions, _, seconds = self.transcribe([first])
        if self.case.target.evidence == "emulator":
            # Its seconds mean nothing and are many: the same input is not run again.
            self._ran[first.id] = predictions[0], seconds
        seconds -= artifacts.seconds_building() - built  # A shape that was exported meanwhile.
        executed = dict(session.executed())
        for graph, scheme in executed.items():
            wanted = self.case.recipe.for_graph(graph)
            if precision_of(scheme) != precision_of(wanted):
                raise Unsupported(f"executed {scheme}: {graph} was asked to run {wanted}")
        timings = self._timings
        return {
            "cold": {
                "import_s": timings["import_s"],
                "load_s": timings["load_s"],
                "first_run_s": seconds,
            },
            "artifacts_s": timings["artifacts_s"],
            "model_bytes": session.model_bytes(),
            "executed": executed,
            "notes": dict(session.notes()),
            "weights": self.inputs.model.fingerprint(),
            "faults": prediction_faults(predictions, None),
        }

    def placed(self) -> dict[str, Any]:
        """Report where the compiled nodes ran."""
        self.stage("loads", {})
        placement = self.session.placement()
        return {
            "share": placement.share,
            "devices": dict(placement.devices),
            "method": placement.method,
        }

    def standard(self) -> dict[str, Any]:
        """Run every standard input once, timed; these are the outputs that accuracy judges."""
        items = self._standard_items()
        predictions: dict[str, Prediction] = {}
        seconds: dict[str, float] = {}
        for item in items:
            if item.id in self._ran:
                predictions[item.id], seconds[item.id] = self._ran[item.id]
            else:
                (predictions[item.id],), _, seconds[item.id] = self.transcribe([item])
        # Before references and oracles are read, which belong to the suite and not to the case.
        self._timings["peak_bytes"] = peak_bytes()
        self._device_peak_bytes = self.session.device_peak_bytes()
        faults = prediction_faults(list(predictions.values()), None)
        return {"predictions": predictions, "seconds": seconds, "faults": faults}

    def task(self) -> dict[str, Any]:
        """Score each test set against the truth and against the reference."""
        found = self.stage("standard", {})
        model = self.inputs.model
        references = self.reference.predictions
        faults = [
            f"{name}: {fault}"
            for name, items in self.inputs.items.task.items()
            for fault in prediction_faults(
                [found["predictions"][item.id] for item in items],
                [references[item.id] for item in items],
            )
        ]
        values = score_sets(
            model.score,
            {
                name: (
                    items,
                    [found["predictions"][item.id] for item in items],
                    [references[item.id] for item in items],
                )
                for name, items in self.inputs.items.task.items()
            },
        )
        rows = [
            scored_row(name, item, found["predictions"][item.id], references[item.id])
            for name, items in self.inputs.items.task.items()
            for item in items
        ]
        outside = [
            item.id
            for items in self.inputs.items.task.values()
            for item in items
            if not item.is_scored
        ]
        return {"values": values, "faults": faults, "predictions": rows, OUTSIDE_UEM: outside}

    def numerics(self) -> dict[str, Any]:
        """Compare traced outputs with the reference's and with the oracle's."""
        items = self.inputs.items.numerics
        oracle = self.inputs.fetch_oracle(
            self.case.recipe.name,
            self.case.target.runtime,
            self.reference_scheme,
            self.options.threads,
        )
        guides = self.reference.predictions
        traced = [self.trace(item, guides[item.id]) for item in items]
        expected = [self.reference.trace(item.id) for item in items]
        honest = [oracle.trace(item.id) for item in items]
        values: dict[str, Any] = {}
        faults = self._truncations(items)
        for name in traced[0]:
            reference = [arrays[name] for arrays in expected]
            device = [arrays[name] for arrays in traced]
            blind = numerics.blind_faults(device, reference)
            faults += [f"{name}: {fault}" for fault in blind]
            if not any("shape" in fault or "missing" in fault for fault in blind):
                compared = numerics.compare(
                    reference, [arrays[name] for arrays in honest], device, self.epsilon
                )
                if len(reference) > 1:
                    compared["contrast_db"] = numerics.contrast_db(reference)
                values[name] = compared
        return {
            "values": {**values, "reference": self.reference_scheme, "inputs": len(items)},
            "faults": faults,
        }

    def _truncations(self, items: Sequence[Item]) -> list[str]:
        """Generated weights never end by themselves: fewer tokens than the reference's are lost."""
        if self.case.weights != "seeded":
            return []
        found = self.stage("standard", {})["predictions"]
        lengths = [
            (len(found[i.id].get("tokens", ())), len(self.reference.predictions[i.id]["tokens"]))
            for i in items
            if i.id in found and "tokens" in self.reference.predictions[i.id]
        ]
        short = [(ours, theirs) for ours, theirs in lengths if ours < theirs]
        return [f"truncated: {short[0][0]} of {short[0][1]} tokens"] if short else []

    def suspicions(self) -> dict[str, Any]:
        """Look for what falsifies timings: kept results, and clocks that do not wait.

        ``faults`` are certain; ``doubts`` rest on single rounds, while other processes had the
        processors.
        """
        before = self.processors()
        for attempt in range(2):
            repeats, fresh = self._repeats_and_fresh(attempt)
            run_s, fetch_s = self._waits()
            cached = timing.cached_result(repeats, fresh)
            suspicions = {"repeat_speed_up": cached}
            if run_s:
                suspicions["fetch_share"] = timing.unsynchronised(run_s, fetch_s)
            if not any(found.flagged for found in suspicions.values()):
                break  # Only what shows twice is a fault: a busy machine can feign one.
        others = timing.others_busy(before, self.processors())
        crowded = timing.crowding(others, self.options.threads)
        flagged = [found for found in suspicions.values() if found.flagged]
        doubts = [found.detail for found in flagged if crowded and found.feignable]
        faults = [found.detail for found in flagged if found.detail not in doubts]
        return {
            "values": {name: found.value for name, found in suspicions.items()},
            "samples": {"repeat_s": repeats, "fresh_s": fresh, "run_s": run_s, "fetch_s": fetch_s},
            "faults": faults,
            "doubts": [f"{crowded}; {doubt}" for doubt in doubts],
        }

    def _repeats_and_fresh(self, attempt: int) -> tuple[list[float], list[float]]:
        """Time one input again and again, between inputs that were never seen before."""
        item = self._standard_items()[0]  # Not its first time: accuracy has seen it.
        self.stage("standard", {})
        repeats: list[float] = []
        fresh: list[float] = []
        while _goes_on(PAIRS, [*repeats, *fresh], len(fresh)):
            # A trace fainter each: the same work for the model, yet other bytes.
            fainter = np.float32(1 - 0.002 * (PAIRS[1] * attempt + len(fresh) + 1))
            unseen = replace(item, id="fresh", samples=item.samples * fainter)
            repeats.append(self.transcribe([item])[2])
            fresh.append(self.transcribe([unseen])[2])
        return repeats, fresh

    def _waits(self) -> tuple[list[float], list[float]]:
        """Time a graph until it is synchronised, and then the fetch of its smallest output."""
        if isinstance(self.session, Pipeline):
            return [], []  # It returns the task's result on the host: nothing is left to wait for.
        graph = self.inputs.model.graphs()[0]
        point = next(iter(graph.points))
        feeds = {
            name: np.zeros(tensor.at(graph.points[point]), tensor.dtype)
            for name, tensor in graph.inputs.items()
        }
        run_s: list[float] = []
        fetch_s: list[float] = []
        self.session.run(graph.name, feeds, point)[graph.smallest_output].numpy()  # Warms up.
        while _goes_on(FETCHES, [*run_s, *fetch_s], len(run_s)):
            started = perf_counter()
            outputs = self.session.run(graph.name, feeds, point)
            self.session.synchronize()
            ran = perf_counter()
            outputs[graph.smallest_output].numpy()
            fetch_s.append(perf_counter() - ran)
            run_s.append(ran - started)
        return run_s, fetch_s

    def timed(self, index: int) -> dict[str, Any]:
        """Run a timed round on the next standard input; say whether its output is the judged one.

        A fixed piece of arithmetic is timed beside it, to tell a slow backend from a busy machine.
        """
        items = self.inputs.items.timed
        item = items[index % len(items)]
        baseline = calibrate()
        (prediction,), stopwatch, seconds = self.transcribe([item])
        judged = self.stage("standard", {})["predictions"][item.id]
        return {
            "seconds": seconds,
            "baseline_s": baseline,
            "stages": stopwatch.stages,
            "marks": stopwatch.marks,
            "audio_s": item.seconds,
            "tokens": len(prediction.get("tokens", ())),
            "same": same_prediction(prediction, judged),
        }

    def processors(self) -> dict[str, Any]:
        """Read how long all processes, and the worker's own, have used the processors so far."""
        return occupancy.reading(self._allowed)

    def host(self) -> dict[str, Any]:
        """Do one task on the target and on the host's own processor, by turns."""
        import torch

        item = self.inputs.items.timed[0]
        self.transcribe([item])  # Warms up, and leaves the threads as the runtime wants them.
        model = self.inputs.model
        kept = torch.get_num_threads()
        host = oracle_session(self.inputs.reference, model, "fp32")
        torch.set_num_threads(self.options.threads)
        model.run(host, [item], Stopwatch())
        target_s, host_s = [], []
        before = self.processors()
        for _ in range(HOST_ROUNDS):
            target_s.append(self.transcribe([item])[2])
            started = perf_counter()
            model.run(host, [item], Stopwatch())
            host_s.append(perf_counter() - started)
        others = timing.others_busy(before, self.processors())
        torch.set_num_threads(kept)
        return {"samples": {"host_s": host_s, "target_s": target_s}, "others": others}

    def throughput(self, batch: int, rounds: int) -> dict[str, Any]:
        """Run batches of standard inputs; report seconds per round."""
        items = list(islice(cycle(self.inputs.items.timed), batch))
        self.transcribe(items)
        seconds = [self.transcribe(items)[2] for _ in range(rounds)]
        return {"seconds": seconds, "audio_s": sum(item.seconds for item in items)}

    def batches(self, recommended: int = 0) -> list[int]:
        """Return the model's usual batch sizes, and large ones up to a recommended one."""
        return list(self.inputs.model.batches(recommended))

    def stress(self) -> dict[str, Any]:
        """Run the stress inputs, the batch and the order check, against the reference."""
        found = {item.id: self._stressed(item) for item in self.inputs.items.stress}
        result = {"inputs": found, "order": self._in_other_order()}
        if self._batched:
            result["batch"] = self._in_batch()
        return result

    @property
    def _batched(self) -> bool:
        """Whether inputs in a batch are compared with the same alone.

        Of generated weights another last bit changes the answer.
        """
        return self.case.weights != "seeded" and self.inputs.profile not in ("quick", BRIEF)

    def _stressed(self, item: Item) -> dict[str, Any]:
        model = self.inputs.model
        reference = self.reference.predictions[item.id]
        longest = max(self.inputs.items.stress, key=lambda one: one.seconds)
        result: dict[str, Any] = {"audio_s": item.seconds}
        faults: list[str] = []
        if self.case.weights != "seeded" or item is longest:
            (prediction,), _, result["seconds"] = self.transcribe([item])
            faults = prediction_faults([prediction], None)
        if self.case.weights == "seeded":
            # Free-running tokens of generated weights prove nothing: compare what is computed.
            traced = self.trace(item, reference)
            expected = self.reference.trace(item.id)
            for name, array in traced.items():
                faults += numerics.blind_faults([array], [expected[name]])
            if not faults:
                # Errors count by how much outputs differ over ordinary inputs: silence has no
                # variation of its own.
                usual = [self.reference.trace(one.id) for one in self.inputs.items.numerics]
                result["snr_db"] = min(
                    numerics.compare(
                        [*(found[name] for found in usual), expected[name]],
                        None,
                        [*(found[name] for found in usual), array],
                    )["worst_snr_db"]
                    for name, array in traced.items()
                )
        else:
            result |= model.errors(item, prediction, reference)
        return {**result, "faults": faults}

    def found(self, entry: dict[str, Any]) -> dict[str, Any]:
        """Run one input made on the spot: only crashes and blindness can show."""
        speech = self._standard_items()
        item = stress.make({"name": "found", **entry}, speech, self.inputs.model.sample_rate)
        predictions, _, seconds = self.transcribe([item])
        return {"faults": prediction_faults(predictions, None), "seconds": seconds}

    def _in_batch(self) -> dict[str, Any]:
        """Does an input give the same in a batch as alone?"""
        size = self.inputs.model.batches()[-1]
        items = list(islice(cycle(self._standard_items()), size))
        judged = self.stage("standard", {})["predictions"]
        together, _, _ = self.transcribe(items)
        return self._differences(items, together, judged)

    def _in_other_order(self) -> dict[str, Any]:
        """Does the first input give the same after all others as it did at first?"""
        items = self._standard_items()[:1]
        judged = self.stage("standard", {})["predictions"]
        again, _, _ = self.transcribe(items)
        return self._differences(items, again, judged)

    def _differences(
        self, items: Sequence[Item], predictions: Sequence[Prediction], judged: Mapping[str, Any]
    ) -> dict[str, Any]:
        different = [
            item.id
            for item, prediction in zip(items, predictions, strict=True)
            if not same_prediction(prediction, judged[item.id])
        ]
        return {"items": len(items), "different": different}

    def memory(self) -> dict[str, Any]:
        """Report the peak memory of this process over every standard input, and the device's."""
        self.stage("standard", {})
        return {
            "peak_bytes": self._timings["peak_bytes"],
            "baseline_bytes": self._timings.get("baseline_bytes", 0),
            "model_bytes": self.session.model_bytes(),
            "device_peak_bytes": self._device_peak_bytes,
        }

    def _standard_items(self) -> list[Item]:
        """Every distinct input that accuracy or timing looks at, in a fixed order."""
        items = self.inputs.items
        everything = (*(i for found in items.task.values() for i in found), *items.timed)
        return list({item.id: item for item in everything}.values())


STAGES: Mapping[str, Callable[..., Any]] = {
    "loads": Protocol.loads,
    "placed": Protocol.placed,
    "standard": Protocol.standard,
    "task": Protocol.task,
    "numerics": Protocol.numerics,
    "suspicions": Protocol.suspicions,
    "host": Protocol.host,
    "throughput": Protocol.throughput,
    "batches": Protocol.batches,
    "stress": Protocol.stress,
    "memory": Protocol.memory,
}
REPEATABLE: Mapping[str, Callable[..., Any]] = {
    "timed": Protocol.timed,
    "processors": Protocol.processors,
    "found": Protocol.found,
}
