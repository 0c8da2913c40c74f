"""Older schemas: each migration says the same in the words of the next, and readers apply it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
from hypothesis import given
from hypothesis import strategies as st
from small_results import facts, header, observation

from compat.judge import packing
from compat.judge.migrations import (
    MIGRATIONS,
    SCHEMA_VERSION,
    in_current_schema,
    migrated,
    one_form_of_rows,
)
from compat.judge.results import read, read_all
from compat.report.publish import publish

FLAT = {"set": "clean", "item": "a", "truth": "six", "tokens": [1], "text": "sax", "level": 0.5}
NESTED = {
    "set": "clean",
    "item": "a",
    "truth": {"text": "six"},
    "prediction": {"tokens": [1], "text": "sax", "level": 0.5},
}


def old(*rows: Any) -> bytes:
    """A file as it was written by schema 1, before headers named a person's own inputs."""
    first = msgspec.to_builtins(header(schema=1))
    del first["own"]
    plan = {"kind": "planned", "case": msgspec.to_builtins(facts()), "checks": ["accuracy.task"]}
    one = msgspec.to_builtins(observation(check="accuracy.task", predictions=list(rows)))
    return b"".join(msgspec.json.encode(line) + b"\n" for line in (first, plan, one))


def test_every_older_schema_has_its_migration() -> None:
    assert sorted(MIGRATIONS) == list(range(1, SCHEMA_VERSION))


def test_rows_get_one_form_and_headers_name_what_is_own() -> None:
    line = {"kind": "observation", "predictions": [FLAT, NESTED, "odd", {"truth": 5}]}
    expected = {"kind": "observation", "predictions": [NESTED, NESTED, "odd", {"truth": 5}]}
    assert one_form_of_rows(line) == expected
    assert one_form_of_rows(expected) is expected
    assert one_form_of_rows({"kind": "run"}) == {"kind": "run", "own": []}
    assert one_form_of_rows({"kind": "run", "own": ["corpus"]})["own"] == ["corpus"]


TREES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(("kind", "truth", "predictions", "own")), inner)
    ),
)


@given(TREES, TREES)
def test_a_strangers_line_of_any_form_is_migrated_or_left(line: Any, schema: Any) -> None:
    migrated(line, schema)
    migrated(line, 1)


def test_old_files_are_read_as_new_ones(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(old(FLAT) + old(FLAT).replace(b"abcdef", b"newest"))
    runs = read_all([tmp_path]).runs
    assert [run.header.schema for run in runs] == [SCHEMA_VERSION] * 2
    assert [run.observations[0].predictions for run in runs] == [[NESTED]] * 2
    assert runs[0].header.own == ()


def test_a_file_of_several_schemas_is_read_part_by_part(tmp_path: Path) -> None:
    """A flat row below a current header is what a stranger wrote, and no old row."""
    now = msgspec.json.encode(header(run="now")) + b"\n"
    one = old(FLAT).splitlines(keepends=True)[2]
    (tmp_path / "x.jsonl").write_bytes(now + one + old(FLAT) + now + one)
    parts = {run.header.run: run.observations for run in read_all([tmp_path]).runs}
    assert [one.predictions for one in parts["now"]] == [[FLAT], [FLAT]]
    assert [one.predictions for one in parts[header().run]] == [[NESTED]]


def test_the_beginning_of_a_file_stays_its_beginning() -> None:
    data = old(FLAT, NESTED)
    ends = [number + 1 for number, byte in enumerate(data) if byte == 10]
    whole = in_current_schema(data)
    assert whole != data
    assert in_current_schema(whole) == whole
    for end in ends:
        assert whole.startswith(in_current_schema(data[:end]))
    odd = data.replace(b"\n", b"\r\n") + b'{"torn'
    assert in_current_schema(odd) == whole.replace(b"\n", b"\r\n") + b'{"torn'


def test_published_evidence_is_written_anew_once(tmp_path: Path) -> None:
    results = tmp_path / "reports/results" / header().machine
    results.mkdir(parents=True)
    source = tmp_path / "in.jsonl"
    source.write_bytes(old(FLAT))
    plain = results / f"{header().run}.main.jsonl"
    plain.write_bytes(old(FLAT))
    before = read(plain)
    packed = plain.with_name(f"{plain.name}.zst")
    said = publish([], tmp_path / "reports", dry_run=True)
    assert said.packed == (packed,)
    assert [path.name for path in results.iterdir()] == [plain.name], "nothing was written"
    # The same run, offered as it was measured, is what is published.
    result = publish([source], tmp_path / "reports")
    assert (result.packed, result.published, result.added) == ((packed,), (packed,), ())
    assert [path.name for path in results.iterdir()] == [packed.name]
    after = read(packed)
    assert (after.header, after.observations) == (before.header, before.observations)
    data = packed.read_bytes()
    assert publish([source], tmp_path / "reports").packed == ()
    assert packed.read_bytes() == data


def test_an_interrupted_renewal_is_ended_and_contradictions_stay(tmp_path: Path) -> None:
    results = tmp_path / "reports/results" / header().machine
    results.mkdir(parents=True)
    plain = results / f"{header().run}.main.jsonl"
    packed = plain.with_name(f"{plain.name}.zst")
    packed.write_bytes(packing.pack(in_current_schema(old(FLAT))))
    plain.write_bytes(old(FLAT))
    publish([], tmp_path / "reports")
    assert [path.name for path in results.iterdir()] == [packed.name]
    other = old(FLAT).replace(b'"passed"', b'"failed"')
    plain.write_bytes(other)
    publish([], tmp_path / "reports")
    assert plain.read_bytes() == other
    torn = results / "torn.main.jsonl"
    torn.write_bytes(old(FLAT)[:-9])
    publish([], tmp_path / "reports")
    assert torn.read_bytes() == old(FLAT)[:-9]
