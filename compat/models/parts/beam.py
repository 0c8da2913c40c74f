"""Beam search over the graph ``decoder``: several hypotheses, each a row of a batch.

The algorithm is that of openai-whisper (``BeamSearchDecoder`` with a patience of 1). The best
continuations of all hypotheses go on, until as many hypotheses have ended as there are beams. The
hypothesis with the best mean log-probability wins.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from compat.contract.graph import POSITION
from compat.contract.session import Handle, Session

NEVER = -1e4
"""Number added to the logits of suppressed tokens, as in the graphs."""


def beam_search(
    session: Session,
    encoded: Mapping[str, Handle],
    point: str,
    prompt: Sequence[int],
    beams: int,
    most: int,
    end: int,
    suppress: Sequence[int] = (),
    begin_suppress: Sequence[int] = (),
) -> list[int]:
    """Return the tokens of the best hypothesis, without the prompt and the end.

    Args:
        session: the session that has the graph ``decoder`` with its output ``logits``.
        encoded: the encoder's outputs for one input, a batch of one.
        point: a static shape point with at least as many rows as beams; further rows are idle.
        prompt: tokens that are given.
        beams: number of hypotheses.
        most: largest number of tokens after the prompt.
        end: the token that ends a hypothesis.
        suppress: tokens that never come.
        begin_suppress: tokens that do not come first.
    """
    graph = session.graphs["decoder"]
    rows = graph.points[point]["batch"]
    if beams > rows:
        raise ValueError(f"{point} has {rows} rows, too few for {beams} beams")
    feeds = {
        name: np.repeat(encoded[name].numpy(), rows, axis=tensor.shape.index("batch"))
        for name, tensor in graph.inputs.items()
        if name in encoded
    }
    session.reset("decoder", point)
    live: list[list[int]] = [[] for _ in range(beams)]
    # All rows are equal at first, so only one of them may be continued.
    scores = np.full(beams, -np.inf)
    scores[0] = 0.0
    done: list[tuple[float, list[int]]] = []
    for position in range(len(prompt) - 1 + most):
        given = position < len(prompt)
        tokens = np.full(rows, prompt[position] if given else end, np.int32)
        if not given:
            tokens[:beams] = [one[-1] for one in live]
        feeds |= {"token": tokens, POSITION: np.array([position], np.int32)}
        outputs = session.run("decoder", feeds, point, fetch=("logits",))
        if position < len(prompt) - 1:
            continue
        logits = outputs["logits"].numpy()[:beams].astype(np.float64)
        logits[:, [*suppress]] += NEVER
        if given:
            logits[:, [*begin_suppress]] += NEVER
        logits -= logits.max(axis=1, keepdims=True)
        sums = scores[:, None] + logits - np.log(np.exp(logits).sum(axis=1, keepdims=True))
        parents, following, scores = _step(sums, live, beams, end, done)
        live = following
        if len(done) >= beams:
            break
        order = np.arange(rows)
        order[:beams] = parents
        # Copying caches costs more than a step. Most steps keep the order and need no copy.
        if not np.array_equal(order, np.arange(rows)):
            session.gather("decoder", point, order)
    # Where too few hypotheses have ended, those that have not are candidates too.
    open_ones = [(score / max(len(one), 1), one) for score, one in zip(scores, live, strict=True)]
    return max(done if len(done) >= beams else [*done, *open_ones], key=lambda one: one[0])[1]


def _step(
    sums: np.ndarray,
    live: list[list[int]],
    beams: int,
    end: int,
    done: list[tuple[float, list[int]]],
) -> tuple[list[int], list[list[int]], np.ndarray]:
    """Continue the best hypotheses; return the row each came from, their tokens and their scores.

    Hypotheses that end are added to ``done``, with their mean log-probability.
    """
    flat = sums.ravel()
    # At most one continuation of each hypothesis is the end. So of twice as many continuations as
    # beams, at least as many as beams go on.
    best = np.argsort(-flat, kind="stable")[: 2 * beams]
    parents: list[int] = []
    following: list[list[int]] = []
    scores: list[float] = []
    for index in best:
        row, token = divmod(int(index), sums.shape[1])
        if token == end:
            if len(done) < beams:
                done.append((float(flat[index]) / (len(live[row]) + 1), live[row]))
            continue
        parents.append(row)
        following.append([*live[row], token])
        scores.append(float(flat[index]))
        # An end that is less likely than all hypotheses that go on does not count.
        if len(following) == beams:
            break
    return parents, following, np.array(scores)
