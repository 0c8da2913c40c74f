"""The public names of the project, for authors of models, runtimes and tasks outside it.

Code in a catalog file or in another package imports only from here, since other modules may change
without notice.
"""

from compat.build.artifacts import folder_bytes
from compat.build.sources import build_ahead, open_source
from compat.contract.case import Case, Family, Recipe, Target, Variant
from compat.contract.digests import digest, file_digest
from compat.contract.errors import CompatError
from compat.contract.execution import Driver, Execution, GraphExecution, only_scheme
from compat.contract.graph import Graph, Shipped, State, Stopwatch, Tensor
from compat.contract.item import Item, Prediction
from compat.contract.profile import Profile
from compat.contract.runtime import GraphRuntime, Options, Probe, Runtime
from compat.contract.session import Handle, Placement, Session, Steps, TensorSession, Unsupported
from compat.contract.source import Source
from compat.inputs.checkpoints import CheckpointError
from compat.inputs.corpus import Corpus, TestSet
from compat.inputs.generator import gains, generated_digest, seed
from compat.inputs.weights import checkpoint_fingerprint, fill_from_folder
from compat.metrics import Metric
from compat.models.base import Model
from compat.models.items import Items
from compat.models.parts.batches import in_batches
from compat.models.tasks.agreement import Agreement
from compat.models.tasks.asr import Transcription
from compat.models.tasks.base import Task
from compat.models.tasks.codec import Codec
from compat.models.tasks.diarization import Diarization
from compat.models.tasks.generation import AudioGeneration, CodeGeneration
from compat.models.tasks.music_tagging import MusicTagging
from compat.models.tasks.music_transcription import MusicTranscription
from compat.models.tasks.separation import Separation
from compat.models.tasks.speaker_embedding import SpeakerEmbedding
from compat.models.tasks.speaker_segmentation import SpeakerSegmentation
from compat.models.tasks.speech_translation import SpeechTranslation
from compat.models.tasks.voice_activity import VoiceActivity
from compat.models.tasks.zero_shot import ZeroShotClassification

__all__ = [
    "Agreement",
    "AudioGeneration",
    "Case",
    "CheckpointError",
    "CodeGeneration",
    "Codec",
    "CompatError",
    "Corpus",
    "Diarization",
    "Driver",
    "Execution",
    "Family",
    "Graph",
    "GraphExecution",
    "GraphRuntime",
    "Handle",
    "Item",
    "Items",
    "Metric",
    "Model",
    "MusicTagging",
    "MusicTranscription",
    "Options",
    "Placement",
    "Prediction",
    "Probe",
    "Profile",
    "Recipe",
    "Runtime",
    "Separation",
    "Session",
    "Shipped",
    "Source",
    "SpeakerEmbedding",
    "SpeakerSegmentation",
    "SpeechTranslation",
    "State",
    "Steps",
    "Stopwatch",
    "Target",
    "Task",
    "Tensor",
    "TensorSession",
    "TestSet",
    "Transcription",
    "Unsupported",
    "Variant",
    "VoiceActivity",
    "ZeroShotClassification",
    "build_ahead",
    "checkpoint_fingerprint",
    "digest",
    "file_digest",
    "fill_from_folder",
    "folder_bytes",
    "gains",
    "generated_digest",
    "in_batches",
    "only_scheme",
    "open_source",
    "seed",
]
