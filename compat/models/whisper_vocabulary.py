"""Whisper's vocabulary: the tokens that begin, end and steer a transcript.

The prompt is the one that ``generate`` of transformers makes from a checkpoint's
``generation_config.json`` (``WhisperGenerationMixin._retrieve_init_tokens``). So English-only
checkpoints, those of other languages and those that translate are prompted as they were trained. A
recording's given language is used as in ``generate(language=…)``. If no language is given or
configured, it is detected. Prompts never ask for timestamps.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from compat.inputs.checkpoints import CheckpointError
from compat.inputs.weights import read_json
from compat.metrics.languages import code

END = "<|endoftext|>"
START = "<|startoftranscript|>"
ENGLISH = "<|en|>"
TRANSCRIBE, TRANSLATE = "<|transcribe|>", "<|translate|>"
NO_TIMESTAMPS = "<|notimestamps|>"

ENGLISH_ONLY = 51864
"""Size of the published vocabularies without languages; those with languages are larger."""

GENERATION = "generation_config.json"


@dataclass(frozen=True)
class Vocabulary:
    """Token ids that steer decoding, and their meaning."""

    prompt: tuple[int, ...]
    """The prompt if no language is given. If the language is to be detected, the token of English
    (or of the first language) is its placeholder."""
    end: int
    suppress: tuple[int, ...] = ()
    begin_suppress: tuple[int, ...] = ()
    language: str = "en"
    """Code of the language of :attr:`prompt`; English if the prompt has no language."""
    task: str = "transcribe"
    """Task of the prompt: ``transcribe``, or ``translate`` into English."""
    languages: Mapping[str, int] = field(default_factory=dict)
    """Tokens of languages by code; empty for checkpoints whose prompts have no language."""
    said: tuple[int, ...] = ()
    """The prompt for a given language, whose token replaces the second one."""
    detects: bool = False
    """Whether the language is detected if none is given."""

    @property
    def is_uneven(self) -> bool:
        """Whether prompts with a given language have another length than those without.

        So it is in ``generate``, which adds a task by default only if a language is given.
        """
        return bool(self.languages) and len(self.said) != len(self.prompt)

    def prompt_in(self, language: str) -> tuple[int, ...] | None:
        """Return the prompt for a language; None for one that the checkpoint does not know.

        Args:
            language: code or name, such as ``de``, ``de-AT``, ``German`` or ``<|de|>``.
        """
        if not self.languages:
            named = language_token({self.language: 0}, language)
            return self.prompt if named is not None else None
        token = language_token(self.languages, language)
        return None if token is None else (self.said[0], token, *self.said[2:])

    def prompt_detected(self, token: int) -> tuple[int, ...]:
        """Return the prompt for a detected language, which is given by its token."""
        return (self.prompt[0], token, *self.prompt[2:])

    def spoken(self, logits: np.ndarray) -> list[int]:
        """Return the token of the most probable language in each row.

        ``logits`` (rows, vocabulary) are those of the first step, after the start token.
        """
        tokens = sorted(self.languages.values())
        return [tokens[int(best)] for best in logits[:, tokens].argmax(axis=1)]

    def language_of(self, prompt: tuple[int, ...]) -> str:
        """Return the code of a prompt's language, or the checkpoint's if the prompt has none."""
        codes = {token: name for name, token in self.languages.items()}
        return codes.get(prompt[1], self.language) if codes else self.language


def language_token(languages: Mapping[str, int], name: str) -> int | None:
    """Return the token of a language given by code or name, with a region or without.

    ``languages`` are tokens by code. None is returned if the language is not among them.
    """
    from transformers.models.whisper.tokenization_whisper import TO_LANGUAGE_CODE

    plain = name.strip().lower().strip("<|>")
    for known in (plain, TO_LANGUAGE_CODE.get(plain), code(plain)):
        if known in languages:
            return languages[known]
    return None


def seeded(size: int) -> Vocabulary:
    """Return the vocabulary of a published size for generated weights, which write only text."""
    if size == ENGLISH_ONLY:
        return Vocabulary((50257, 50362), 50256, tuple(range(50256, size)))
    # Large-v3 has one more language than other multilingual sizes, which shifts later tokens.
    shift = size - 51865
    prompt = (50258, 50259, 50359 + shift, 50363 + shift)
    return Vocabulary(prompt, 50257, tuple(range(50257, size)))


def special_names(vocabulary: Vocabulary) -> dict[int, str]:
    """Return the names of the special tokens of :func:`seeded`, as in published tokenizers.

    The tokens before the last one of the prompt have the same order in all of them.
    """
    start, without = vocabulary.prompt[0], vocabulary.prompt[-1]
    before = (TRANSLATE, TRANSCRIBE, "<|startoflm|>", "<|startofprev|>", "<|nospeech|>")
    return {
        vocabulary.end: END,
        start: START,
        start + 1: ENGLISH,
        **{without - len(before) + index: name for index, name in enumerate(before)},
        without: NO_TIMESTAMPS,
    }


def byte_letters() -> dict[int, str]:
    """Return the letter for each byte in byte-level vocabularies. Source: GPT-2's tokenizer."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in plain]
    letters = {byte: chr(byte) for byte in plain}
    return letters | {byte: chr(256 + place) for place, byte in enumerate(others)}


def read_vocabulary(folder: Path, config: Mapping[str, Any]) -> Vocabulary:
    """Read the vocabulary of a checkpoint.

    Args:
        folder: has ``tokenizer.json`` and usually ``generation_config.json``.
        config: content of ``config.json``, for settings that ``generation_config.json`` lacks.

    Raises:
        CheckpointError: the files contradict each other, or lack what a prompt needs.
    """
    tokenizer = open_tokenizer(folder)
    generation = folder / GENERATION
    # Without the file, the settings are in config.json: older versions of transformers wrote them
    # there.
    settings: Mapping[str, Any] = read_json(generation) if generation.is_file() else config
    where = generation if generation.is_file() else folder / "config.json"
    size = int(config["vocab_size"])
    asked = _Prompt(where, settings, config, tokenizer.token_to_id)
    prompt = asked.tokens()
    languages = asked.languages(prompt)
    end = settings.get("eos_token_id")
    end = config.get("eos_token_id") if end is None else end
    end = tokenizer.token_to_id(END) if end is None else end
    end = end[0] if isinstance(end, list) and len(end) == 1 else end
    suppress = tuple(settings.get("suppress_tokens") or ())
    begin = tuple(settings.get("begin_suppress_tokens") or ())
    for name, tokens in {
        "prompt": prompt,
        "lang_to_id": tuple(languages.values()),
        "eos_token_id": (end,),
        "suppress_tokens": suppress,
        "begin_suppress_tokens": begin,
    }.items():
        wrong = [token for token in tokens if not isinstance(token, int) or not 0 <= token < size]
        if wrong:
            raise CheckpointError(
                f"{where}: {name} has {wrong[0]!r}, which is none of the {size} tokens of the "
                "model. Restore the file from the checkpoint."
            )
    assert isinstance(end, int)
    names = [tokenizer.id_to_token(token) for token in prompt]
    codes = [found[1] for name in names if (found := re.fullmatch(r"<\|(\w{2,3})\|>", name or ""))]
    return Vocabulary(
        prompt,
        end,
        suppress,
        begin,
        codes[0] if codes else "en",
        "translate" if TRANSLATE in names else "transcribe",
        languages,
        asked.said(prompt) if languages else (),
        asked.is_open and len(languages) > 1,
    )


def open_tokenizer(folder: Path) -> Any:
    """Return the ``tokenizers.Tokenizer`` of a checkpoint.

    Raises:
        CheckpointError: ``tokenizer.json`` is missing or damaged.
    """
    from tokenizers import Tokenizer

    path = folder / "tokenizer.json"
    try:
        return Tokenizer.from_file(str(path))
    except Exception as error:  # The library raises nothing more specific.
        raise CheckpointError(
            f"cannot read {path}: {error}. Copy it from the checkpoint, or make it of vocab.json "
            f"and merges.txt: AutoTokenizer.from_pretrained(folder).save_pretrained(folder)."
        ) from error


@dataclass(frozen=True)
class _Prompt:
    """The prompt that settings ask for."""

    where: Path
    """The file that messages name."""
    settings: Mapping[str, Any]
    config: Mapping[str, Any]
    token_id: Callable[[str], int | None]

    def tokens(self) -> tuple[int, ...]:
        """Return the prompt, made by the steps of ``_retrieve_init_tokens``."""
        settings = self.settings
        language, task = settings.get("language"), settings.get("task")
        start = settings.get("decoder_start_token_id")
        start = self.config.get("decoder_start_token_id") if start is None else start
        tokens = [self._named(START) if start is None else start, *self._forced()]
        no_timestamps = settings.get("no_timestamps_token_id")
        if self._is_silent:
            no_timestamps = self._named(NO_TIMESTAMPS)
        if language is not None:
            tokens[1:2] = [self._language(language)]
        elif self.is_open:
            tokens[1:2] = [self._undetected()]
            # ``generate`` cannot detect a language, or has no settings for it: English is taken.
            if self._is_silent or not settings.get("lang_to_id"):
                language = "en"
        if task is not None:
            tokens.append(self._task(task))
        elif language is not None and not set(self._tasks().values()) & set(tokens):
            tokens.append(self._task("transcribe"))
        if no_timestamps is not None and tokens[-1] != no_timestamps:
            tokens.append(no_timestamps)
        return tuple(token for token in tokens if token is not None)

    def said(self, prompt: tuple[int, ...]) -> tuple[int, ...]:
        """Return the prompt for a given language, as ``generate(language=…)`` makes it.

        ``prompt`` is the prompt without a given language. Forced tokens are ignored, as in
        ``generate``.
        """
        task = self.settings.get("task")
        token = self._tasks().get("transcribe") if task is None else self._task(task)
        ends = {self.settings.get("no_timestamps_token_id"), self.token_id(NO_TIMESTAMPS)}
        end = prompt[-1:] if prompt[-1] in ends else ()
        said = (*prompt[:2], *(() if token is None else (token,)), *end)
        if len(said) != len(prompt) and said[-1] != prompt[-1]:
            raise CheckpointError(
                f"{self.where}: prompts would end with {said[-1]} where a language is said and "
                f'with {prompt[-1]} where it is not. Set "task" and "no_timestamps_token_id".'
            )
        return said

    def languages(self, prompt: tuple[int, ...]) -> dict[str, int]:
        """Return tokens of languages by code, from the settings or else from the tokenizer.

        The result is empty if prompts have no language.
        """
        known = self.settings.get("is_multilingual")
        named = self.settings.get("lang_to_id")
        if known is not None and not known:
            return {}
        if named:
            return {name.strip("<|>"): token for name, token in named.items()}
        from transformers.models.whisper.tokenization_whisper import LANGUAGES

        tokens = {name: self.token_id(f"<|{name}|>") for name in LANGUAGES}
        found = {name: token for name, token in tokens.items() if token is not None}
        return found if self._is_multilingual or set(prompt) & set(found.values()) else {}

    @property
    def is_open(self) -> bool:
        """Whether the prompt has a language that the settings do not name."""
        named = self.settings.get("language") is not None
        return not named and self._forced()[:1] in ([], [None]) and self._is_multilingual

    @property
    def _is_silent(self) -> bool:
        """Whether the settings say nothing of the prompt, which then is the published kind's."""
        named = ("no_timestamps_token_id", "language", "task")
        return not any(self.settings.get(name) for name in named) and not self._forced()

    def _forced(self) -> list[int | None]:
        """Return the tokens of ``forced_decoder_ids``, the old form: pairs of position and token.

        None stands for a language that is to be detected. The tokens are ignored if the settings
        have ``language`` or ``task``.
        """
        if self.settings.get("language") is not None or self.settings.get("task") is not None:
            return []
        pairs = self.settings.get("forced_decoder_ids")
        pairs = self.config.get("forced_decoder_ids") if pairs is None else pairs
        if not pairs or pairs[0][0] != 1:
            return []
        if [position for position, _ in pairs] != list(range(1, len(pairs) + 1)):
            raise CheckpointError(
                f"{self.where}: forced_decoder_ids {pairs} leave a position of the prompt open. "
                "Remove them, and set language and task."
            )
        return [token for _, token in pairs]

    @property
    def _is_multilingual(self) -> bool:
        """Whether prompts have a language."""
        settings = self.settings
        known = settings.get("is_multilingual")
        if known is not None:
            return bool(known)
        size = self.config["vocab_size"]
        if settings.get("lang_to_id") or size > ENGLISH_ONLY:
            return True
        # Vocabularies of other sizes are not published ones, so their tokens decide.
        return self._is_silent and size != ENGLISH_ONLY and self.token_id(ENGLISH) is not None

    def _undetected(self) -> int:
        """Return the token that is the placeholder of a language to be detected."""
        languages = self.settings.get("lang_to_id")
        if not languages:
            return self._named(ENGLISH)
        return int(languages.get(ENGLISH, next(iter(languages.values()))))

    def _language(self, language: Any) -> int:
        """Return the token of a language that is given as ``<|hi|>``, ``hi`` or ``Hindi``."""
        languages = self.settings.get("lang_to_id") or {}
        tokens = {name.strip("<|>"): int(token) for name, token in languages.items()}
        token = language_token(tokens, str(language))
        if token is None:
            raise CheckpointError(
                f"{self.where}: the language {language!r} is not in its lang_to_id, which has "
                f"{len(languages)} languages. Set one of them, or add its token."
            )
        return token

    def _tasks(self) -> Mapping[str, int]:
        """Return the tokens of tasks by name, from the settings or else from the tokenizer."""
        tasks = self.settings.get("task_to_id")
        if tasks:
            return dict(tasks)
        pairs = {"transcribe": self.token_id(TRANSCRIBE), "translate": self.token_id(TRANSLATE)}
        return {name: token for name, token in pairs.items() if token is not None}

    def _task(self, task: Any) -> int:
        if task not in self._tasks():
            raise CheckpointError(
                f"{self.where}: the task {task!r} is none of {', '.join(self._tasks())}. Set "
                "transcribe or translate, or restore task_to_id and the tokenizer."
            )
        return int(self._tasks()[task])

    def _named(self, name: str) -> int:
        token = self.token_id(name)
        if token is None:
            raise CheckpointError(
                f"{self.where} does not say how a prompt begins and ends, and tokenizer.json "
                f"beside it lacks {name}: restore both from the checkpoint."
            )
        return token
