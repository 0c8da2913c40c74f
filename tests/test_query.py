"""`compat query`: the documented tables, from files, Parquet and object stores."""

from __future__ import annotations

import csv
import io
import json
import re
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest
from measured import case, report, run, whole, write

from compat.commands.main import main
from compat.judge import packing
from compat.judge.problems import Problems, ResultsError
from compat.judge.remote import Remote, fetch
from compat.judge.results import Collection
from compat.report.querying import ask, database
from compat.report.relation_rows import rows
from compat.report.relations import RELATIONS

FP32, INT8 = case("cpu-torch", "fp32"), case("openvino-cpu", "int8-dynamic")
ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Two runs of one machine, of which the later counts, and a packed one of another."""
    pytest.importorskip("duckdb")
    target = tmp_path / "results"
    write(
        target,
        run({FP32: whole(FP32, rtf=0.2)}),
        run(
            {FP32: whole(FP32, rtf=0.1, time="2026-11-21T10:00:00+02:00"), INT8: whole(INT8)},
            name="20261121T100000Z-bbbbbb",
        ),
        run({FP32: whole(FP32, rtf=0.4)}, "Second", "20261120T100000Z-cccccc"),
    )
    plain = target / "20261120T100000Z-cccccc.main.jsonl"
    plain.with_name(f"{plain.name}{packing.SUFFIX}").write_bytes(packing.pack(plain.read_bytes()))
    plain.unlink()
    return target


def asked(capsys: pytest.CaptureFixture[str], *words: str) -> Any:
    assert main(["query", *words, "--format", "json"]) == 0
    return json.loads(capsys.readouterr().out)


def test_every_table_from_plain_and_packed_files(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (counted,) = asked(
        capsys,
        "select (select count(*) from runs) runs, (select count(*) from machines) machines, "
        "(select count(*) from cases) cases, (select count(*) from cells) cells, "
        "(select count(*) from observations) observations",
        str(folder),
    )
    assert counted == {"runs": 3, "machines": 2, "cases": 3, "cells": 3, "observations": 24}
    found = asked(
        capsys,
        "select machine, rtf, counts, measured_at, numbers->>'$.median_s' as said "
        "from observations where check_name = 'latency.task' and case_id like '%fp32' order by rtf",
        str(folder),
    )
    assert [row["rtf"] for row in found] == [0.1, 0.2, 0.4]
    assert [row["counts"] for row in found] == [True, False, True]
    # In UTC, whatever zone was written.
    assert found[0]["measured_at"] == "2026-11-21 08:00:00" and found[0]["said"] == "1.0"
    (best,) = asked(
        capsys,
        "select target, rating from cells where best and rtf < 0.15 and hardware = 'cpu'",
        str(folder),
    )
    assert best == {"target": "cpu-torch", "rating": "High"}


@pytest.mark.parametrize("name", RELATIONS)
def test_every_column_is_documented_and_filled(name: str) -> None:
    lines = run({FP32: whole(FP32)}, own=("corpus",))
    collection = Collection((lines,))
    found = list(rows(collection, report(lines))[name])
    assert found and all(set(row) == set(RELATIONS[name].columns) for row in found)
    text = (ROOT / "docs" / "results.md").read_text(encoding="utf-8")
    table = re.search(rf"\| `{name}` \| [^:]*:([^\n]*)", text)
    assert table and set(re.findall("`([a-z_]+)`", table[1])) == set(RELATIONS[name].columns)


def test_parquet_is_written_and_read_again_beside_files(
    folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    tables = tmp_path / "tables"
    assert main(["query", "--export", str(tables), str(folder)]) == 0
    assert capsys.readouterr().out.count(".parquet") == len(RELATIONS)
    question = "select machine, case_id, rtf, level, numbers from observations order by all"
    assert asked(capsys, question, str(tables)) == asked(capsys, question, str(folder))
    more = write(tmp_path / "more", run({INT8: whole(INT8)}, "Third", "20261122T100000Z-dddddd"))
    (both,) = asked(capsys, "select count(*) n from observations", str(tables), str(more))
    assert both == {"n": 30}
    (tables / "cells.parquet").write_bytes(b"PAR1 no more")
    assert main(["query", "select 1", str(tables)]) == 3
    assert "cells.parquet is no relation of results" in capsys.readouterr().err


def test_forms_of_an_answer(folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch) -> None:
    monkeypatch.setenv("COLUMNS", "80")
    question = "select case_id, rtf from observations where rtf is not null order by rtf"
    assert main(["query", question, str(folder), "--limit", "2"]) == 0
    out = capsys.readouterr().out
    assert out.splitlines()[1].split() == ["whisper-tiny@pretrained/cpu-torch/fp32", "0.1"]
    assert "4 rows, of which 2 are shown" in out
    assert main(["query", question, str(folder), "--format", "csv"]) == 0
    table = list(csv.reader(io.StringIO(capsys.readouterr().out)))
    assert table[0] == ["case_id", "rtf"] and len(table) == 5
    assert main(["query", question, str(folder), "--format", "markdown"]) == 0
    assert "| whisper-tiny\\@pretrained/cpu-torch/fp32 | 0.1 |" in capsys.readouterr().out
    # What is too wide stands one column a line.
    assert main(["query", "select * from observations limit 1", str(folder)]) == 0
    out = capsys.readouterr().out
    assert out.startswith("row 1\n  run: ") and max(map(len, out.splitlines())) <= 80


def test_mistakes_and_absence_have_a_remedy(
    folder: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    assert main(["query", "select nothing from nowhere", str(folder)]) == 3
    assert "names the tables and columns" in capsys.readouterr().err
    assert main(["query"]) == 0
    assert "matrix_row VARCHAR" in capsys.readouterr().out
    monkeypatch.setitem(sys.modules, "duckdb", None)
    assert main(["query", "select 1", str(folder)]) == 3
    assert "pip install 'audio-compat[query]'" in capsys.readouterr().err


def test_hostile_results_load_and_are_escaped(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pytest.importorskip("duckdb")
    evil = case("cpu-\x1b[2J'); drop table runs; --", "fp32")
    lines = whole(evil, rtf=0.1)
    lines[0] = msgspec.structs.replace(
        lines[0],
        check="mine.question",
        check_version=2**62,
        reason="a\x00b\x1b[31m",
        remedy="=cmd|' /C calc'!A0",
        values={"huge": 10**400, "large": 1e308, "deep": [[[[[[{"a": "\x00"}]]]]]], "": None},
        time="2026-W47-5T10:00:00",
    )
    about = run({evil: lines}, versions={"x\x00": "'", "scorer": "2"})
    write(tmp_path, about)
    connection = database(rows(Collection((about,)), report(about)))
    _, _, found = ask(connection, "select reason, numbers from observations where reason <> ''")
    assert found[0][0] == "a\x00b\x1b[31m" and json.loads(found[0][1])["huge"] == 10**400
    assert main(["query", "select target, reason, recipe from observations", str(tmp_path)]) == 0
    out = capsys.readouterr().out
    assert "\x1b" not in out and "\x00" not in out and "drop table runs" in out


def test_a_store_of_fsspec_is_read(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The file system in memory: no server, and the whole path through fsspec."""
    import fsspec

    store = fsspec.filesystem("memory")
    for path in folder.iterdir():
        store.pipe_file(f"/bucket/results/{path.name}", path.read_bytes())
    store.pipe_file("/bucket/results/notes.txt", b"no results")
    store.pipe_file("/bucket/other/../evil.jsonl", b"{}")
    try:
        (counted,) = asked(capsys, "select count(*) n from observations", "memory://bucket/results")
        assert counted == {"n": 24}
        (one,) = sorted(folder.glob("*bbbbbb*"))
        (counted,) = asked(
            capsys, "select count(*) n from runs", f"memory://bucket/results/{one.name}"
        )
        assert counted == {"n": 1}
        assert main(["report", "memory://bucket/results", "--no-site"]) == 0
        assert "whisper-tiny@pretrained" in capsys.readouterr().out
        assert main(["publish", "memory://bucket/results"]) == 3
        assert main(["query", "select 1", "memory://bucket/nothing"]) == 3
        assert "no results below memory://bucket/nothing" in capsys.readouterr().err
    finally:
        store.rm("/bucket", recursive=True)


def test_a_store_is_bounded_and_names_nothing_here(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Names that lead elsewhere, and files of any size: neither leaves its folder or its bounds."""
    import fsspec

    from compat.judge import remote

    store = fsspec.filesystem("memory")
    store.store["/bad/..\\..\\up.jsonl"] = store.store["/bad/a b\n.jsonl"] = None
    store.store.clear()
    store.pipe_file("/bad/a b\n.jsonl", b"x" * 2000)
    try:
        monkeypatch.setattr(remote, "MAX_FILE", 1000)
        problems = Problems()
        target = fetch(Remote("memory://bad"), tmp_path, problems)
        (file,) = [path for path in target.rglob("*") if path.is_file()]
        assert file.name == "a_b_.jsonl" and file.stat().st_size == 1001
        assert "of which the first are read" in problems.lines()[0]
        monkeypatch.setattr(remote, "MOST_FILES", 0)
        with pytest.raises(ResultsError, match="more than 0 files"):
            fetch(Remote("memory://bad"), tmp_path, problems)
        with pytest.raises(ResultsError, match="cannot be read"):
            fetch(Remote("nosuch://bucket"), tmp_path, problems)
    finally:
        store.store.clear()


@pytest.fixture
def s3(monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """A server that speaks as S3 does."""
    server = pytest.importorskip("moto.server", reason="moto: the extra `test-s3` brings it")
    pytest.importorskip("s3fs")
    for name in ("AWS_ACCESS_KEY_ID", "AWS_SECRET_ACCESS_KEY"):
        monkeypatch.setenv(name, "test")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1")
    monkeypatch.setenv("no_proxy", "127.0.0.1")
    running = server.ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    running.start()
    host, port = running.get_host_and_port()
    address = f"http://{host}:{port}"
    monkeypatch.setenv("AWS_ENDPOINT_URL", address)
    yield address
    running.stop()


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::ResourceWarning")
def test_results_in_s3(s3: str, folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    import s3fs

    s3fs.S3FileSystem.clear_instance_cache()
    store = s3fs.S3FileSystem(endpoint_url=s3)
    store.mkdir("evidence")
    for path in folder.iterdir():
        store.put_file(str(path), f"evidence/results/here/{path.name}")
    (counted,) = asked(capsys, "select count(*) n from observations", "s3://evidence/results")
    assert counted == {"n": 24}
    assert main(["query", "select 1", "s3://nobody/results"]) == 3
    assert "s3://nobody/results" in capsys.readouterr().err
