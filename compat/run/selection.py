"""Selection of the cases of a run: command-line words, checked and applied to the catalog."""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from fnmatch import fnmatchcase

from compat.catalog import Catalog
from compat.contract.case import WEIGHTS, Case, Family, Variant, mark_name
from compat.contract.errors import CompatError
from compat.contract.precision import precisions
from compat.contract.profile import CORE, Profile

EVIDENCE = ("device", "emulator", "conversion")
CORE_ON_EMULATORS = 10.0
"""Millions of parameters up to which the core profile runs a model on an emulator. Emulators are a
hundred times slower than the hardware that they stand for, and say nothing of its speed."""
QUICK_WHERE_SLOW = 2.0
"""Millions of parameters up to which a first look runs a model on a slow target. Single small
graphs are below it, pipelines of several are above."""
ON_PUBLISHED_WEIGHTS = ("int8-dynamic",)
"""Recipes that the core profile runs on every processor that has a headline's published weights.
Only such weights show how much accuracy integers cost, so that every runtime is judged on them."""
HERE = "here"
"""Word in place of target names: all targets whose hardware and runtime are on this machine."""


@dataclass(frozen=True)
class Selection:
    """Words by which a person selects cases; an empty tuple selects all that the profile has."""

    models: tuple[str, ...] = ()
    targets: tuple[str, ...] = ()
    recipes: tuple[str, ...] = ()
    weights: tuple[str, ...] = ()
    profile: Profile = CORE
    checkpoints: Mapping[str, str] = field(default_factory=dict)
    marked: frozenset[str] = frozenset()
    """Words of pytest's ``-m`` expression."""

    def check(self, catalog: Catalog) -> None:
        """Raise :class:`CompatError` for a word that matches no name in the catalog."""
        variants = {variant.name for family in catalog.families for variant in family.variants}
        families = {family.name for family in catalog.families}
        targets = {target.name for target in catalog.targets}
        recipes = {recipe for target in catalog.targets for recipe in target.recipes}
        _check("--models", self.models, variants | families)
        _check("--targets", self.targets, targets | set(catalog.hardware) | {HERE})
        _check("--weights", self.weights, set(WEIGHTS))
        _check("--checkpoint", self.checkpoints, variants)
        for name in self.recipes:
            first, *parts = name.split("+")
            _check("--recipes", [first], recipes | set(precisions()))
            _check("--recipes", [part.rpartition("-")[0] for part in parts], recipes)

    def check_required(self, required: Iterable[str], catalog: Catalog) -> None:
        """Raise :class:`CompatError` for required hardware, or a target, that no case runs on."""
        known = {*catalog.hardware, *(target.name for target in catalog.targets)}
        for word in required:
            if word not in known:
                raise CompatError(f"--require {word}: {suggestion(word, known)}")
            if not any(word in (c.target.hardware, c.target.name) for c in self.cases(catalog)):
                raise CompatError(
                    f"--require {word}: no case that is selected runs on it.",
                    "Select one (`compat list` shows them), or do not require it.",
                )

    def cases(self, catalog: Catalog) -> list[Case]:
        """Return the selected cases in the catalog's order."""
        composed = [name for name in self.recipes if "+" in name]
        models = {
            (family.name, variant.name): self._models_name(family, variant)
            for family in catalog.families
            for variant in family.variants
        }
        found = [
            case
            for case in catalog.cases(composed)
            if (by := models[case.family.name, case.variant.name]) and self._wants(case, by)
        ]
        marks = {m for c in found if c.target.evidence == "emulator" for m in c.target.marks}
        named = self.models or self.targets or self.marked & marks
        return found if named or not self.profile.first_look else _one_emulator_each(found)

    def worth(self, here: Iterable[Case]) -> list[Case]:
        """Return the most telling cases of those that can run on this machine.

        Generated weights of a variant are left out if its published ones run on the same target and
        in the same recipe, because they say less about accuracy and speed. Those of an unpublished
        size are left out if a published size of the family runs there, unless somebody names the
        size. Nothing is left out if somebody asks for kinds of weights or for everything.
        """
        cases = list(here)
        if self.weights or self.profile.whole or self.marked & set(WEIGHTS):
            return cases
        pretrained = {
            replace(case, weights="seeded").id for case in cases if case.weights == "pretrained"
        }
        sized = {_place(case) for case in cases if case.variant.published}
        return [
            case
            for case in cases
            if case.id not in pretrained
            and not (
                case.weights == "seeded"
                and not case.variant.published
                and _place(case) in sized
                and not _any((case.variant.name,), self.models)
            )
        ]

    def _models_name(self, family: Family, variant: Variant) -> str:
        """Return what asks for a variant: its own name, its family's or nothing said of models.

        Empty if nothing does.
        """
        if _any((variant.name,), self.models):
            return "variant"
        # The name of a variant means that variant, although its family may have the same name.
        variants = {one.name for one in family.variants}
        families = [word for word in self.models if word not in variants]
        return "family" if not self.models or _any((family.name,), families) else ""

    def _wants(self, case: Case, by: str) -> bool:
        """Return whether a case of a variant that is asked for is; ``by`` says what asks for it."""
        target, recipe, variant = case.target, case.recipe, case.variant
        words = [word for word in self.targets if word != HERE]
        if words and not _any((target.name, target.hardware), words):
            return False
        if self.recipes and not _any((recipe.name, recipe.precision), self.recipes):
            return False
        if self.weights and case.weights not in self.weights:
            return False
        emulated = target.evidence == "emulator"
        names = [target.name, *target.marks]
        own = {mark_name(target.runtime), *target.marks}
        if emulated:
            # No machine has the hardware of an emulator: its column has to be asked for.
            names.append(target.hardware)
            own |= {target.evidence, mark_name(target.hardware)}
        asked = _any(names, self.targets) or bool(own & self.marked)
        if (target.on_request or emulated) and not asked and not self.profile.whole:
            return False
        precise = bool(self.recipes or self.marked & set(precisions()))
        if self.profile.whole:
            return True
        if by == "variant" or variant.name in self.checkpoints:
            return not self.profile.first_look or precise or recipe.name == target.plain
        marks_of_model = {mark_name(case.family.name), case.weights}
        if not variant.core:
            return False
        if variant.core not in (True, case.weights) and not (
            self.models or self.weights or marks_of_model & self.marked
        ):
            return False
        if emulated and variant.parameters > CORE_ON_EMULATORS:
            return False
        if self.profile.first_look:
            # A first look takes one variant of each family, in the plain recipe, with weights that
            # can do their task, and whatever else was asked for.
            first = variant.name == (case.family.stand_in or case.family.headline)
            asked_for = self.models or self.weights or self.marked & set(WEIGHTS)
            if not (asked_for or (first and case.weights != "seeded")):
                return False
            if not (recipe.name == target.plain or precise):
                return False
            if target.slow and variant.parameters > QUICK_WHERE_SLOW:
                return False
        return precise or not target.on_host_cpu or _usual(case)


def _usual(case: Case) -> bool:
    """Return whether the core profile takes a recipe on a host's processor."""
    usual = (*case.target.core, case.target.plain)
    if case.weights == "pretrained" and case.variant.name == case.family.headline:
        usual = (*usual, *ON_PUBLISHED_WEIGHTS)
    return case.recipe.name in usual and not _undecided(case)


def _undecided(case: Case) -> bool:
    """Return whether the accuracy of a case's recipe cannot be judged at all.

    The recipe rounds to integers, the weights are generated and cannot judge that, and the family
    has no trained stand-in.
    """
    trained = any("trained" in variant.weights for variant in case.family.variants)
    return case.recipe.quantised and case.weights == "seeded" and not trained


def _place(case: Case) -> tuple[str, str, str]:
    """Return family, target and recipe of a case: where and how it runs, whatever its size."""
    return case.family.name, case.target.name, case.recipe.name


def _one_emulator_each(cases: Iterable[Case]) -> list[Case]:
    """Return fewer cases of emulators, for a first look.

    If there are several emulators of one hardware and runtime, the first keeps all its models, and
    each other one keeps the first model. A first look need not run every graph by the software
    renderers of two browsers.
    """
    firsts: dict[tuple[str, str], Case] = {}
    kept = []
    for case in cases:
        if case.target.evidence == "emulator":
            key = (case.target.hardware, case.target.runtime)
            first = firsts.setdefault(key, case)
            if case.target != first.target and case.variant != first.variant:
                continue
        kept.append(case)
    return kept


def widest_first(cases: Sequence[Case]) -> list[Case]:
    """Return cases in such an order that a first look which is cut short has seen the most.

    The smallest variant of each row on one target of each hardware goes first. The other targets
    and variants follow. Both parts keep their order.
    """
    smallest: dict[tuple[str, str], Case] = {}
    for case in cases:
        best = smallest.setdefault((case.family.row, case.target.hardware), case)
        if case.variant.parameters < best.variant.parameters:
            smallest[case.family.row, case.target.hardware] = case
    first = {case.id for case in smallest.values()}
    return sorted(cases, key=lambda case: case.id not in first)


def _any(names: Iterable[str], patterns: Sequence[str]) -> bool:
    return any(fnmatchcase(name, pattern) for name in names for pattern in patterns)


def _check(option: str, words: Iterable[str], valid: set[str]) -> None:
    for word in words:
        if not any(fnmatchcase(name, word) for name in valid):
            raise CompatError(f"{option} {word}: {suggestion(word, valid)}")


def suggestion(word: str, valid: Iterable[str]) -> str:
    """Return a sentence with the valid word nearest to one that is not."""
    known = sorted(valid)
    near = difflib.get_close_matches(word, known, n=1, cutoff=0.5)
    if near:
        return f"there is no {word!r}. Did you mean {near[0]!r}?"
    return f"there is no {word!r}. There are: {', '.join(known)}."


def marks(catalog: Catalog) -> dict[str, str]:
    """Return every mark that a case can carry, with its meaning."""
    found = {mark_name(name): f"cases on {name} hardware" for name in catalog.hardware}
    found |= {name: f"cases in {name} precision" for name in precisions()}
    found |= {name: f"cases with {name} weights" for name in WEIGHTS}
    found |= {name: f"cases whose evidence is {name}" for name in EVIDENCE}
    for runtime in catalog.runtimes:
        found.setdefault(mark_name(runtime.name), f"cases executed by {runtime.name}")
        for target in runtime.targets:
            for mark in target.marks:
                found.setdefault(mark, f"cases on targets such as {target.name}")
    for family in catalog.families:
        found[mark_name(family.name)] = f"cases of the {family.name} family"
        found[mark_name(family.task)] = f"cases of the task {family.task}"
    return found


def check_mark_expression(expression: str, known: Iterable[str]) -> None:
    """Raise :class:`CompatError` for a word of a ``-m`` expression that is no mark."""
    valid = set(known)
    without_arguments = re.sub(r"\([^()]*=[^()]*\)", "", expression)
    for word in re.findall(r"[A-Za-z_][\w]*", without_arguments):
        if word not in valid and word not in ("and", "or", "not", "True", "False"):
            raise CompatError(f"-m {expression!r}: {suggestion(word, valid)}")
