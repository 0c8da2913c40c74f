"""What authors outside this project import; nothing here moves without notice.

Models, runtimes and tasks in a catalog file or in a package of their own import from here alone.
"""

from compat.contract.case import Case, Family, Recipe, Target, Variant
from compat.contract.digests import digest, file_digest, module_digest
from compat.contract.graph import Graph, Shipped, State, Stopwatch, Tensor
from compat.contract.item import Item, Prediction
from compat.contract.runtime import Options, Probe, Runtime
from compat.contract.session import Handle, Pipeline, Placement, Session, Unsupported
from compat.inputs.corpus import Corpus
from compat.models.base import Model
from compat.models.items import Items

__all__ = [
    "Case",
    "Corpus",
    "Family",
    "Graph",
    "Handle",
    "Item",
    "Items",
    "Model",
    "Options",
    "Pipeline",
    "Placement",
    "Prediction",
    "Probe",
    "Recipe",
    "Runtime",
    "Session",
    "Shipped",
    "State",
    "Stopwatch",
    "Target",
    "Tensor",
    "Unsupported",
    "Variant",
    "digest",
    "file_digest",
    "module_digest",
]
