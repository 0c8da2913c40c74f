"""Core ML: prediction by compute unit on a Mac, conversion evidence everywhere else.

On a Mac a graph is predicted by Core ML on the unit that the target names. Elsewhere the same
package is made, and the program in it, with its weights as they are stored, is executed operator by
operator in PyTorch (:mod:`compat.runtimes.coreml.mil`): what converted, how large it is, and how
exact. Caches stay on the host and go in and out as arrays: Core ML's own states crashed decoders
with palettized weights after a hundred predictions (coremltools #2716).
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Mapping
from importlib import metadata
from typing import TYPE_CHECKING

from compat.contract.case import Recipe, Target
from compat.contract.runtime import GraphRuntime, Options, Probe
from compat.contract.session import Session
from compat.runtimes.coreml.convert import PALETTES
from compat.runtimes.coreml.oracles import (
    palettize_4,
    palettize_4_in_groups,
    palettize_6,
    palettize_6_in_groups,
    palettize_8,
    round_rows,
)
from compat.runtimes.coreml.session import UNITS, CoreMlSession

if TYPE_CHECKING:
    from compat.contract.source import Source

INSTALL = "pip install coremltools==9.0"
RECIPES = ("fp16", "int8-linear", *PALETTES)


class CoreMl(GraphRuntime):
    name = "coreml"
    packages = ("coremltools", "torch")
    modules = ("coremltools",)
    targets = (
        *(
            Target(f"coreml-{unit}", "coreml", "coreml", unit, RECIPES, on_host_cpu=unit == "cpu")
            for unit in UNITS
        ),
        Target("coreml-conversion", "coreml", "coreml", "none", RECIPES, evidence="conversion"),
    )

    def probe(self, target: Target) -> Probe:
        mac = sys.platform == "darwin"
        if target.evidence == "device" and not mac:
            remedy = "run on a Mac; anywhere else use coreml-conversion"
            return Probe("absent", "Core ML exists on Apple's systems only", remedy)
        if target.evidence == "conversion" and mac:
            remedy = "use coreml-cpu, coreml-gpu and coreml-ane"
            return Probe("absent", "Core ML itself is here, and executes what is converted", remedy)
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                import coremltools
        except ImportError as error:
            try:
                metadata.version("coremltools")
            except metadata.PackageNotFoundError:
                return Probe("absent", "coremltools is not installed", INSTALL)
            return Probe("broken", f"coremltools does not import: {error}", f"{INSTALL} --force")
        facts = {"coremltools": coremltools.__version__}
        try:
            # Weights are written and read by a library of its own, which only some wheels have.
            import coremltools.libmilstoragepython
        except ImportError as error:
            reason = f"this build of coremltools cannot write weights: {error}"
            return Probe("broken", reason, f"{INSTALL} --only-binary :all: --force", facts)
        return Probe("here", facts=facts)

    def compile(
        self, sources: Mapping[str, Source], target: Target, recipe: Recipe, options: Options
    ) -> Session:
        return CoreMlSession(sources, target, recipe, options)


CoreMl.oracles = {
    "int8-linear": round_rows,
    "int8-palettized": palettize_8,
    "int8-palettized-6bit": palettize_6,
    "int8-palettized-6bit-group16": palettize_6_in_groups,
    "int4-palettized": palettize_4,
    "int4-palettized-group16": palettize_4_in_groups,
}

RUNTIME = CoreMl()
