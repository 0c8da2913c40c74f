"""Mutated copies of real results files: no traceback, and nothing lost of the sound ones.

Ten thousand files in groups, read and merged beside the sound files in one process. What a line
may hold comes from hypothesis, and so does the seed of where it goes.
"""

from __future__ import annotations

import gzip
import io
import json
import shutil
from collections.abc import Callable, Sequence
from copy import deepcopy
from pathlib import Path
from random import Random
from typing import Any

import pytest
from backports import zstd
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from rich.console import Console

from compat.contract.untrusted import clean
from compat.judge.result_files import content
from compat.judge.results import Collection, read_all
from compat.report import build, matrix_markdown, print_matrix, write_site
from compat.report.model import Configuration, Report

PUBLISHED = Path(__file__).resolve().parents[1] / "reports/results"
GROUPS, GROUP = 20, 500
LARGEST_SOUND = 60_000
"""Bytes of a published file, unpacked, that is used: each group reads and rates all of them."""
LONGEST = 6_000
"""Bytes of a line that is copied and mutated: longer ones differ by predictions alone."""
LINES = 8
MACHINE = "deadbeef"
"""Where every copy claims to come from: a copy that stays sound may outrank nothing."""

Tree = Any

SCALARS = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(2**62, 2**70)
    | st.floats()
    | st.sampled_from([1e308, -1e308, 5e-324, 1e101, 10**300, -0.0, 0, -1, 2**63, 2**31])
    | st.text(max_size=12)
    | st.sampled_from(["", "nan", "inf", "x" * 3000, "\x1b[31m", "\u202e", "../../x", "</script>"])
    | st.sampled_from(["passed", "failed", "skipped", "error", "strict", "observation", "run"])
)
TREES = st.recursive(
    SCALARS,
    lambda inner: (
        st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=6), inner, max_size=4)
    ),
    max_leaves=10,
)


def published() -> list[Path]:
    return sorted(PUBLISHED.rglob("*.jsonl.zst"))


def originals() -> list[list[bytes]]:
    """A few lines of each published file, as if another machine and other families' own."""
    copies = []
    for path in published():
        lines = content(path).data.splitlines()
        short = [line for line in lines[1:] if len(line) < LONGEST]
        if not short or len(lines[0]) > LONGEST:
            continue
        # The plans come first in a file: of these a few, and of what follows.
        plans = [line for line in short if b'"kind":"planned"' in line]
        others = [line for line in short if b'"kind":"planned"' not in line]
        chosen = [lines[0], *plans[: LINES // 2], *others[: LINES // 2]]
        machine = json.loads(lines[0])["machine"].encode()
        copies.append(
            [
                line.replace(machine, MACHINE.encode()).replace(b'"family":"', b'"family":"copied-')
                for line in chosen
            ]
        )
    return copies


def nodes(tree: Tree) -> list[tuple[Any, Any]]:
    """Return ``(container, key)`` of every value below a JSON tree."""
    found: list[tuple[Any, Any]] = []
    open_ones = [tree]
    while open_ones:
        one = open_ones.pop()
        if isinstance(one, dict | list):
            places = list(one) if isinstance(one, dict) else range(len(one))
            found += [(one, place) for place in places]
            open_ones += [one[place] for place in places]
    return found


def restructured(line: bytes, random: Random, trees: Sequence[Tree]) -> bytes:
    """Return a line whose tree was changed in one to three places."""
    tree = json.loads(line)
    for _ in range(random.randint(1, 3)):
        places = nodes(tree)[:2000]
        if not places:
            break
        container, key = random.choice(places)
        what = random.random()
        if what < 0.5:
            container[key] = deepcopy(random.choice(trees))
        elif what < 0.6:
            del container[key]
        elif what < 0.7:
            other, place = random.choice(places)
            container[key] = deepcopy(other[place])
        elif what < 0.8:
            for _ in range(random.choice((1, 5, 40))):
                container[key] = [container[key]]
                container, key = container[key], 0
        elif what < 0.9:
            container[key] = [container[key]] * random.choice((0, 2, 20))
        elif isinstance(container, dict):
            container[random.choice((*container, "new"))] = container.pop(key)
    text = json.dumps(tree, ensure_ascii=False).encode(errors="surrogatepass")
    if random.random() < 0.05:
        text = text[:-1] + b"," + text[1:]  # Every key twice.
    return text


def flipped(data: bytes, random: Random) -> bytes:
    changed = bytearray(data)
    for _ in range(random.randint(1, 8)):
        changed[random.randrange(len(changed))] = random.randrange(256)
    return bytes(changed)


def inserted(data: bytes, random: Random) -> bytes:
    where = random.randrange(len(data))
    junk = random.choice((b"\n", b"\r", b"\x00" * 9, b"[" * 3000, b"\xff\xfe", b"1e999", b'"'))
    return data[:where] + junk + data[where:]


BYTES: tuple[Callable[[bytes, Random], bytes], ...] = (
    flipped,
    inserted,
    lambda data, random: data[: random.randrange(len(data))],
    lambda data, random: data[random.randrange(len(data)) :],
    lambda data, random: data.replace(b"\n", b"", random.randint(1, 3)),
    lambda data, random: data + data[random.randrange(len(data)) :],
    lambda data, random: gzip.compress(data, 1)[: random.choice((None, -5, 40))],
    lambda data, random: zstd.compress(data, 1)[: random.choice((None, -5, 40))],
    lambda data, random: flipped(zstd.compress(data, 1), random),
    lambda data, random: data.decode(errors="replace").encode("utf-16")[: -random.randint(1, 9)],
    lambda data, random: b"\xef\xbb\xbf" + data,
)


def mutated(lines: Sequence[bytes], random: Random, trees: Sequence[Tree]) -> bytes:
    """Return a copy of a file with some lines restructured, and its bytes spoilt, or both."""
    changed = list(lines)
    if random.random() < 0.8:
        for _ in range(random.randint(1, 2)):
            # The first line is the header, which decides most.
            which = 0 if random.random() < 0.3 else random.randrange(len(changed))
            changed[which] = restructured(lines[which], random, trees)
    if random.random() < 0.1:
        random.shuffle(changed)
    data = b"\n".join(changed) + b"\n"
    return random.choice(BYTES)(data, random) if random.random() < 0.4 else data


def rated(report: Report, machines: set[str]) -> dict[str, Configuration]:
    return {one.id: one for one in report.configurations if one.machine in machines}


def same(one: Configuration, other: Configuration) -> bool:
    """Whether two say the same; how short a machine's name may be, the other files decide."""
    return (one.rating, one.gates, one.why, one.figures, one.records) == (
        other.rating,
        other.gates,
        other.why,
        other.figures,
        other.records,
    )


def observed(collection: Collection) -> set[tuple[str, int]]:
    return {(str(run.path), len(run.observations)) for run in collection.runs}


@pytest.fixture(scope="module")
def sound() -> list[Path]:
    return [path for path in published() if len(content(path).data) < LARGEST_SOUND]


def test_ten_thousand_mutated_files_cost_themselves(
    sound: list[Path], tmp_path_factory: pytest.TempPathFactory
) -> None:
    alone = read_all(sound)
    current = {one.check: one.check_version for run in alone.runs for one in run.observations}
    machines = {run.header.machine for run in alone.runs}
    before = rated(build(alone, current), machines)
    copies = originals()
    assert len(before) > 20
    assert len(copies) > 50
    groups = read = refused = 0

    @settings(
        max_examples=GROUPS,
        # A failure names its seed; making five hundred files fewer would take hours.
        phases=[Phase.generate],
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(
        trees=st.lists(TREES, min_size=25, max_size=25),
        seed=st.integers(0, 2**32),
    )
    def group(trees: list[Tree], seed: int) -> None:
        nonlocal groups, read, refused
        random = Random(seed)  # noqa: S311 (not for secrets)
        folder = tmp_path_factory.mktemp("mutated")
        for number in range(GROUP):
            data = mutated(random.choice(copies), random, trees)
            (folder / f"{number}.jsonl").write_bytes(data)
        collection = read_all([folder, *sound])
        assert observed(collection) >= observed(alone)
        for run in alone.runs:
            assert run in collection.runs
        report = build(collection, current)
        after = rated(report, machines)
        assert after.keys() == before.keys()
        for name, one in before.items():
            assert same(one, after[name]), name
        stream = io.StringIO()
        print_matrix(report, Console(file=stream, width=120))
        assert clean(stream.getvalue()) == stream.getvalue()
        assert len(report.problems) < 60
        matrix_markdown(report)
        if groups % 4 == 0:
            write_site(report, folder / "site")
        shutil.rmtree(folder)
        groups += 1
        read += len({run.path for run in collection.runs}) - len(sound)
        refused += bool(collection.problems)

    group()
    # Mutations that are all refused, or all read, would show nothing.
    assert groups == GROUPS
    assert read > GROUPS * GROUP // 3
    assert refused == GROUPS
