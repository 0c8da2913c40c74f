"""The committed corpus and the whisper-nano checkpoint: integrity, accuracy, other runtimes."""

from __future__ import annotations

import hashlib
import json
import os
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from compat.inputs.features import log_mel_spectrogram

os.environ.setdefault("HF_HUB_OFFLINE", "1")

jiwer = pytest.importorskip("jiwer")
soundfile = pytest.importorskip("soundfile")

FIXTURES = Path(__file__).resolve().parents[1] / "fixtures"
CORPUS = FIXTURES / "corpus"
CHECKPOINT = FIXTURES / "checkpoints" / "whisper-nano"
SAMPLE_RATE = 16_000
WINDOW_SAMPLES = 4 * SAMPLE_RATE
BATCH = 55
PAUSE_MARGIN = 0.25
"""Seconds kept of the pause on either side when a long recording is cut into segments."""
PROMPT = ["<|startoftranscript|>", "<|en|>", "<|transcribe|>", "<|notimestamps|>"]


@cache
def manifest(name: str) -> list[dict[str, Any]]:
    lines = (CORPUS / name / "manifest.jsonl").read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


@cache
def audio(name: str) -> list[np.ndarray]:
    """Mono recordings of one set, each of shape (samples,)."""
    return [
        soundfile.read(CORPUS / name / entry["audio_filepath"], dtype="float32")[0]
        for entry in manifest(name)
    ]


@cache
def features(name: str) -> np.ndarray:
    """Log-mel features of one set, shape (utterances, 80, 400)."""
    return np.stack([log_mel_spectrogram(one, 80, WINDOW_SAMPLES) for one in audio(name)])


def texts(name: str) -> list[str]:
    return [entry["text"] for entry in manifest(name)]


def word_error_rate(name: str, hypotheses: list[str]) -> float:
    """Corpus word error rate in percent."""
    return 100.0 * float(jiwer.process_words(texts(name), hypotheses).wer)


def share_equal(left: list[str], right: list[str]) -> float:
    return sum(a == b for a, b in zip(left, right, strict=True)) / len(left)


# --- corpus --------------------------------------------------------------------------------------


def test_corpus_checksums() -> None:
    listed = dict(
        reversed(line.split("  ", 1))
        for line in (CORPUS / "SHA256SUMS").read_text(encoding="utf-8").splitlines()
    )
    present = {
        path.relative_to(CORPUS).as_posix()
        for name in ("clean", "hard", "long")
        for path in (CORPUS / name).iterdir()
    }
    assert present <= set(listed)
    for path, digest in listed.items():
        assert hashlib.sha256((CORPUS / path).read_bytes()).hexdigest() == digest, path


@pytest.mark.parametrize(("name", "size"), [("clean", 110), ("hard", 110), ("long", 4)])
def test_manifest_describes_the_audio(name: str, size: int) -> None:
    vocabulary = set(provenance()["vocabulary"])
    assert len(manifest(name)) == size
    assert len({entry["id"] for entry in manifest(name)}) == size
    for entry in manifest(name):
        facts = soundfile.info(CORPUS / name / entry["audio_filepath"])
        assert (facts.samplerate, facts.channels, facts.subtype) == (SAMPLE_RATE, 1, "PCM_16")
        assert entry["duration"] == facts.frames / SAMPLE_RATE
        assert set(entry["text"].split()) <= vocabulary
        if name == "long":
            assert 12.0 <= entry["duration"] <= 40.0
            assert entry["text"] == " ".join(segment["text"] for segment in entry["segments"])
        else:
            assert entry["duration"] <= 4.0


def provenance() -> dict[str, Any]:
    return json.loads((CORPUS / "provenance.json").read_text(encoding="utf-8"))


def test_sets_are_disjoint() -> None:
    speakers = {split: set(names) for split, names in provenance()["speakers"].items()}
    assert not speakers["train"] & speakers["validation"]
    assert not (speakers["train"] | speakers["validation"]) & speakers["test"]
    spoken: dict[str, str] = {}
    for name in ("clean", "hard", "long"):
        for entry in manifest(name):
            assert entry["speaker"] in speakers["test"]
            for segment in entry.get("segments", [entry]):
                assert set_by_hash(segment["text"]) == name
                assert segment["text"] not in spoken
                spoken[segment["text"]] = name


def set_by_hash(text: str) -> str:
    """The set that may speak this sentence, from the shares that the corpus records."""
    position = int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big") / 2**64
    for name, share in provenance()["sentence_shares"].items():
        if position < share:
            return name
        position -= share
    raise AssertionError("shares must sum to 1")


# --- transformers --------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def transformers_hypotheses() -> dict[str, list[str]]:
    """Greedy transcripts of clean, hard and the segments of long."""
    torch = pytest.importorskip("torch")
    transformers = pytest.importorskip("transformers")
    model = transformers.WhisperForConditionalGeneration.from_pretrained(CHECKPOINT).eval()
    tokenizer = transformers.AutoTokenizer.from_pretrained(CHECKPOINT)

    def transcribe(mel: np.ndarray) -> list[str]:
        decoded: list[str] = []
        for start in range(0, len(mel), BATCH):
            tokens = model.generate(torch.from_numpy(mel[start : start + BATCH]), num_beams=1)
            decoded += tokenizer.batch_decode(tokens, skip_special_tokens=True)
        return [text.strip() for text in decoded]

    return {name: transcribe(mel) for name, mel in evaluated().items()}


def evaluated() -> dict[str, np.ndarray]:
    """Features of the three sets; long is cut at the segments that its manifest records."""
    segments = []
    for recording, entry in zip(audio("long"), manifest("long"), strict=True):
        for segment in entry["segments"]:
            # As an endpointer does; pauses are at least 0.6 s long, so no other words get in.
            start = max(0.0, segment["start"] - PAUSE_MARGIN)
            end = segment["end"] + PAUSE_MARGIN
            cut = recording[int(start * SAMPLE_RATE) : int(end * SAMPLE_RATE)]
            segments.append(log_mel_spectrogram(cut, 80, WINDOW_SAMPLES))
    return {"clean": features("clean"), "hard": features("hard"), "long": np.stack(segments)}


def test_word_error_rate_clean(transformers_hypotheses: dict[str, list[str]]) -> None:
    assert word_error_rate("clean", transformers_hypotheses["clean"]) <= 3.0


def test_word_error_rate_hard(transformers_hypotheses: dict[str, list[str]]) -> None:
    assert 5.0 <= word_error_rate("hard", transformers_hypotheses["hard"]) <= 10.0


def test_word_error_rate_long_by_segments(transformers_hypotheses: dict[str, list[str]]) -> None:
    expected = [segment["text"] for entry in manifest("long") for segment in entry["segments"]]
    errors = jiwer.process_words(expected, transformers_hypotheses["long"])
    assert 100.0 * errors.wer <= 5.0


def test_processor_equals_compat_features() -> None:
    transformers = pytest.importorskip("transformers")
    processor = transformers.WhisperProcessor.from_pretrained(CHECKPOINT)
    expected = processor(
        audio("clean")[:4], sampling_rate=SAMPLE_RATE, return_tensors="np"
    ).input_features
    assert np.abs(features("clean")[:4] - expected).max() < 1e-4


def test_tokenizer_has_one_token_per_word() -> None:
    transformers = pytest.importorskip("transformers")
    tokenizer = transformers.AutoTokenizer.from_pretrained(CHECKPOINT)
    for word in provenance()["vocabulary"]:
        tokens = tokenizer(" " + word, add_special_tokens=False).input_ids
        assert tokenizer.convert_ids_to_tokens(tokens) == ["Ġ" + word]
    labels = tokenizer(" turn left two").input_ids
    assert tokenizer.convert_ids_to_tokens(labels[:4]) == PROMPT
    assert labels[-1] == tokenizer.eos_token_id
    assert tokenizer.decode(labels, skip_special_tokens=True) == " turn left two"
    # Any other text is spelled in bytes and comes back unharmed.
    assert tokenizer.decode(tokenizer("Größe 7", add_special_tokens=False).input_ids) == "Größe 7"


# --- CTranslate2 ---------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def converted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The checkpoint in CTranslate2's format, with what faster-whisper needs beside it."""
    converters = pytest.importorskip("ctranslate2.converters")
    pytest.importorskip("transformers")
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("converted") / "whisper-nano"
    converters.TransformersConverter(
        str(CHECKPOINT), copy_files=["tokenizer.json", "preprocessor_config.json"]
    ).convert(str(folder))
    return folder


def test_ctranslate2_reproduces_transformers(
    converted: Path, transformers_hypotheses: dict[str, list[str]]
) -> None:
    ctranslate2 = pytest.importorskip("ctranslate2")
    tokenizers = pytest.importorskip("tokenizers")
    model = ctranslate2.models.Whisper(str(converted), device="cpu", compute_type="float32")
    tokenizer = tokenizers.Tokenizer.from_file(str(converted / "tokenizer.json"))
    prompt = [tokenizer.token_to_id(token) for token in PROMPT]
    for name in ("clean", "hard"):
        hypotheses: list[str] = []
        for start in range(0, len(features(name)), BATCH):
            mel = ctranslate2.StorageView.from_array(features(name)[start : start + BATCH])
            results = model.generate(mel, [prompt] * mel.shape[0], beam_size=1, max_length=32)
            hypotheses += [tokenizer.decode(result.sequences_ids[0]).strip() for result in results]
        assert share_equal(hypotheses, transformers_hypotheses[name]) >= 0.99
        expected = word_error_rate(name, transformers_hypotheses[name])
        assert word_error_rate(name, hypotheses) == pytest.approx(expected, abs=0.5)


def test_faster_whisper_transcribes(converted: Path) -> None:
    # faster-whisper takes a model with so few tokens for an English-only one and prompts it
    # without language and task; it also pads features with zeros where others pad audio.
    faster_whisper = pytest.importorskip("faster_whisper")

    class ShortWindowModel(faster_whisper.WhisperModel):
        """Undoes the padding to 30 s that `transcribe` applies whatever the model's window is."""

        def encode(self, features: np.ndarray) -> Any:
            return super().encode(features[..., : self.feature_extractor.nb_max_frames].copy())

    model = ShortWindowModel(str(converted), device="cpu", compute_type="float32")
    for name, limit in (("clean", 3.0), ("hard", 12.0)):
        hypotheses = []
        for recording in audio(name):
            segments, _ = model.transcribe(
                recording,
                language="en",
                beam_size=1,
                temperature=0.0,
                without_timestamps=True,
                condition_on_previous_text=False,
                vad_filter=False,
                max_new_tokens=16,
            )
            hypotheses.append(" ".join(segment.text.strip() for segment in segments))
        assert word_error_rate(name, hypotheses) <= limit
