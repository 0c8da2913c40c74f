"""A toy that writes four codes at each step and turns them into sound, from a prompt.

A text encoder runs once, a decoder with caches writes codes until all four say that it has ended,
and a codec's decoder turns them into sound: the form of MusicGen, with a few thousand generated
parameters. Loaded with ``pytest suites --catalog tests/toy_codes.py``.
"""

from __future__ import annotations

import zlib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from compat.api import (
    Corpus,
    Family,
    Graph,
    Item,
    Items,
    Metric,
    Model,
    Prediction,
    Profile,
    Session,
    State,
    Steps,
    Stopwatch,
    Task,
    Tensor,
    Variant,
    gains,
    generated_digest,
    seed,
)

if TYPE_CHECKING:
    import torch

    from compat.api import Handle

WORDS, VOCABULARY, WIDTH = 8, 41, 24
"""Tokens of a prompt, different tokens, and features of each."""
STREAMS, CODES, POSITIONS, HOP = 4, 17, 24, 80
"""Codes of a step, different codes, most steps, and samples that each step gives."""
END = CODES - 1
START = (1, 2, 3, 4)
PRIMED = (START, (5, 6, 7, 8))
"""Codes that every answer begins with: the prompt of the decoder."""
RATE = 8_000
BATCHES = (1, 2)
GAINS = {"query": 2.0, "key": 2.0, "cross": 3.0, "heads": 3.0, "words": 2.0, "length": 2.0}

FAMILY = Family(
    name="toy-codes",
    task="toy-codes",
    row="Toy generation",
    headline="toy-codes",
    # Nobody published it: the suite is to search for hard inputs, and say that it cannot.
    variants=(Variant("toy-codes", ("trained",), published=False, core=True, parameters=0.01),),
)


def load(variant: str, weights: str, checkpoint: str) -> ToyCodes:
    """Return the host side of the one variant."""
    return ToyCodes()


# The task --------------------------------------------------------------------------------------

PROMPTS = (
    "a drum alone",
    "piano, gently",
    "slow choir",
    "fast strings and brass",
    "silence with one bell",
    "a guitar in an empty hall",
    "two flutes",
    "organ",
)
HARD = {
    "empty": "",
    "very-long": "more and " * 300,
    "repeated": "ho ho ho ho ho",
    "foreign": "琴 🥁",
}


@dataclass(frozen=True)
class Writing(Task):
    """Writes codes and their sound. A prediction has ``tokens``, lists of four, and ``audio``."""

    name: ClassVar[str] = "toy-codes"
    metrics: ClassVar[tuple[Metric, ...]] = (
        Metric("token_agreement", "share", "higher", primary=True),
        Metric("same_length", "share", "higher"),
        Metric("steps", "count"),
    )

    def items(self, corpus: Corpus, rate: int, profile: Profile) -> Items:
        prompts = PROMPTS[: profile.pick(4, 6, len(PROMPTS))]
        return Items.of({"prompts": [asked(f"prompt-{n}", p) for n, p in enumerate(prompts)]})

    def seconds(self, item: Item, prediction: Prediction) -> float:
        return max(1, len(prediction["tokens"])) * HOP / RATE

    def fresh(self, item: Item, number: int) -> Item:
        # Work depends on how long the answer is, which a prompt does not say: about the same.
        prompt = f"{item.inputs['prompt']} take {number}"
        return replace(item, id="fresh", inputs={"prompt": prompt})

    def hard(self, entries: Sequence[Any], easy: Sequence[Item], rate: int) -> list[Item]:
        return [asked(f"hard-{name}", prompt) for name, prompt in HARD.items()]

    def scores(
        self,
        items: Sequence[Item],
        predictions: Sequence[Prediction],
        references: Sequence[Prediction],
    ) -> dict[str, Any]:
        pairs = [(p["tokens"], r["tokens"]) for p, r in zip(predictions, references, strict=True)]
        steps = sum(max(map(len, pair)) for pair in pairs)
        return {
            "token_agreement": sum(agreeing(*pair) for pair in pairs) / (STREAMS * max(steps, 1)),
            "same_length": sum(len(ours) == len(theirs) for ours, theirs in pairs) / len(pairs),
            "steps": steps,
        }

    def errors(self, item: Item, prediction: Prediction, reference: Prediction) -> dict[str, float]:
        expected = STREAMS * max(len(prediction["tokens"]), len(reference["tokens"]))
        wrong = expected - agreeing(prediction["tokens"], reference["tokens"])
        return {"errors": float(wrong), "reference": 0.0}


def asked(identifier: str, prompt: str) -> Item:
    """Return the item of a prompt; its seconds are the most that may be generated."""
    inputs = {"prompt": prompt}
    return Item(identifier, inputs, POSITIONS * HOP / RATE, RATE, {"prompt": prompt})


def agreeing(tokens: Sequence[Sequence[int]], expected: Sequence[Sequence[int]]) -> int:
    """Count the codes that are equal at one place of both answers."""
    rows = zip(tokens, expected, strict=False)
    return sum(a == b for ours, theirs in rows for a, b in zip(ours, theirs, strict=True))


# The model -------------------------------------------------------------------------------------


class ToyCodes(Model):
    """Up to a quarter of a second of sound from four streams of codes."""

    task = Writing()
    sample_rate = RATE

    def content(self) -> Any:
        return generated_digest(GAINS)

    def graphs(self) -> tuple[Graph, ...]:
        points = {f"b{batch}": {"batch": batch} for batch in BATCHES}
        past = State(("batch", POSITIONS, WIDTH), update="write", axis=1)
        return (
            Graph(
                "text",
                {"tokens": Tensor(("batch", WORDS), "int32")},
                ("memory", "length"),
                points,
                text_module,
                scalar="length",
            ),
            Graph(
                "decoder",
                {
                    "codes": Tensor(("batch", STREAMS), "int32"),
                    "position": Tensor((1,), "int32"),
                    "memory": Tensor(("batch", WORDS, WIDTH)),
                    "length": Tensor(("batch",)),
                },
                ("next_codes", "logits"),
                points,
                decoder_module,
                {"keys": past, "values": past},
                scalar="next_codes",
            ),
            Graph(
                "codec",
                {"stream": Tensor(("batch", POSITIONS, STREAMS), "int32")},
                ("audio",),
                points,
                codec_module,
            ),
        )

    def run(
        self, session: Session, items: Sequence[Item], stopwatch: Stopwatch
    ) -> list[Prediction]:
        batch = 1 if len(items) == 1 else BATCHES[-1]
        predictions: list[Prediction] = []
        for start in range(0, len(items), batch):
            part = items[start : start + batch]
            with stopwatch("text"):
                text = self._read(session, part, batch)
            with stopwatch("decoder"):
                primed = np.repeat(np.array(PRIMED, np.int32)[:, None], batch, axis=1)
                steps = self._write(session, text, primed, f"b{batch}", POSITIONS, True)
            answers = [ended(steps.outputs["next_codes"][:, row]) for row in range(batch)]
            with stopwatch("codec"):
                audio = self._sound(session, answers, f"b{batch}")
            predictions += [
                {"tokens": tokens, "audio": sound[: HOP * len(tokens)]}
                for tokens, sound in zip(answers[: len(part)], audio, strict=False)
            ]
        return predictions

    def trace(self, session: Session, item: Item, guide: Prediction) -> dict[str, np.ndarray]:
        text = self._read(session, [item], 1)
        memory = text["memory"].numpy()[0].copy()
        answer = guide["tokens"]
        forced = np.array([*PRIMED, *answer][:POSITIONS], np.int32)[:, None]
        steps = self._write(session, text, forced, "b1", len(forced), False)
        audio = self._sound(session, [answer], "b1")[0].reshape(POSITIONS, HOP)
        return {"memory": memory, "logits": steps.outputs["logits"][:, 0], "audio": audio}

    def _read(self, session: Session, items: Sequence[Item], batch: int) -> dict[str, Handle]:
        tokens = np.zeros((batch, WORDS), np.int32)
        for row, item in enumerate(items):
            tokens[row] = tokenise(str(item.inputs["prompt"]))
        return session.run("text", {"tokens": tokens}, f"b{batch}")

    def _write(
        self,
        session: Session,
        text: dict[str, Handle],
        codes: np.ndarray,
        point: str,
        count: int,
        free: bool,
    ) -> Steps:
        """Run the decoder over given codes, and on by itself if it is free."""
        return session.steps(
            "decoder",
            text,
            point,
            count,
            along={"codes": codes, "position": np.arange(count, dtype=np.int32)[:, None]},
            carry={"codes": "next_codes"} if free else {},
            stop=("next_codes", END) if free else None,
            fetch=("next_codes",) if free else ("logits",),
        )

    def _sound(
        self, session: Session, answers: Sequence[Sequence[Sequence[int]]], point: str
    ) -> np.ndarray:
        stream = np.full((len(answers), POSITIONS, STREAMS), END, np.int32)
        for row, codes in enumerate(answers):
            stream[row, : len(codes)] = np.reshape(codes, (-1, STREAMS))
        return session.run("codec", {"stream": stream}, point)["audio"].numpy().copy()


def ended(codes: np.ndarray) -> list[list[int]]:
    """Return the steps before the one at which all codes say that the answer has ended."""
    rows = codes.tolist()
    end = next((step for step, row in enumerate(rows) if row == [END] * STREAMS), len(rows))
    return [[int(code) for code in row] for row in rows[:end]]


def tokenise(prompt: str) -> np.ndarray:
    """Return the last words as tokens, int32 (words,), by their checksums; 0 is no word."""
    tokens = np.zeros(WORDS, np.int32)
    for index, word in enumerate(prompt.lower().split()[-WORDS:]):
        tokens[index] = 1 + zlib.crc32(word.encode()) % (VOCABULARY - 1)
    return tokens


def text_module() -> torch.nn.Module:
    """Map tokens (batch, words) to memory (batch, words, width) and to a length (batch,)."""
    import torch

    class Text(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.words = torch.nn.Embedding(VOCABULARY, WIDTH)
            self.places = torch.nn.Parameter(torch.zeros(WORDS, WIDTH))
            self.norm = torch.nn.LayerNorm(WIDTH)
            self.length = torch.nn.Linear(WIDTH, 1)

        def forward(self, tokens: torch.Tensor) -> tuple[torch.Tensor, ...]:
            memory = self.norm(self.words(tokens) + self.places)
            share = torch.sigmoid(self.length(memory[:, 0]))[:, 0]
            return memory, 4 + (POSITIONS - 4) * share

    return seeded(Text())


def decoder_module() -> torch.nn.Module:
    """Return one step: attention over its own past and over the prompt, and four heads."""
    import torch

    class Decoder(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.embed = torch.nn.ModuleList(
                torch.nn.Embedding(CODES, WIDTH) for _ in range(STREAMS)
            )
            self.places = torch.nn.Embedding(POSITIONS, WIDTH)
            for name in ("query", "key", "value", "cross"):
                setattr(self, name, torch.nn.Linear(WIDTH, WIDTH))
            self.norm = torch.nn.LayerNorm(WIDTH)
            self.heads = torch.nn.Linear(WIDTH, STREAMS * CODES)
            self.register_buffer("steps", torch.arange(POSITIONS, dtype=torch.int32))
            self.register_buffer("ending", (torch.arange(CODES) == END).float())

        def forward(
            self,
            codes: torch.Tensor,
            position: torch.Tensor,
            memory: torch.Tensor,
            length: torch.Tensor,
            keys: torch.Tensor,
            values: torch.Tensor,
        ) -> tuple[torch.Tensor, ...]:
            entered = self.places(position).unsqueeze(0)
            for index, embed in enumerate(self.embed):
                entered = entered + embed(codes[:, index : index + 1])
            query, key, value = self.query(entered), self.key(entered), self.value(entered)
            mask = torch.where(self.steps < position, 0.0, -1e4).to(query.dtype)
            before = query @ keys.transpose(1, 2) / WIDTH**0.5 + mask
            now = query @ key.transpose(1, 2) / WIDTH**0.5
            share = torch.cat((before, now), dim=2).softmax(dim=2)
            own = share[..., :-1] @ values + share[..., -1:] * value
            told = (query @ memory.transpose(1, 2) / WIDTH**0.5).softmax(dim=2) @ memory
            hidden = self.norm(entered + own + self.cross(told))
            # Where the length is reached the code that ends the answer outgrows all others.
            late = 4 * (position.to(query.dtype) - length)
            logits = self.heads(hidden).reshape(-1, STREAMS, CODES)
            logits = logits + late.reshape(-1, 1, 1).clamp(-40, 40) * self.ending
            return logits.argmax(dim=2).to(torch.int32), logits, key, value

    return seeded(Decoder())


def codec_module() -> torch.nn.Module:
    """Map codes (batch, positions, streams) to sound (batch, samples)."""
    import torch

    class Codec(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.book = torch.nn.ModuleList(
                torch.nn.Embedding(CODES, WIDTH) for _ in range(STREAMS)
            )
            self.near = torch.nn.Conv1d(WIDTH, WIDTH, 3, padding=1)
            self.sound = torch.nn.Linear(WIDTH, HOP)

        def forward(self, stream: torch.Tensor) -> tuple[torch.Tensor, ...]:
            frames = sum(book(stream[:, :, index]) for index, book in enumerate(self.book))
            hidden = torch.nn.functional.gelu(self.near(frames.transpose(1, 2))).transpose(1, 2)
            return (torch.tanh(self.sound(hidden)).reshape(-1, POSITIONS * HOP),)

    return seeded(Codec())


def seeded(module: torch.nn.Module) -> torch.nn.Module:
    """Fill a module with the file's own weights."""
    seed(module, gains(GAINS))
    return module
