"""What does not fit into memory is skipped before anything of it is loaded."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from compat import catalog
from compat.contract.runtime import Probe
from compat.run.measurement import Finding
from compat.run.need import device_bytes, host_bytes, lacking
from compat.run.run import Run, Settings

HERE = Probe("here")
GB = 10**9


def need_of(identifier: str) -> float:
    case = catalog.load().case(identifier)
    return host_bytes(case, catalog.load().runtime(case.target.runtime))


def test_a_large_model_needs_its_weights_several_times() -> None:
    # 1543.5 million parameters of four bytes, three times, and a gigabyte.
    assert need_of("whisper-large-v3@seeded/cpu-torch/fp32") == pytest.approx(19.5 * GB, rel=0.01)
    # OpenVINO holds two more while it compiles.
    assert need_of("whisper-large-v3@seeded/openvino-cpu/fp32") == pytest.approx(
        31.9 * GB, rel=0.01
    )


def test_a_small_model_is_tried_whatever_is_free() -> None:
    case = catalog.load().case("whisper-tiny@seeded/cpu-torch/fp32")
    assert lacking(case, catalog.load().runtime("torch"), HERE, 1) == ""


def test_intermediate_values_count() -> None:
    case = catalog.load().case("whisper-tiny@seeded/cpu-torch/fp32")
    long = replace(case, variant=replace(case.variant, working_gb=6.0))
    assert lacking(long, catalog.load().runtime("torch"), HERE, 7 * GB).startswith(
        "needs about 7.5 GB"
    )
    assert lacking(long, catalog.load().runtime("torch"), HERE, 8 * GB) == ""


def test_a_device_of_its_own_has_to_hold_the_weights() -> None:
    runtime = catalog.load().runtime("torch")
    board = Probe("here", facts={"memory_bytes": 4 * GB})
    single, half = (
        catalog.load().case(f"whisper-large-v3@seeded/cuda-torch/{recipe}")
        for recipe in ("fp32", "fp16")
    )
    assert device_bytes(single) == 2 * device_bytes(half)
    said = lacking(single, runtime, board, 64 * GB)
    assert said == "needs about 6.2 GB on the device, which has 4.0 GB"
    assert lacking(half, runtime, board, 64 * GB) == ""


def test_a_page_addresses_four_gigabytes() -> None:
    """However much memory there is. MusicGen small, 2.3 GB, ran in wasm and in WebNN."""
    web = catalog.load().runtime("ort-web")
    single, eight = (
        catalog.load().case(f"seamless-m4t-v2-large@seeded/wasm-chromium/{recipe}")
        for recipe in ("fp32", "int8-dynamic")
    )
    for free in (GB, 900 * GB):
        said = lacking(single, web, HERE, free)
        assert said == "needs 6.0 GB for weights, and ort-web can address 4.3 GB"
    assert lacking(eight, web, HERE, 900 * GB) == ""
    assert lacking(eight, web, HERE, 9 * GB).startswith("needs about 19.0 GB of memory")
    music = catalog.load().case("musicgen-small@seeded/wasm-chromium/fp32")
    assert lacking(music, web, HERE, 900 * GB) == ""


def test_what_a_case_holds_itself_is_no_want(monkeypatch: pytest.MonkeyPatch) -> None:
    """Its own worker takes memory, of which later checks find less; the next case is asked anew."""
    pytest.importorskip("torch")
    free = [64 * GB, GB]
    monkeypatch.setattr("compat.hardware.facts.available_memory_bytes", lambda: free[0])
    run = Run(Settings())
    first, other = (
        catalog.load().case(f"whisper-large-v3@seeded/cpu-torch/{recipe}")
        for recipe in ("fp32", "bf16")
    )
    run.absent(first)
    del free[0]
    run.absent(first)
    with pytest.raises(Finding, match=r"needs about 19\.5 GB of memory, and 0\.9 GB are free"):
        run.absent(other)


def test_it_is_skipped_with_its_need(suites: Any, tmp_path: Any) -> None:
    run = suites.run(
        tmp_path,
        *("--weights=seeded", "--targets=cpu-torch", "--recipes=fp32", "--memory-limit=4"),
        *("-k", "loads"),
        models="whisper-large-v3",
    )
    assert run.status == 0, run.text
    (one,) = run.observations
    assert one.status == "skipped"
    assert one.reason == "needs about 19.5 GB of memory, and 4.3 GB are free"
    assert one.remedy
