"""The table of precision classes: one line adds a class, and everything asks the table."""

from __future__ import annotations

import ast
from dataclasses import replace
from pathlib import Path

import pytest

from compat import catalog
from compat.contract import precision
from compat.contract.case import Case, Recipe
from compat.contract.errors import CompatError
from compat.contract.precision import CLASSES, Precision, precision_of, precisions
from compat.judge import recommendations, thresholds
from compat.judge.results import facts_of
from compat.run.selection import Selection, marks

COMPAT = Path(precision.__file__).parents[1]
FP8 = Precision("fp8", 8, True, "pentagon")
QUANTISED_LIMIT = """
[[threshold]]
check = "accuracy.numerics"
metric = "*.snr_db"
at_least = { strict = 30.0, relaxed = 20.0 }
quantised = true
reason = "of the test"
"""


@pytest.fixture
def fp8(monkeypatch: pytest.MonkeyPatch) -> None:
    """Add a class, as a line of the table would, between the half precisions and the integers."""
    first = next(place for place, one in enumerate(CLASSES) if one.quantised)
    monkeypatch.setattr(precision, "CLASSES", (*CLASSES[:first], FP8, *CLASSES[first:]))


def case(recipe: str) -> Case:
    found = catalog.load().case("whisper-nano@trained/cpu-torch/fp32")
    return replace(found, recipe=Recipe(recipe))


def test_classes_stand_from_exact_to_coarse() -> None:
    assert [one.bits for one in CLASSES] == sorted((one.bits for one in CLASSES), reverse=True)
    # The coarsest class of a recipe is quantised if any is.
    assert [one.quantised for one in CLASSES] == sorted(one.quantised for one in CLASSES)
    assert len({one.name for one in CLASSES}) == len({one.symbol for one in CLASSES})


def test_float64_is_the_reference_s_alone() -> None:
    assert "fp64" not in precisions()
    assert precision_of("fp64").bits == 64
    with pytest.raises(ValueError, match="unknown precision 'fp8'"):
        precision_of("fp8-e4m3")


@pytest.mark.parametrize(
    ("recipe", "quantised"),
    [
        ("fp32", False),
        ("fp16+fp32-decoder", False),
        ("fp16+nf4-decoder", True),
        ("int8-weights+fp16-decoder", True),
        ("uint4-mine", True),  # Nothing vouches for a class that is not in the table.
    ],
)
def test_a_recipe_is_quantised_if_a_component_is(recipe: str, quantised: bool) -> None:
    assert Recipe(recipe).quantised == quantised


@pytest.mark.usefixtures("fp8")
def test_a_class_is_one_line_of_the_table(tmp_path: Path) -> None:
    one = case("fp32+fp8-e4m3-decoder")
    assert one.recipe.precision == "fp8"
    assert "fp8" in one.marks
    assert "fp8" in marks(catalog.load())
    Selection(recipes=("fp8",)).check(catalog.load())
    facts = facts_of(one)
    assert facts.quantised

    file = tmp_path / "limits.toml"
    file.write_text(QUANTISED_LIMIT.replace("quantised = true", 'precision = "fp8"'), "utf-8")
    assert thresholds.load([file]).entries[0].applies(facts)
    file.write_text(QUANTISED_LIMIT, encoding="utf-8")
    assert thresholds.load([file]).entries[0].applies(facts)
    assert not thresholds.load([file]).entries[0].applies(facts_of(case("fp16")))

    shipped = recommendations.default_path().read_text(encoding="utf-8")
    file.write_text(shipped.replace('precision = "fp16"', 'precision = "fp8"'), encoding="utf-8")
    recommendations.load(file)


def test_no_class_but_those_of_the_table_is_a_word_of_the_limits(tmp_path: Path) -> None:
    file = tmp_path / "limits.toml"
    file.write_text(QUANTISED_LIMIT.replace("quantised = true", 'precision = "fp8"'), "utf-8")
    with pytest.raises(CompatError, match="precision = 'fp8' matches nothing"):
        thresholds.load([file])


def test_nobody_reads_a_class_from_the_beginning_of_a_name() -> None:
    """Prefixes of names of schemes, such as ``scheme.startswith("int")``, are no second table."""
    begins = {one.name for one in CLASSES} | {one.name[:3].rstrip("0123456789") for one in CLASSES}
    for file in COMPAT.rglob("*.py"):
        for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
            if (
                isinstance(node, ast.Call)
                and isinstance(node.func, ast.Attribute)
                and node.func.attr == "startswith"
            ):
                words = {one.value for one in ast.walk(node) if isinstance(one, ast.Constant)}
                assert not words & begins, f"{file}:{node.lineno}"
