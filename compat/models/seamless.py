"""SeamlessM4T: speech becomes text, in its own language or in another.

Source: Seamless Communication et al., "SeamlessM4T: Massively Multilingual & Multimodal Machine
Translation", 2023. Only speech to text is run. Text encoder, unit decoder and vocoder of a
checkpoint are not used: the vocoder repeats units by predicted durations, and a static graph cannot
have an output of such a length.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar

import numpy as np

from compat.contract.case import Family, Variant
from compat.contract.graph import Graph, Stopwatch, Tensor
from compat.contract.item import Item, Prediction
from compat.contract.profile import Profile
from compat.contract.session import Handle, Session
from compat.inputs import kaldi
from compat.inputs.audio import CorpusError
from compat.inputs.checkpoints import CheckpointError
from compat.inputs.corpus import Corpus
from compat.inputs.generator import alternate, sum_to_zero
from compat.inputs.weights import POSITIONS
from compat.models import seamless_vocabulary
from compat.models.items import Items
from compat.models.parts import filled_windows
from compat.models.parts.attention import CachedDecoder, forced, greedy
from compat.models.parts.hugging_face import (
    HuggingFaceModel,
    published,
    read_checkpoint,
    read_features,
)
from compat.models.parts.long_audio import Pauses
from compat.models.seamless_network import decoder_module, encoder_module
from compat.models.seamless_settings import (
    FIXED,
    LARGE,
    MEDIUM,
    NANO,
    NEEDED,
    POOLED,
    SEEDED_GAINS,
)
from compat.models.seamless_vocabulary import Vocabulary, Writer
from compat.models.tasks.speech_translation import SpeechTranslation, written_language

FAMILY = Family(
    name="seamless",
    task="speech-translation",
    row="Speech translation",
    headline="seamless-m4t-medium",
    variants=(
        Variant("seamless-nano", ("seeded",), published=False, core=True, parameters=0.5),
        # Generated weights run only when they are named: a case takes minutes and up to 17 GB.
        Variant(
            "seamless-m4t-medium",
            ("pretrained", "seeded"),
            core="pretrained",
            parameters=821.4,
            checkpoint="facebook/hf-seamless-m4t-medium",
        ),
        published("seamless-m4t-v2-large", "facebook/seamless-m4t-v2-large", 1501.8),
    ),
)

STACKED = 2
"""Number of feature frames of 10 ms that form one frame of the network."""
SHORT = {"5s": 250}
"""Points for generated weights: their names and frames of 20 ms."""
LENGTHS = {"10s": 500, "30s": 1500}
"""Points for checkpoints: their names and frames of 20 ms. The longer one is compiled only if an
input needs it, because each point holds the weights once more."""
SEEDED_TOKENS = 20
"""Number of tokens that generated weights write for a window, as they never end by themselves."""
MAX_TOKENS = 256
"""Largest number of tokens that a checkpoint writes for each window, as in ``generate``."""
TRACED_TOKENS = 12
"""Steps whose logits are compared with the reference's."""


def load(variant: str, weights: str, checkpoint: str) -> SeamlessModel:
    """Load the host side of a variant; ``checkpoint`` is a folder, empty for seeded weights.

    Raises:
        CheckpointError: the checkpoint is of another architecture, or lacks files.
    """
    family, settings = VARIANTS[variant]
    if weights == "seeded":
        return family(settings, seamless_vocabulary.seeded(settings["vocab_size"]))
    folder, config = read_checkpoint(checkpoint, family.kind, "SeamlessM4T", variant, NEEDED)
    for name in FIXED:
        if config.get(name, settings[name]) != settings[name]:
            raise CheckpointError(
                f"{folder / 'config.json'} has {name} {config[name]!r}, and {variant} "
                f"{settings[name]!r}: name the folder of the checkpoint for {variant}."
            )
    features = read_features(folder, kaldi.RATE)
    for name, value in (("num_mel_bins", kaldi.MELS), ("stride", STACKED)):
        if features.get(name, value) != value:
            raise CheckpointError(
                f"{folder / 'preprocessor_config.json'} has {name} {features[name]!r}; only "
                f"{value} is supported. Restore the file from the checkpoint."
            )
    vocabulary = seamless_vocabulary.read_vocabulary(folder, {**settings, **config})
    return family(config, vocabulary, folder)


class SeamlessModel(HuggingFaceModel):
    """Greedy transcription and translation of speech; long recordings are cut in pauses."""

    kind: ClassVar[str] = "seamless_m4t"
    """Model type that a checkpoint's configuration must have."""
    architecture = "SeamlessM4TForSpeechToText"
    gains = SEEDED_GAINS
    # The batch counter is only used in training, and old files hold the table of positions.
    needless = (*POSITIONS, "num_batches_tracked", "weights")
    unused = ("text_encoder", "t2u_model", "vocoder")
    task = SpeechTranslation()

    def __init__(
        self,
        config: Mapping[str, Any],
        vocabulary: Vocabulary,
        folder: Path | None = None,
        lengths: Mapping[str, int] | None = None,
    ) -> None:
        super().__init__(config, folder)
        self.vocabulary = vocabulary
        self.lengths = lengths or (LENGTHS if folder else SHORT)
        """Frames of each point by its name, ascending."""
        self.max_tokens = MAX_TOKENS if folder else SEEDED_TOKENS
        longest = max(self.lengths.values())
        window = kaldi.WINDOW + kaldi.HOP * (STACKED * longest - 1)
        # Cuts lie in the quietest half second of the last third of a window. Windows do not
        # overlap, because two translations of the same words could not be joined.
        self.pauses = Pauses(window, window // 3, overlap=0, frame=1600, frames=5)
        self.write = Writer(folder, vocabulary.languages) if folder else None

    def content(self) -> Any:
        return [super().content(), repr(self.vocabulary), dict(self.lengths)]

    def finish(self, network: Any) -> None:
        # The outputs of rectifiers are all positive. Without this step their weighted sums would be
        # nearly the same at every position.
        speech, decoder = network.speech_encoder, network.text_decoder
        for part in (speech.intermediate_ffn, speech.adapter.layers[0].ffn):
            sum_to_zero(part.output_dense)
        for layer in decoder.layers:
            sum_to_zero(layer.ffn.fc2)
        # The embeddings of tokens are also the output projection, so a token would be most similar
        # to itself and repeat for ever. Every other factor of the last normalisation is negative,
        # which breaks this similarity.
        alternate(decoder.layer_norm)

    # Graphs ------------------------------------------------------------------------------------

    def graphs(self) -> tuple[Graph, ...]:
        config = self.config
        width, heads = config["hidden_size"], config["decoder_attention_heads"]
        points = {
            name: {"batch": 1, "frames": frames, "positions": positions(frames)}
            for name, frames in self.lengths.items()
        }
        past = 2 + self.max_tokens
        decoder = CachedDecoder(
            config["decoder_layers"], heads, width // heads, past=past, cross="positions"
        )
        bands = kaldi.MELS * STACKED
        kept = Tensor(("batch", "positions"))
        return (
            Graph(
                "encoder",
                {
                    "features": Tensor(("batch", "frames", bands)),
                    "heard": Tensor(("batch", "frames")),
                    "kept": kept,
                },
                ("hidden", "level", *decoder.cross_inputs),
                points,
                lambda: encoder_module(self.network),
                scalar="level",
            ),
            Graph(
                "decoder",
                {"kept": kept, **decoder.inputs},
                ("next_token", "logits"),
                points,
                lambda: decoder_module(self.network, past),
                decoder.state,
            ),
        )

    # Driver ------------------------------------------------------------------------------------

    def items(self, corpus: Corpus, profile: Profile) -> Items:
        if self.folder:
            chosen_items = super().items(corpus, profile)
            for item in (item for found in chosen_items.task.values() for item in found):
                self._prompt(item)  # Raises if the checkpoint cannot write the item's language.
            return chosen_items
        window = round(5 * kaldi.RATE)
        windows = filled_windows.cut(corpus.speech, kaldi.RATE, window, profile.pick(2, 2, 8))
        # Every other item asks for another language, so that prompts have an effect too.
        languages = list(self.vocabulary.languages)
        chosen = [
            replace(item, facts={**item.facts, "target_lang": languages[number % 2]})
            for number, item in enumerate(windows)
        ]
        return Items({}, chosen, chosen)

    def run(
        self, session: Session, items: Sequence[Item], stopwatch: Stopwatch
    ) -> list[Prediction]:
        return [self._answer(session, item, stopwatch) for item in items]

    def _answer(self, session: Session, item: Item, stopwatch: Stopwatch) -> Prediction:
        parts: list[list[int]] = []
        level = 0.0
        prompt = np.array(self._prompt(item), np.int32)[:, None]
        for samples in self.pauses.pieces(item.audio):
            with stopwatch("features"):
                point, feeds = self._feeds(samples)
            with stopwatch("encoder"):
                encoded = session.run("encoder", feeds, point)
                session.synchronize()
            with stopwatch("decoder"):
                end = self.vocabulary.end if self.folder else None
                memory = self._memory(encoded, feeds)
                steps = greedy(session, memory, point, prompt, self.max_tokens, end)
            if "first_token" not in stopwatch.marks:
                before = stopwatch.stages["features"] + stopwatch.stages["encoder"]
                stopwatch.marks["first_token"] = before + steps.first_s
            level += float(encoded["level"].numpy()[0])
            parts.append(self._until_end(steps.outputs["next_token"][:, 0].tolist()))
        # The level is NaN or infinite if an encoder's output was. Tokens would not show it, because
        # a decoder turns NaN into ordinary tokens.
        answer = {"tokens": [token for part in parts for token in part], "level": level}
        if self.write is None:
            return answer
        with stopwatch("text"):
            return {**answer, "text": " ".join(filter(None, map(self.write, parts)))}

    def trace(self, session: Session, item: Item, guide: Prediction) -> dict[str, np.ndarray]:
        point, feeds = self._feeds(self.pauses.pieces(item.audio)[0])
        encoded = session.run("encoder", feeds, point)
        hidden = encoded["hidden"].numpy()[0][: int(feeds["kept"].sum())].copy()
        told = guide["tokens"][:TRACED_TOKENS]
        tokens = np.array([*self._prompt(item), *told], np.int32)[:, None]
        logits = forced(session, self._memory(encoded, feeds), point, tokens)
        # The logits after the prompt, and after each token.
        return {"encoder": hidden, "logits": logits[-1 - len(told) :, 0]}

    def _memory(
        self, encoded: Mapping[str, Handle], feeds: Mapping[str, np.ndarray]
    ) -> dict[str, np.ndarray | Handle]:
        """Return the decoder's inputs that are the same at every step."""
        across = {name: one for name, one in encoded.items() if name not in ("hidden", "level")}
        return {"kept": feeds["kept"], **across}

    def _feeds(self, samples: np.ndarray) -> tuple[str, dict[str, np.ndarray]]:
        """Return the shortest point that holds audio (samples,), and the encoder's inputs."""
        heard = stacked_features(samples)
        point, frames = next(
            (name, frames) for name, frames in self.lengths.items() if frames >= len(heard)
        )
        features = np.zeros((1, frames, heard.shape[1]), np.float32)
        features[0, : len(heard)] = heard
        whole = kaldi.frame_count(len(samples)) // STACKED
        return point, {
            "features": features,
            "heard": _ones(max(whole, 1), frames),
            "kept": _ones(positions(max(whole, 1)), positions(frames)),
        }

    def _prompt(self, item: Item) -> tuple[int, int]:
        """Return the tokens that ask for an item's language.

        Raises:
            CorpusError: the checkpoint does not know the language.
        """
        language, languages = written_language(item), self.vocabulary.languages
        prompt = self.vocabulary.prompt(language)
        if prompt is None and not self.folder:  # Generated weights know no language.
            return self.vocabulary.start, next(iter(languages.values()))
        if prompt is None:
            assert self.folder is not None
            raise CorpusError(
                f"{item.id} is to be written in {language!r}, and the checkpoint "
                f"{self.folder.name} knows {len(languages)} languages only: "
                f"{', '.join(sorted(languages))}. Give a code (de, deu) or an English name "
                "(german), or leave its recordings out of the corpus."
            )
        return prompt

    def _until_end(self, tokens: list[int]) -> list[int]:
        if self.folder and self.vocabulary.end in tokens:
            return tokens[: tokens.index(self.vocabulary.end)]
        return tokens


class SeamlessV2Model(SeamlessModel):
    """The second version: its encoder has relative positions by a table and causal convolutions."""

    kind = "seamless_m4t_v2"
    architecture = "SeamlessM4Tv2ForSpeechToText"


VARIANTS: Mapping[str, tuple[type[SeamlessModel], Mapping[str, Any]]] = {
    "seamless-nano": (SeamlessModel, NANO),
    "seamless-m4t-medium": (SeamlessModel, MEDIUM),
    "seamless-m4t-v2-large": (SeamlessV2Model, LARGE),
}
"""The version's class and the settings of each variant."""


def stacked_features(samples: np.ndarray) -> np.ndarray:
    """Return the features of audio (samples,) at 16 kHz: float32 (frames, 160), one every 20 ms.

    A frame is two adjacent frames of Kaldi's filter bank, side by side; each band has mean 0 and
    variance 1 over the utterance. An odd last frame is completed by zeros, and is masked. Audio
    shorter than two frames is lengthened by zeros. Source: ``SeamlessM4TFeatureExtractor`` of
    transformers.
    """
    least = kaldi.WINDOW + kaldi.HOP * (STACKED - 1)
    frames = kaldi.fbank(np.pad(samples, (0, max(0, least - len(samples)))))
    deviation = np.sqrt(frames.var(axis=0, ddof=1) + 1e-7)
    frames = (frames - frames.mean(axis=0)) / deviation
    frames = np.pad(frames, ((0, len(frames) % STACKED), (0, 0)))
    return np.ascontiguousarray(frames.reshape(-1, STACKED * kaldi.MELS), np.float32)


def positions(frames: int) -> int:
    """Return the number of positions that the adapter makes of so many frames."""
    return frames // POOLED + 1


def _ones(count: int, length: int) -> np.ndarray:
    return (np.arange(length) < count).astype(np.float32)[None]
