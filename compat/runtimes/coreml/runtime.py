"""Core ML: prediction by compute unit on a Mac, conversion evidence everywhere else.

On a Mac, Core ML predicts a graph on the unit that the target names. Elsewhere the same package is
made, and its program is executed operator by operator in PyTorch, with the weights as they are
stored (:mod:`compat.runtimes.coreml.mil`). That shows which graphs convert, their size and their
accuracy. A decoder's caches stay on the host and go in and out as arrays: with Core ML's own states
decoders with palettized weights crashed after a hundred predictions (coremltools #2716).
"""

from __future__ import annotations

import sys
import warnings
from importlib import metadata
from typing import ClassVar

from compat.contract.case import Target
from compat.contract.runtime import GraphRuntime, Probe
from compat.runtimes.coreml.palettes import PALETTES

INSTALL = "pip install coremltools==9.0"
UNITS = {"cpu": "CPU_ONLY", "gpu": "CPU_AND_GPU", "ane": "CPU_AND_NE"}
ORACLES = "compat.runtimes.coreml.oracles"
RECIPES = ("fp16", "int8-linear", *PALETTES)


class CoreMl(GraphRuntime):
    """Core ML on a Mac, by compute unit, and its conversion elsewhere."""

    name = "coreml"
    packages = ("coremltools", "torch")
    modules = ("coremltools",)
    session = "compat.runtimes.coreml.session:CoreMlSession"
    oracles: ClassVar = {
        "int8-linear": f"{ORACLES}:round_rows",
        "int8-palettized": f"{ORACLES}:palettize_8",
        "int8-palettized-6bit": f"{ORACLES}:palettize_6",
        "int8-palettized-6bit-group16": f"{ORACLES}:palettize_6_in_groups",
        "int4-palettized": f"{ORACLES}:palettize_4",
        "int4-palettized-group16": f"{ORACLES}:palettize_4_in_groups",
    }
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
            # A native library writes and reads weights, and only some wheels contain it.
            import coremltools.libmilstoragepython
        except ImportError as error:
            reason = f"this build of coremltools cannot write weights: {error}"
            return Probe("broken", reason, f"{INSTALL} --only-binary :all: --force", facts)
        return Probe("here", facts=facts)


RUNTIME = CoreMl()
