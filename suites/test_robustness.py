"""Checks of robustness: hard inputs such as silence, noise and extremes, batches, and order."""

from typing import Any

from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from compat.inputs.stress import KINDS
from compat.run.client import StageFailure, StageInput
from compat.run.measurement import Finding, Measurement, check, remember


@check("robustness.stress", headline=True, lengthy=True)
def test_stress(measurement: Measurement) -> None:
    """The fixed list of hard inputs: no crash, no NaN, and on each no worse than the reference."""
    found = measurement.stage("stress")
    inputs: dict[str, Any] = {}
    faults: list[str] = []
    worse: list[str] = []
    snr = []
    for name, one in found["inputs"].items():
        detail = "; ".join(one["faults"])
        faults += [f"{name}: {fault}" for fault in one["faults"]]
        if "errors" in one:
            detail = detail or f"{one['errors']:g} errors, the reference {one['reference']:g}"
            if one["errors"] > one["reference"]:
                worse.append(name)
        elif "snr_db" in one:
            detail = detail or f"{one['snr_db']:.1f} dB to the reference"
            snr.append(one["snr_db"])
        inputs[name] = {"ok": not one["faults"] and name not in worse, "detail": detail}
    for name, phrases in found["inventions"].items():
        faults += [f"{name}: {phrase}" for phrase in phrases]
    values: dict[str, Any] = {
        "inputs": inputs,
        "inventions": len(found["inventions"]),
        "worse": len(worse),
        "changed_by_order": len(found["order"]["different"]),
    }
    if "batch" in found:
        share = len(found["batch"]["different"]) / found["batch"]["items"]
        values["changed_in_batch"] = share
    for question in {"batch", "order"} & set(found):
        different = found[question]["different"]
        said = f"{len(different)} of {found[question]['items']} answers differ"
        inputs[question] = {"ok": not different, "detail": said}
    if snr:
        values["worst_snr_db"] = min(snr)
    measurement.judge(values, faults)


@check(
    "robustness.search",
    lengthy=True,
    # The search runs many inputs, so that only small trained models are searched. Small sizes with
    # generated weights are meant for emulators, which take seconds for an input.
    applies=lambda case: (
        not case.variant.published and case.weights == "trained" and case.recipe.name == "fp32"
    ),
)
def test_search(measurement: Measurement) -> None:
    """A random search for hard inputs. An input that breaks the case joins the fixed list."""
    if not measurement.stage("searchable"):
        raise Finding(
            "skipped",
            "the search draws audio, and the inputs of this task are other than that",
            "`robustness.stress` has the inputs that the task calls hard",
        )
    tried: list[dict[str, Any]] = []

    @settings(
        max_examples=measurement.profile.examples,
        deadline=None,
        database=None,
        derandomize=True,
        suppress_health_check=list(HealthCheck),
        phases=(Phase.generate, Phase.shrink),
    )
    @given(
        kind=st.sampled_from(KINDS),
        seconds=st.floats(0.001, 12.0),
        gain=st.floats(1e-6, 1e3),
        offset=st.floats(-1.0, 1.0),
        seed=st.integers(0, 20),
    )
    def survives(**entry: Any) -> None:
        tried.append(entry)
        try:
            found = measurement.worker.ask("found", entry=entry)
        except StageInput:
            raise  # The input itself was at fault, which tells nothing about the case.
        except StageFailure as failure:
            raise Finding("failed", f"{failure.status}: {failure} on {entry}") from failure
        if found["faults"]:
            raise Finding("failed", f"{'; '.join(found['faults'])} on {entry}")

    try:
        survives()
    except Finding:
        remember(measurement, tried[-1])
        raise
    measurement.judge({"tried": len(tried)})
