"""Firefox against Chrome: what is concluded from paired rounds, and what is not."""

from __future__ import annotations

import numpy as np
import pytest

from compat.commands.main import main
from compat.experiments import browsers as experiment
from compat.experiments.browsers import Comparison, Outcome, compare

pytestmark = pytest.mark.end_to_end

NOISE = np.random.default_rng(0).normal(0, 5, 20)
SLOW, FAST = 100 + NOISE, 80 + NOISE


def outcome(
    comparison: Comparison, adapter: str = "a GPU", software: bool = False, same: bool = True
) -> Outcome:
    return Outcome(dict.fromkeys(experiment.BOTH, adapter), software, same, (comparison,))


def test_a_fifth_less_time_is_twenty_percent_whoever_takes_it() -> None:
    found = compare("whole task", SLOW, FAST)
    assert found.firefox_faster == pytest.approx(0.2, abs=0.02)
    assert 0.1 < found.low < found.firefox_faster < found.high < 0.3
    assert found.words.startswith(f"Firefox takes {found.firefox_faster:.0%} less time (95 %: ")
    other = compare("whole task", FAST, SLOW)
    assert other.firefox_faster == pytest.approx(-0.25, abs=0.02)
    assert other.words.startswith(f"Firefox takes {-other.firefox_faster:.0%} more time (95 %: ")
    # The nearer end first, either way.
    ends = [float(word.strip("%,")) for word in other.words.split() if word.endswith(("%", "%,"))]
    assert ends[1] < ends[2]


def test_a_verdict_needs_a_gpu_the_same_results_and_an_interval_that_leaves_out_zero() -> None:
    firefox, chromium = compare("whole task", SLOW, FAST), compare("whole task", FAST, SLOW)
    neither = compare("whole task", SLOW, SLOW[::-1] - 0.5)
    assert outcome(firefox).verdict.startswith("Firefox is faster, by ")
    assert outcome(chromium).verdict.startswith("Chromium is faster, by ")
    assert neither.low < 0 < neither.firefox_faster
    assert outcome(neither).verdict == "no difference beyond noise"
    assert "only a GPU decides" in outcome(firefox, software=True).verdict
    assert "did not compute the same" in outcome(firefox, same=False).verdict


@pytest.mark.parametrize("rounds", [([1.0], [1.0]), ([1.0, 2.0], [1.0])])
def test_rounds_come_in_pairs(rounds: tuple[list[float], list[float]]) -> None:
    with pytest.raises(ValueError, match="as many rounds"):
        compare("whole task", *rounds)


def test_a_missing_browser_is_named_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(experiment.web, "lacking", lambda: ("no puppeteer-core", "make browsers"))
    assert main(["experiment", "browsers"]) == 3
    assert capsys.readouterr().err == "compat: no puppeteer-core\nmake browsers\n"
