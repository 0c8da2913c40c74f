"""compat.judge.thresholds: which entry decides, what fails, and what a broken file is told."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import msgspec
import pytest

from compat import catalog
from compat.contract.errors import CompatError
from compat.judge.results import CaseFacts, Limit
from compat.judge.thresholds import Thresholds, default_path, load

FACTS = CaseFacts(
    id="whisper-tiny@seeded/openvino-cpu/fp16",
    family="whisper",
    task="asr",
    row="Whisper",
    variant="whisper-tiny",
    weights="seeded",
    hardware="openvino",
    runtime="openvino",
    target="openvino-cpu",
    recipe="fp16",
    precision="fp16",
    evidence="device",
    on_host_cpu=True,
    published=True,
    headline=True,
    stand_in=False,
    timed=True,
)


def _facts(**changes: Any) -> CaseFacts:
    return msgspec.structs.replace(FACTS, **changes)


def _entry(
    strict: float = 60, relaxed: float = 40, metric: str = "*.snr_db", more: str = ""
) -> str:
    return (
        '[[threshold]]\ncheck = "accuracy.numerics"\n'
        f'metric = "{metric}"\nat_least = {{ strict = {strict}, relaxed = {relaxed} }}\n'
        f'reason = "because {strict}"\n{more}\n'
    )


def _load(tmp_path: Path, *texts: str) -> Thresholds:
    paths = []
    for index, text in enumerate(texts):
        path = tmp_path / f"limits{index}.toml"
        path.write_text(text)
        paths.append(path)
    return load(paths)


def _values(snr_db: Any) -> dict[str, Any]:
    return {"encoder": {"snr_db": snr_db, "cosine": 0.5}}


@pytest.mark.parametrize(
    ("value", "level"),
    [(60.0, "strict"), (59.999, "relaxed"), (40, "relaxed"), (39.999, "failed")],
)
def test_levels_at_least(tmp_path: Path, value: float, level: str) -> None:
    assert _load(tmp_path, _entry()).judge("accuracy.numerics", FACTS, _values(value))[0] == level


@pytest.mark.parametrize(
    ("value", "level"), [(0, "strict"), (0.5, "strict"), (0.51, "relaxed"), (1.01, "failed")]
)
def test_levels_at_most(tmp_path: Path, value: float, level: str) -> None:
    text = (
        '[[threshold]]\ncheck = "latency.task"\nmetric = "rtf_upper"\n'
        'at_most = { strict = 0.5, relaxed = 1.0 }\nreason = "live"\n'
    )
    found, limits, _ = _load(tmp_path, text).judge("latency.task", FACTS, {"rtf_upper": value})
    assert found == level and limits[0].direction == "at_most"


def test_limit_and_reason(tmp_path: Path) -> None:
    level, limits, reason = _load(tmp_path, _entry()).judge(
        "accuracy.numerics", FACTS, _values(31.25)
    )
    assert level == "failed"
    assert limits == (
        Limit(
            metric="encoder.snr_db",
            value=31.25,
            strict=60.0,
            relaxed=40.0,
            direction="at_least",
            level="failed",
            reason="because 60",
        ),
    )
    assert reason == "encoder.snr_db 31.25, needs at least 40 (because 60)"


def test_worst_metric_decides_and_comes_first(tmp_path: Path) -> None:
    values = {"a": {"snr_db": 70.0}, "b": {"snr_db": 10.0}, "c": {"snr_db": 50.0}}
    level, limits, reason = _load(tmp_path, _entry()).judge("accuracy.numerics", FACTS, values)
    assert level == "failed"
    assert [limit.metric for limit in limits] == ["b.snr_db", "c.snr_db", "a.snr_db"]
    assert reason.startswith("b.snr_db 10, needs at least 40") and "a.snr_db" not in reason


def test_nothing_applies_is_no_verdict(tmp_path: Path) -> None:
    thresholds = _load(tmp_path, _entry(more='family = "moonshine"'))
    assert thresholds.judge("accuracy.numerics", FACTS, _values(1.0)) == (None, (), "")
    assert thresholds.judge("accuracy.task", FACTS, _values(1.0)) == (None, (), "")
    assert thresholds.checks == {"accuracy.numerics"}


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), None, "high"])
def test_what_is_not_a_finite_number_fails(tmp_path: Path, bad: Any) -> None:
    for required in ("true", "false"):
        thresholds = _load(tmp_path, _entry(more=f"required = {required}"))
        level, limits, reason = thresholds.judge("accuracy.numerics", FACTS, _values(bad))
        assert level == "failed" and limits[0].value is None and "finite number" in reason


def test_missing_metric(tmp_path: Path) -> None:
    required = _load(tmp_path, _entry())
    level, limits, reason = required.judge("accuracy.numerics", FACTS, {"encoder": {"x": 1.0}})
    assert level == "failed" and limits[0].value is None
    assert reason == "*.snr_db was not reported (at least 40 is needed)"
    optional = _load(tmp_path, _entry(more="required = false"))
    assert optional.judge("accuracy.numerics", FACTS, {"encoder": {"x": 1.0}})[0] is None
    assert optional.judge("accuracy.numerics", FACTS, _values(1.0))[0] == "failed"
    # A more specific entry for the same metric decides whether it may be missing.
    relaxed = _load(tmp_path, _entry(), _entry(more='required = false\nprecision = "fp16"'))
    assert relaxed.judge("accuracy.numerics", FACTS, {})[0] is None
    assert relaxed.judge("accuracy.numerics", _facts(precision="fp32"), {})[0] == "failed"


def test_most_filters_decide(tmp_path: Path) -> None:
    specific = _entry(30, 20, more='precision = "fp16"\nhardware = "openvino"')
    middle = _entry(40, 30, more='precision = "fp16"')
    general = _entry(90, 80)
    for order in ([specific, middle, general], [general, middle, specific]):
        thresholds = _load(tmp_path, "".join(order))
        assert thresholds.judge("accuracy.numerics", FACTS, _values(35.0))[0] == "strict"
        other = _facts(hardware="cuda")
        assert thresholds.judge("accuracy.numerics", other, _values(35.0))[0] == "relaxed"
        other = _facts(precision="fp32")
        assert thresholds.judge("accuracy.numerics", other, _values(35.0))[0] == "failed"
        # One limit per metric, whatever the number of entries that match.
        assert len(thresholds.judge("accuracy.numerics", FACTS, _values(35.0))[1]) == 1


def test_literal_path_outranks_a_pattern(tmp_path: Path) -> None:
    thresholds = _load(tmp_path, _entry(30, 20, metric="encoder.snr_db") + _entry(90, 80))
    values = {"encoder": {"snr_db": 35.0}, "decoder": {"snr_db": 35.0}}
    limits = thresholds.judge("accuracy.numerics", FACTS, values)[1]
    assert {limit.metric: limit.level for limit in limits} == {
        "encoder.snr_db": "strict",
        "decoder.snr_db": "failed",
    }


def test_later_file_wins_ties_and_override_wins_all(tmp_path: Path) -> None:
    shipped = _entry(more='precision = "fp16"')
    same = _load(tmp_path, shipped, _entry(10, 5, more='family = "whisper"'))
    assert same.judge("accuracy.numerics", FACTS, _values(11.0))[0] == "strict"
    less = _load(tmp_path, shipped, _entry(10, 5))
    assert less.judge("accuracy.numerics", FACTS, _values(11.0))[0] == "failed"
    outranks = _load(tmp_path, _entry(10, 5, more="override = true"), shipped)
    assert outranks.judge("accuracy.numerics", FACTS, _values(11.0))[0] == "strict"
    within = _load(tmp_path, shipped + _entry(10, 5, more='precision = "fp16"'))
    assert within.judge("accuracy.numerics", FACTS, _values(11.0))[0] == "strict"


@pytest.mark.parametrize(
    ("line", "applies"),
    [
        ('family = "whisper"', True),
        ('family = ["moonshine", "whisper"]', True),
        ('family = "moonshine"', False),
        ('task = "asr"', True),
        ('variant = "whisper-*"', True),
        ('weights = "trained"', False),
        ('hardware = "openvino"', True),
        ('runtime = "torch"', False),
        ('target = "openvino-*"', True),
        ('recipe = "int8-*"', False),
        ('precision = ["fp16", "bf16"]', True),
        ('evidence = "emulator"', False),
        ("published = true", True),
        ("published = false", False),
        ("on_host_cpu = false", False),
    ],
)
def test_filters(tmp_path: Path, line: str, applies: bool) -> None:
    level = _load(tmp_path, _entry(more=line)).judge("accuracy.numerics", FACTS, _values(70.0))[0]
    assert level == ("strict" if applies else None)


def test_lists_and_depth(tmp_path: Path) -> None:
    thresholds = _load(tmp_path, _entry(metric="a.interval.1"))
    assert thresholds.judge("accuracy.numerics", FACTS, {"a": {"interval": [0, 61]}})[0] == "strict"
    # A pattern stands for one part of the path, not for several.
    deep = {"graph": {"encoder": {"snr_db": 70.0}}}
    assert _load(tmp_path, _entry()).judge("accuracy.numerics", FACTS, deep)[0] == "failed"


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[[threshold]\n", r"limits0\.toml is not valid TOML.*line 1"),
        ("[threshold]\nx = 1\n", "at the top level"),
        ("[[thresholds]]\nx = 1\n", "'thresholds' at the top level"),
        (_entry(more='presicion = "fp16"'), r"entry 1 \(line 1\): unknown key 'presicion'"),
        (_entry() + _entry(more="x = 1"), r"entry 2 \(line 7\): unknown key 'x'"),
        (_entry().replace("reason", "# reason"), "add reason"),
        (_entry().replace("because 60", "  "), "add reason"),
        (_entry().replace("at_least", "at_most"), "easier than the relaxed one.*at_least"),
        (_entry(40, 60), "easier than the relaxed one.*at_most"),
        (_entry(more="at_most = { strict = 1, relaxed = 2 }"), "exactly one"),
        (_entry().replace("at_least", "# at_least"), "exactly one"),
        (_entry().replace(", relaxed = 40", ""), "needs strict and relaxed"),
        (_entry().replace("40", '"40"'), "relaxed must be a finite number"),
        (_entry().replace("= 40", "= true"), "relaxed must be a finite number"),
        (_entry().replace("= 40", "= nan"), "relaxed must be a finite number"),
        (_entry().replace("= 40", "= -inf"), "relaxed must be a finite number"),
        (_entry(metric="a..b"), "empty part"),
        (_entry(more='precision = "fp61"'), "matches nothing. Known are fp32"),
        (_entry(more='hardware = ["cuda", "gpu"]'), "'gpu' matches nothing"),
        (_entry(more="precision = 16"), "a text or a list"),
        (_entry(more="family = []"), "a text or a list"),
        (_entry(more='published = "yes"'), "published must be true or false"),
        (_entry(more='required = "no"'), "required must be true or false"),
    ],
)
def test_broken_files(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(CompatError, match=message) as caught:
        _load(tmp_path, text)
    assert "limits0.toml" in str(caught.value)


def test_hardware_of_a_catalog_file_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = _entry(more='hardware = "tpu"')
    with pytest.raises(CompatError, match="'tpu' matches nothing"):
        _load(tmp_path, text)
    monkeypatch.setattr(catalog, "load", lambda: SimpleNamespace(hardware=("cpu", "tpu")))
    assert _load(tmp_path, text).entries


def test_absent_file(tmp_path: Path) -> None:
    with pytest.raises(CompatError, match=r"no thresholds file .*none\.toml"):
        load([tmp_path / "none.toml"])
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe\x00")
    with pytest.raises(CompatError, match="cannot read"):
        load([tmp_path / "binary.toml"])


def test_digest_follows_the_content(tmp_path: Path) -> None:
    first = _load(tmp_path, _entry()).digest
    assert first == _load(tmp_path, _entry()).digest
    assert first != _load(tmp_path, _entry(61)).digest


# The shipped file --------------------------------------------------------------------------------

SHIPPED = load([default_path()])


def _numerics(**changes: float) -> dict[str, Any]:
    return {
        "encoder": {
            "error_ratio": 1.0,
            "snr_db": 150.0,
            "worst_cosine": 1.0,
            "contrast_db": 0.0,
            **changes,
        },
    }


@pytest.mark.parametrize("precision", ["fp32", "tf32", "fp16", "bf16", "int8", "int4", "nf4"])
def test_every_precision_is_judged_on_three_metrics(precision: str) -> None:
    facts = _facts(precision=precision, recipe=precision, weights="trained")
    level, limits, reason = SHIPPED.judge("accuracy.numerics", facts, _numerics())
    assert (level, reason) == ("strict", "")
    assert len(limits) == 3 + (facts.weights == "seeded")
    assert SHIPPED.judge("accuracy.numerics", facts, _numerics(snr_db=0.0))[0] == "failed"
    assert SHIPPED.judge("accuracy.numerics", facts, _numerics(error_ratio=50.0))[0] == "failed"
    assert SHIPPED.judge("accuracy.numerics", facts, _numerics(worst_cosine=0.5))[0] == "failed"
    assert SHIPPED.judge("accuracy.numerics", facts, {})[0] == "failed"


def test_limits_ease_as_precision_falls() -> None:
    strict = {
        precision: next(
            limit.strict
            for limit in SHIPPED.judge(
                "accuracy.numerics", _facts(precision=precision), _numerics()
            )[1]
            if limit.metric == "encoder.snr_db"
        )
        for precision in ("fp32", "fp16", "bf16", "int8", "int4")
    }
    assert list(strict.values()) == sorted(strict.values(), reverse=True)
    assert len(set(strict.values())) == len(strict)


def test_word_error_rate_is_judged_for_speech_recognition_only() -> None:
    trained = _facts(weights="trained")
    same = {"degradation": 0.0, "degradation_interval": [0.0, 0.0], "no_worse_share": 1.0}
    good = {"clean": {"wer": 0.02}, "hard": {"wer": 0.08}, "pooled": same}
    assert SHIPPED.judge("accuracy.task", trained, good)[0] == "strict"
    assert SHIPPED.judge("accuracy.task", _facts(task="captions"), {"wer": 0.9})[0] is None
    fell = {"degradation": 0.008, "degradation_interval": [0.001, 0.0095]}
    worse = {**good, "pooled": {**same, **fell}}
    assert SHIPPED.judge("accuracy.task", trained, worse)[0] == "relaxed"
    int8 = _facts(weights="trained", precision="int8")
    assert SHIPPED.judge("accuracy.task", int8, worse)[0] == "strict"
    level, _, reason = SHIPPED.judge("accuracy.task", trained, {"clean": {"wer": 0.02}})
    assert level == "failed" and "pooled.degradation was not reported" in reason
    # A corpus of one's own has sets of other names, and no limit on its error rate as such.
    own = {"meetings": {"wer": 0.4}, "pooled": same}
    assert SHIPPED.judge("accuracy.task", _facts(weights="pretrained"), own)[0] == "strict"


@pytest.mark.parametrize(
    ("value", "interval", "level"),
    [
        (0.0, [0.0, 0.0], "strict"),
        (0.004, [-0.001, 0.005], "strict"),
        (0.004, [0.002, 0.006], "relaxed"),
        (0.006, [0.0049, 0.02], "relaxed"),
        (0.02, [0.006, 0.03], "failed"),
        # Without an interval the number stands for both of its ends.
        (0.004, None, "strict"),
        (0.006, None, "failed"),
    ],
)
def test_an_interval_decides_by_its_ends(value: float, interval: Any, level: str) -> None:
    pooled = {"degradation": value, "degradation_interval": interval, "no_worse_share": 1.0}
    facts = _facts(weights="pretrained")
    found, limits, reason = SHIPPED.judge("accuracy.task", facts, {"pooled": pooled})
    assert found == level
    assert bool(reason) == (level != "strict")
    judged = next(limit for limit in limits if limit.metric == "pooled.degradation")
    assert judged.interval == (tuple(interval) if interval else None)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ('by = "hand"', "leave it out"),
        ('by = "interval"', "one limit"),
        ("judged = false", "has no limits"),
        ("judged = 0", "true or false"),
    ],
)
def test_entries_of_other_kinds_are_checked(tmp_path: Path, change: str, message: str) -> None:
    with pytest.raises(CompatError, match=message):
        _load(tmp_path, _entry(more=change))


def test_generated_weights_decide_no_integer_recipe() -> None:
    awful = {"encoder": {**_numerics()["encoder"], "snr_db": -3.0, "error_ratio": 18.8}}
    integer = {"precision": "int8", "recipe": "int8-dynamic"}
    facts = _facts(weights="seeded", **integer)
    level, limits, _ = SHIPPED.judge("accuracy.numerics", facts, awful)
    # Their outputs must differ from input to input all the same, or they prove nothing at all.
    assert (level, [limit.metric for limit in limits]) == ("strict", ["encoder.contrast_db"])
    for facts in (_facts(weights="trained", **integer), _facts(weights="seeded")):
        assert SHIPPED.judge("accuracy.numerics", facts, awful)[0] == "failed"


@pytest.mark.parametrize(
    ("recipe", "encoder", "logits", "expected"),
    [
        # Recipe; error ratio, dB and worst cosine, as fixtures/build/limits.py measured them.
        ("int8-dynamic", (1.0, 9.9, 0.988), (1.0, 19.4, 0.993), "strict"),
        ("int8-dynamic", (0.47, 24.3, 0.999), (1.3, 26.5, 0.999), "strict"),
        ("int4-weights", (1.0, 10.2, 0.978), (0.91, 13.8, 0.982), "strict"),
        ("int8-weights", (2.97, 19.4, 0.997), (1.56, 26.2, 0.998), "failed"),  # A layer, 4 bits.
        ("int8-weights", (1.0, 28.9, 0.999), (1.97, 24.2, 0.998), "relaxed"),  # In the decoder.
        ("int8-weights", (7.61, 11.2, 0.977), (1.62, 25.9, 0.998), "failed"),  # Shifted positions.
        ("int8-dynamic", (1.0, 12.3, 0.988), (1.0, 1.8, 0.660), "failed"),  # By logits alone.
    ],
)
def test_integers_on_published_weights_are_judged_as_measured(
    recipe: str,
    encoder: tuple[float, float, float],
    logits: tuple[float, float, float],
    expected: str,
) -> None:
    names = ("error_ratio", "snr_db", "worst_cosine")
    found = {"encoder": encoder, "logits": logits}
    values = {output: dict(zip(names, row, strict=True)) for output, row in found.items()}
    facts = _facts(family="whisper", weights="pretrained", recipe=recipe, precision=recipe[:4])
    assert SHIPPED.judge("accuracy.numerics", facts, values)[0] == expected
    # whisper.cpp keeps the encoder's output inside.
    assert SHIPPED.judge("accuracy.numerics", facts, {"logits": values["logits"]})[0]


def test_speed_placement_and_stress() -> None:
    judge = SHIPPED.judge
    assert judge("latency.task", FACTS, {"rtf_upper": 0.5})[0] == "strict"
    assert judge("latency.task", FACTS, {"rtf_upper": 0.9})[0] == "relaxed"
    assert judge("latency.task", FACTS, {"rtf_upper": 1.1})[0] == "failed"
    assert judge("support.placed", FACTS, {"share": 0.949})[0] == "relaxed"
    assert judge("support.placed", FACTS, {"share": 0.0})[0] == "failed"
    trained = _facts(weights="trained")
    calm = {"worse": 0, "changed_in_batch": 0.0, "changed_by_order": 0}
    assert judge("robustness.stress", trained, calm)[0] == "strict"
    assert judge("robustness.stress", trained, {**calm, "worse": 2})[0] == "relaxed"
    assert judge("robustness.stress", trained, {**calm, "changed_in_batch": 0.25})[0] == "relaxed"
    assert judge("robustness.stress", trained, {**calm, "changed_by_order": 1})[0] == "failed"
    seeded = {"changed_by_order": 0, "worst_snr_db": 90.0}
    assert (
        judge("robustness.stress", _facts(weights="seeded", precision="fp32"), seeded)[0]
        == "strict"
    )
    weak = {**seeded, "worst_snr_db": 50.0}
    assert (
        judge("robustness.stress", _facts(weights="seeded", precision="fp32"), weak)[0] == "relaxed"
    )


def test_equal_limits_leave_no_relaxed_level(tmp_path: Path) -> None:
    thresholds = _load(tmp_path, _entry(50, 50))
    assert thresholds.judge("accuracy.numerics", FACTS, _values(50.0))[0] == "strict"
    assert thresholds.judge("accuracy.numerics", FACTS, _values(49.9))[0] == "failed"


def test_empty_filter_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CompatError, match="a text or a list"):
        _load(tmp_path, _entry(more='family = [""]'))


def test_one_misheard_utterance_refutes_no_integers() -> None:
    """PyTorch's int8 on whisper-tiny.en, as measured: no worse than its oracle, and None before."""
    facts = _facts(weights="pretrained", precision="int8", recipe="int8-dynamic")
    sound = {
        "encoder": {"error_ratio": 0.995, "snr_db": 9.9, "worst_cosine": 0.99},
        "logits": {"error_ratio": 1.039, "snr_db": 19.4, "worst_cosine": 0.912},
    }
    assert SHIPPED.judge("accuracy.numerics", facts, sound)[0] == "strict"
    broken = {**sound, "logits": {**sound["logits"], "error_ratio": 3.0}}
    assert SHIPPED.judge("accuracy.numerics", facts, broken)[0] == "failed"
