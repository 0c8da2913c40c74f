"""Prompts of Whisper for the windows of some recordings: by the language said of each, or detected.

A batch may hold several languages. As in ``generate``, the first window of a recording decides on
the language of all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from compat.models.whisper_vocabulary import Vocabulary

Prompt = tuple[int, ...]
Detect = Callable[[Sequence[int]], Sequence[int]]
"""Detects the language of some rows of a batch: returns a token for each."""
Ask = Callable[[Detect], list[Prompt]]
"""Returns the prompt of each row of a batch, and detects languages only if one is not known."""


class Prompts:
    """The prompts of the windows of one call.

    Args:
        vocabulary: that of the checkpoint.
        said: the prompt of each recording, None where its language is to be detected.
        owners: the recording, by its number, of each window.
    """

    def __init__(
        self, vocabulary: Vocabulary, said: Iterable[Prompt | None], owners: Sequence[int]
    ) -> None:
        self.vocabulary = vocabulary
        self.owners = owners
        self._of_recordings = list(said)
        self._detected: dict[int, str] = {}

    def ask(self, windows: Sequence[int], rows: int) -> Ask:
        """Return what asks for the prompts of a batch.

        Args:
            windows: their numbers, ascending, each after all that were asked for before.
            rows: size of the batch. Rows without a window get the first one's prompt.
        """

        def ask(detect: Detect) -> list[Prompt]:
            self._detect(windows, detect)
            prompts = [self._of_recordings[self.owners[window]] for window in windows]
            known = [prompt for prompt in prompts if prompt is not None]
            return known + known[:1] * (rows - len(known))

        return ask

    def _detect(self, windows: Sequence[int], detect: Detect) -> None:
        unknown: dict[int, int] = {}
        for row, window in enumerate(windows):
            if self._of_recordings[self.owners[window]] is None:
                unknown.setdefault(self.owners[window], row)
        if not unknown:
            return
        for recording, token in zip(unknown, detect([*unknown.values()]), strict=True):
            prompt = self.vocabulary.prompt_detected(token)
            self._of_recordings[recording] = prompt
            self._detected[recording] = self.vocabulary.language_of(prompt)

    def detected(self, recording: int) -> str:
        """Return the code of a recording's language, if it was detected; empty otherwise."""
        return self._detected.get(recording, "")


def grouped(prompts: Sequence[Prompt]) -> dict[Prompt, list[int]]:
    """Return the rows of each prompt, for what takes one language at a time."""
    rows: dict[Prompt, list[int]] = {}
    for row, prompt in enumerate(prompts):
        rows.setdefault(prompt, []).append(row)
    return rows
