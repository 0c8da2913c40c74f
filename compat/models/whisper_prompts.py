"""Prompts of Whisper for the windows of recordings, by their given or detected languages.

A batch may hold several languages. As in ``generate``, the first window of a recording decides on
the language of all of it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

from compat.models.whisper_vocabulary import Vocabulary

Prompt = tuple[int, ...]
Detect = Callable[[Sequence[int]], Sequence[int]]
"""Function that detects the language of some rows of a batch, and returns a token for each."""
Ask = Callable[[Detect], list[Prompt]]
"""Function that returns the prompt of each row of a batch, and detects only unknown languages."""


class Prompts:
    """The prompts of the windows of one call.

    Args:
        vocabulary: the checkpoint's vocabulary.
        said: the prompt of each recording; None if its language is to be detected.
        owners: the number of each window's recording.
    """

    def __init__(
        self, vocabulary: Vocabulary, said: Iterable[Prompt | None], owners: Sequence[int]
    ) -> None:
        self.vocabulary = vocabulary
        self.owners = owners
        self._of_recordings = list(said)
        self._detected: dict[int, str] = {}

    def ask(self, windows: Sequence[int], rows: int) -> Ask:
        """Return the function that returns the prompts of a batch.

        Args:
            windows: numbers of the windows, ascending, and after those of all batches before.
            rows: size of the batch. Rows without a window get the first window's prompt.
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
    """Return the rows of each prompt, for ports that take one language at a time."""
    rows: dict[Prompt, list[int]] = {}
    for row, prompt in enumerate(prompts):
        rows.setdefault(prompt, []).append(row)
    return rows
