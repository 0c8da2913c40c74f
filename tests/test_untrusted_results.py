"""Results files from anywhere: none ends a report, steers a terminal or hides what is sound."""

from __future__ import annotations

import bz2
import codecs
import gzip
import json
import lzma
import os
import re
import socket
import stat
from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec
import pytest
from backports import zstd
from small_results import facts, header

from compat.commands import main as command
from compat.contract.untrusted import LARGEST, clean
from compat.judge import packing, result_files, results
from compat.judge.results import (
    Collection,
    Line,
    Observation,
    Planned,
    ResultsError,
    read,
    read_all,
)
from compat.metrics.timing import crowding
from compat.report import build, write_site
from compat.report.publish import publish

ROOT = Path(__file__).resolve().parents[1]
MACHINE = "c4d1e09f77aa2b10"
CASE = facts()
CHECKS = ("support.loads", "accuracy.numerics", "latency.task", "robustness.stress")


def seen(check: str = "support.loads", **more: Any) -> Observation:
    about = {"check_version": 1, "status": "passed", "level": "strict"}
    return Observation(case=CASE.id, check=check, **{**about, **more})


def lines(*more: Line, run: str = "sound", machine: str = MACHINE) -> list[bytes]:
    """A run of one case, and what a test adds to it."""
    first = header(run=run, machine=machine, profile="core")
    every = (first, Planned(case=CASE, checks=CHECKS), *map(seen, CHECKS), *more)
    return [msgspec.json.encode(line) for line in every]


def written(path: Path, *more: Line, **about: str) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(b"\n".join(lines(*more, **about)) + b"\n")
    return path


def checks_of(collection: Collection) -> list[str]:
    return [one.check for run in collection.runs for one in run.observations]


def shown(capsys: pytest.CaptureFixture[str], folder: Path, site: Path | None = None) -> Any:
    """Return what `compat report` printed, and its status."""
    where = ["--no-site"] if site is None else ["--output", str(site)]
    status = command.main(["report", str(folder), *where])
    printed = capsys.readouterr()
    return printed.out, printed.err, status


# Files that are none ---------------------------------------------------------------------------


def to_itself(path: Path) -> None:
    path.symlink_to(path)


def nowhere(path: Path) -> None:
    path.symlink_to(path.with_name("gone"))


def endless(path: Path) -> None:
    path.symlink_to("/dev/zero")


def a_socket(path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as one:
        # A short name: sockets have a limit of their own.
        here = Path.cwd()
        os.chdir(path.parent)
        try:
            one.bind(path.name)
        finally:
            os.chdir(here)


@pytest.mark.parametrize("make", [to_itself, nowhere, os.mkfifo, endless, a_socket])
@pytest.mark.parametrize("directly", [False, True])
def test_only_regular_files_are_opened(
    tmp_path: Path,
    make: Callable[[Path], None],
    directly: bool,
    capsys: pytest.CaptureFixture[str],
) -> None:
    written(tmp_path / "in/sound.jsonl")
    make(tmp_path / "in/x.jsonl")
    collection = read_all([tmp_path / "in", *([tmp_path / "in/x.jsonl"] if directly else [])])
    assert checks_of(collection) == list(CHECKS)
    (problem,) = collection.problems
    assert "x.jsonl" in problem
    assert re.search(r"Restore it|Move it", problem)
    result = publish([tmp_path / "in"], tmp_path / "reports")
    assert len(result.published) == 1
    assert "x.jsonl" in result.rejected[0]
    # Alone it is no success, and an earlier site stays.
    status = command.main(
        ["report", str(tmp_path / "in/x.jsonl"), "--output", str(tmp_path / "site")]
    )
    assert status == 3
    assert "x.jsonl" in capsys.readouterr().err
    assert not (tmp_path / "site").exists()


def test_links_to_files_are_followed_and_loops_of_folders_end(tmp_path: Path) -> None:
    path = written(tmp_path / "elsewhere/sound.jsonl")
    folder = tmp_path / "in"
    (folder / "named.jsonl").mkdir(parents=True)
    (folder / "named.jsonl/up").symlink_to(folder)
    (folder / "a.jsonl").symlink_to(path)
    (folder / "b.jsonl").symlink_to("a.jsonl")
    written(folder / "named.jsonl/inside.jsonl", run="inside")
    collection = read_all([folder])
    assert sorted(run.header.run for run in collection.runs) == ["inside", "sound"]
    assert collection.problems == ()


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root reads everything")
def test_what_may_not_be_read_is_named(tmp_path: Path) -> None:
    written(tmp_path / "sound.jsonl")
    written(tmp_path / "mine.jsonl").chmod(0)
    written(tmp_path / "closed/x.jsonl").parent.chmod(0)
    try:
        collection = read_all([tmp_path])
    finally:
        (tmp_path / "closed").chmod(stat.S_IRWXU)
    assert checks_of(collection) == list(CHECKS)
    named = " ".join(collection.problems)
    assert "mine.jsonl: Permission denied" in named
    assert "cannot list" in named


def test_a_file_that_disappears_after_it_was_listed_is_named(tmp_path: Path) -> None:
    written(tmp_path / "a.jsonl")
    written(tmp_path / "b.jsonl", run="gone")

    def listed() -> Any:
        yield tmp_path
        # What stands in the first folder was listed by now.
        (tmp_path / "b.jsonl").unlink(missing_ok=True)

    problems = result_files.Problems()
    paths = list(result_files.find(listed(), problems))
    assert len(paths) == 2
    with pytest.raises(ResultsError, match=r"cannot read .*b\.jsonl: No such file"):
        read(paths[1])


# How a file may be written ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mark", "encoding"),
    [
        (b"", "utf-8"),
        (codecs.BOM_UTF8, "utf-8"),
        (codecs.BOM_UTF16_LE, "utf-16-le"),
        (codecs.BOM_UTF16_BE, "utf-16-be"),
        (codecs.BOM_UTF32_LE, "utf-32-le"),
        (codecs.BOM_UTF32_BE, "utf-32-be"),
    ],
)
@pytest.mark.parametrize("name", ["x.jsonl", "X.JSONL", "x.Jsonl.GZ", "packed.jsonl"])
@pytest.mark.parametrize("ending", ["\n", "\r\n", "\r"])
def test_every_encoding_suffix_and_line_ending_is_read(
    tmp_path: Path, mark: bytes, encoding: str, name: str, ending: str
) -> None:
    text = ending.join(line.decode() for line in lines(seen("own.x", reason="日本 🎵"))) + ending
    data = mark + text.encode(encoding)
    packed = name not in ("x.jsonl", "X.JSONL")
    (tmp_path / name).write_bytes(gzip.compress(data) if packed else data)
    collection = read_all([tmp_path])
    assert collection.problems == ()
    assert checks_of(collection) == [*CHECKS, "own.x"]
    assert collection.runs[0].observations[-1].reason == "日本 🎵"
    # What is published is UTF-8, whatever it came as.
    (path,) = publish([tmp_path], tmp_path / "reports").published
    assert json.loads(zstd.decompress(path.read_bytes()).splitlines()[0])["machine"] == MACHINE


def test_a_mark_between_joined_files_is_no_fault(tmp_path: Path) -> None:
    first, second = b"\n".join(lines()), b"\n".join(lines(run="second"))
    data = b"\n".join((codecs.BOM_UTF8 + first, b"", codecs.BOM_UTF8 + second))
    (tmp_path / "x.jsonl").write_bytes(data)
    collection = read_all([tmp_path])
    assert collection.problems == ()
    assert len(collection.runs) == 2


@pytest.mark.parametrize("encoding", ["utf-16-le", "utf-16-be"])
def test_a_wide_text_cut_at_any_byte_keeps_its_other_lines(tmp_path: Path, encoding: str) -> None:
    mark = codecs.BOM_UTF16_LE if encoding == "utf-16-le" else codecs.BOM_UTF16_BE
    data = mark + b"\n".join(lines(seen("own.x", reason="🎵"))).decode().encode(encoding)
    for cut in range(1, 12):
        (tmp_path / "x.jsonl").write_bytes(data[:-cut])
        collection = read_all([tmp_path])
        assert checks_of(collection)[: len(CHECKS)] == list(CHECKS)
        assert len(collection.problems) == 1


@pytest.mark.parametrize("suffix", [".xz", ".BZ2", ".zip"])
def test_other_packings_are_named_not_ignored(tmp_path: Path, suffix: str) -> None:
    written(tmp_path / "sound.jsonl")
    (tmp_path / f"x.jsonl{suffix}").write_bytes(b"anything")
    (problem,) = read_all([tmp_path]).problems
    assert f"x.jsonl{suffix} is packed, and only gzip and Zstandard are read. Unpack" in problem
    assert problem in publish([tmp_path], tmp_path / "reports").rejected


PACKERS = {"gz": lambda data: gzip.compress(data, 1), "zst": packing.pack}


@pytest.mark.parametrize("suffix", PACKERS)
def test_damaged_packing_keeps_what_came_before(tmp_path: Path, suffix: str) -> None:
    many = [seen(f"own.{number}", reason=os.urandom(400).hex()) for number in range(5000)]
    data = PACKERS[suffix](b"\n".join(lines(*many)))
    path = tmp_path / f"x.jsonl.{suffix}"
    path.write_bytes(data[: len(data) // 2])
    collection = read_all([tmp_path])
    assert len(checks_of(collection)) > 1000
    assert any("cannot be unpacked to its end" in one for one in collection.problems)
    flipped = bytearray(data)
    flipped[len(data) // 2] ^= 255
    path.write_bytes(flipped)
    assert any("cannot be unpacked to its end" in one for one in read_all([tmp_path]).problems)
    path.write_bytes(data[:4] + b"nonsense")
    written(tmp_path / "sound.jsonl")
    assert checks_of(read_all([tmp_path])) == list(CHECKS)


@pytest.mark.parametrize("suffix", PACKERS)
def test_what_follows_packed_data_is_named_and_costs_itself(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"x.jsonl.{suffix}"
    data = PACKERS[suffix](b"\n".join(lines()) + b"\n")
    path.write_bytes(data + b"garbage")
    collection = read_all([tmp_path])
    assert checks_of(collection) == list(CHECKS)
    assert "cannot be unpacked to its end" in collection.problems[0]
    assert not publish([tmp_path], tmp_path / "reports").published
    # Packed files that are joined are one.
    path.write_bytes(data + PACKERS[suffix](b"\n".join(lines(run="second"))))
    collection = read_all([tmp_path])
    assert (len(collection.runs), collection.problems) == (2, ())


@pytest.mark.parametrize("suffix", PACKERS)
def test_a_bomb_has_a_short_story(tmp_path: Path, suffix: str) -> None:
    written(tmp_path / "sound.jsonl")
    path = tmp_path / f"bomb.jsonl.{suffix}"
    bomb = PACKERS[suffix](b"0" * (result_files.MAX_FILE + 1))
    path.write_bytes(bomb)
    assert len(bomb) < 2**20
    collection = read_all([tmp_path])
    assert checks_of(collection) == list(CHECKS)
    (problem,) = collection.problems
    assert re.fullmatch(
        rf"\S*bomb\.jsonl\.{suffix} has [0-9.]+ [KM]iB, and unpacks to more than 64 MiB without "
        r"the end of a line, so it is no results file\. Delete it, or restore it .*",
        problem,
    )


def test_a_window_beyond_all_files_is_not_granted(tmp_path: Path) -> None:
    """The frame of a few bytes asks its reader for 128 MiB."""
    kind = zstd.CompressionParameter
    options = {kind.window_log: 27, kind.content_size_flag: 0}
    one = zstd.ZstdCompressor(options=options)
    data = one.compress(b"\n".join(lines())) + one.flush()
    (tmp_path / "x.jsonl.zst").write_bytes(data)
    collection = read_all([tmp_path])
    assert collection.runs == ()
    assert "cannot be unpacked to its end" in collection.problems[0]


@pytest.mark.parametrize("name", ["x.jsonl", "x.jsonl.gz", "x.jsonl.zst"])
def test_the_content_decides_what_a_file_is(tmp_path: Path, name: str) -> None:
    data = b"\n".join(lines()) + b"\n"
    for packed in (data, gzip.compress(data), packing.pack(data)):
        (tmp_path / name).write_bytes(packed)
        assert checks_of(read_all([tmp_path])) == list(CHECKS)
    for packed, said in (
        (lzma.compress(data), "is packed by xz, and only gzip and Zstandard are read. Unpack it."),
        (bz2.compress(data), "is packed by bzip2"),
        (gzip.compress(packing.pack(data)), "is packed twice. Unpack it once."),
    ):
        (tmp_path / name).write_bytes(packed)
        (problem,) = read_all([tmp_path]).problems
        assert f"{name} {said}" in problem


# Lines that cannot be used ---------------------------------------------------------------------

DEEP = b"[" * 40 + b"]" * 40
VERY_DEEP = b"[" * 100_000 + b"]" * 100_000


def odd(values: bytes, more: bytes = b"") -> bytes:
    """A line whose values or fields a test chooses."""
    plain = msgspec.json.encode(seen("own.odd"))
    return plain.replace(b'"values":{}', b'"values":' + values)[:-1] + more + b"}"


BROKEN = {
    "beyond float64": odd(b'{"a":1e400}'),
    "NaN": odd(b'{"a":NaN}'),
    "Infinity": odd(b'{"a":-Infinity}'),
    "half a surrogate pair": odd(b'{"a":"\\ud800"}'),
    "no UTF-8": odd(b'{"a":"\xff"}'),
    "a surrogate in UTF-8": odd(b'{"a":"\xed\xa0\x80"}'),
    "NUL": b"\x00" * 50,
    "deep": odd(b'{"a":' + DEEP + b"}"),
    "very deep": odd(b'{"a":' + VERY_DEEP + b"}"),
    "deep predictions": odd(b"{}", b',"predictions":[' + DEEP + b"]"),
    "deep where it is not known": odd(b"{}", b',"new":' + VERY_DEEP),
    "digits without end": odd(b'{"a":' + b"9" * 100_000 + b"}"),
    "more threads than there are": odd(b"{}", b',"threads":%d' % (2**70)),
    "cut short": odd(b"{}")[:-9],
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_bad_line_costs_itself(tmp_path: Path, name: str) -> None:
    sound = lines(seen("own.after"))
    (tmp_path / "x.jsonl").write_bytes(b"\n".join((*sound[:4], BROKEN[name], *sound[4:])))
    collection = read_all([tmp_path])
    assert checks_of(collection) == [*CHECKS, "own.after"]
    (problem,) = collection.problems
    assert problem.startswith("x.jsonl:5: ")
    assert len(problem) <= 400


ODD = {
    "brackets in words": odd(b'{"a":"]]}}' + b"[{" * 200 + b'"}'),
    "a key twice": odd(b'{"a":1,"a":2}'),
    "beyond 64 bits": odd(b'{"a":%d,"peak_bytes":-%d}' % (2**70, 2**300)),
    "4,000 digits": odd(b'{"a":' + b"9" * 4000 + b"}"),
    "the smallest": odd(b'{"a":5e-324,"median_s":5e-324,"interval_s":[5e-324,5e-324]}'),
    "nested": odd(b'{"a":' + b"[" * 20 + b"]" * 20 + b"}"),
}


@pytest.mark.parametrize("name", ODD)
def test_an_odd_line_is_read(tmp_path: Path, name: str) -> None:
    (tmp_path / "x.jsonl").write_bytes(b"\n".join((*lines(), ODD[name])))
    collection = read_all([tmp_path])
    assert collection.problems == ()
    write_site(build(collection), tmp_path / "site")


# Limits ----------------------------------------------------------------------------------------


def test_a_line_has_a_limit(tmp_path: Path) -> None:
    long = odd(b'{"a":"' + b"x" * (50 * 2**20) + b'"}')
    (tmp_path / "x.jsonl").write_bytes(b"\n".join((*lines(), long, *lines(run="after"))))
    collection = read_all([tmp_path])
    assert checks_of(collection) == [*CHECKS, *CHECKS]
    (problem,) = collection.problems
    assert "x.jsonl:7: the line has more than 16 MiB. Measure its case again" in problem


@pytest.mark.parametrize(
    "line",
    [
        seen("own.x", samples={"seconds": [0.5] * 500_000}),
        seen("own.x", values={f"v{number}": number for number in range(500_000)}),
        seen("own.x", values={"empty": [[]] * 500_000}),
        seen("own.x", predictions=[[]] * 1_200_000),
        Planned(case=CASE, checks=("a.b",) * 500_000),
    ],
)
def test_an_observation_has_a_limit(tmp_path: Path, line: Line) -> None:
    written(tmp_path / "x.jsonl", line)
    collection = read_all([tmp_path])
    assert checks_of(collection) == list(CHECKS)
    (problem,) = collection.problems
    assert re.search(r"more than 1[0,]+ values.*Measure its case again", problem)


def test_predictions_and_words_have_room(tmp_path: Path) -> None:
    big = seen("own.x", predictions=[0.5] * 500_000, reason="[,{," * 60_000)
    collection = read_all([written(tmp_path / "x.jsonl", big)])
    assert collection.problems == ()
    assert checks_of(collection) == [*CHECKS, "own.x"]


def test_what_is_just_within_the_limits_is_shown_in_part(tmp_path: Path) -> None:
    values = {f"v{number}": number for number in range(40_000)}
    big = seen(
        "support.loads", values=values, samples={"s": [0.5] * 40_000}, time="2026-11-21T12:00:00Z"
    )
    collection = read_all([written(tmp_path / "x.jsonl", big)])
    assert collection.problems == ()
    report = build(collection)
    write_site(report, tmp_path / "site")
    (one,) = report.configurations
    page = (tmp_path / "site/configurations" / f"{one.anchor}.html").read_text()
    assert page.count("more, in data.json") == 2
    assert len(page) < 1_000_000
    assert b'"v39999"' in (tmp_path / "site/data.json").read_bytes()


@pytest.mark.parametrize("packed", [False, True])
def test_a_file_has_a_limit_and_keeps_what_is_within(tmp_path: Path, packed: bool) -> None:
    path = tmp_path / ("x.jsonl.gz" if packed else "x.jsonl")
    with gzip.open(path, "wb", 1) if packed else path.open("wb") as file:
        file.write(b"\n".join(lines()) + b"\n")
        for _ in range(result_files.MAX_FILE // 2**20 + 1):
            file.write(b" " * (2**20 - 1) + b"\n")
        file.write(msgspec.json.encode(seen("own.late")) + b"\n")
    collection = read_all([path])
    assert checks_of(collection) == list(CHECKS)
    (problem,) = collection.problems
    said = "and unpacks to more than 64 MiB" if packed else "holds more than 64 MiB"
    assert said in problem
    assert "Split it at the end of a line" in problem


def test_a_file_without_end_is_no_run(tmp_path: Path) -> None:
    """A terabyte of zeros that takes no room on the disk."""
    with (tmp_path / "x.jsonl").open("wb") as file:
        file.truncate(2**40)
    collection = read_all([tmp_path])
    assert collection.runs == ()
    assert "x.jsonl" in collection.problems[0]


def test_lines_have_a_limit(tmp_path: Path) -> None:
    path = written(tmp_path / "x.jsonl")
    with path.open("ab") as file:
        file.write(b"\n" * 30_000_000)
    collection = read_all([path])
    assert checks_of(collection) == list(CHECKS)
    assert "holds more than 100,000 lines" in collection.problems[0]


# Numbers ---------------------------------------------------------------------------------------

HUGE = [1e308, -1e308, 1.7976931348623157e308, 1e101, LARGEST, 2**1023, 10**4000]


@pytest.mark.parametrize("huge", HUGE, ids=lambda huge: str(huge)[:9])
def test_huge_numbers_break_nothing(
    tmp_path: Path, huge: float, capsys: pytest.CaptureFixture[str]
) -> None:
    """Everywhere that a number may stand, on a processor and on what is compared with it."""
    values: dict[str, Any] = {
        **dict.fromkeys(("median_s", "rtf", "rtf_upper", "rtfx", "interval_coverage"), huge),
        **dict.fromkeys(("others_busy", "processors", "share", "wer", "x_cosine"), huge),
        **dict.fromkeys(("peak_bytes", "model_bytes", "snr_db", "items_per_s", "x"), huge),
        "interval_s": [1e-5, huge],
        "hard": {"wer": huge, "wer_interval": [huge, huge], "degradation": huge, "snr_db": huge},
        "batches": {"1": {"items_per_s": huge}},
        "recommended": {"batch": huge, "lowest_batch": huge},
    }
    small = 1e308 if isinstance(huge, int) else huge
    gpu = msgspec.structs.replace(
        CASE,
        id="whisper-tiny@seeded/cuda-torch/fp32",
        hardware="cuda",
        target="cuda-torch",
        on_host_cpu=False,
        parameters=small,
    )
    limit = {"metric": "x", "strict": small, "relaxed": small, "direction": "at_most"}
    spoilt: list[Any] = [Planned(case=gpu, checks=(*CHECKS, "accuracy.task"))]
    for about in (CASE, gpu):
        for check in (*CHECKS, "accuracy.task", "latency.throughput", "memory.peak"):
            one = seen(
                check, time="2026-11-21T12:00:00Z", seconds=small, samples={"seconds": [small] * 3}
            )
            judged = results.Limit(value=small, level="relaxed", reason="", **limit)  # type: ignore[arg-type]
            spoilt.append(
                msgspec.structs.replace(one, case=about.id, limits=(judged,), values=values)
            )
    path = written(tmp_path / "in/x.jsonl", *spoilt)
    assert read(path).problems == ()
    out, err, status = shown(capsys, tmp_path / "in", tmp_path / "site")
    assert (err, status) == ("", 0)
    assert "Whisper" in out
    text = (tmp_path / "site/MATRIX.md").read_text()
    for page in (tmp_path / "site").rglob("*.html"):
        text += re.sub(r"<script.*?</script>", "", page.read_text(), flags=re.DOTALL)
    assert not re.search(r"\d{60}", text.replace(",", "")), "nobody reads a number of 60 digits"


@pytest.mark.parametrize(
    "more",
    [
        {"seconds": 1e308},
        {"samples": {"batch_4_seconds": [0.1, 1e308]}},
        {"values": {"median_s": 1e308}},
        {"values": {"interval_s": [0.1, 10**400]}},
        {"values": {"batches": {"1": {"load_s": -1e9}}}},
    ],
    ids=str,
)
def test_a_time_that_nobody_can_wait_for_is_not_published(
    tmp_path: Path, more: dict[str, Any]
) -> None:
    path = written(tmp_path / "x.jsonl", seen("own.x", **more))
    (rejected,) = publish([path], tmp_path / "reports").rejected
    assert re.search(r"1 observation with a time beyond 30 days \(own\.x: .* is \S+ s\)", rejected)
    fine = {"values": {"items_per_s": 1e9, "load_s": 1e5}, "seconds": 1e5}
    path = written(tmp_path / "y.jsonl", seen("own.x", **fine), run="fine")
    assert publish([path], tmp_path / "reports").rejected == ()


def test_an_interval_that_ends_before_it_begins_is_none(tmp_path: Path) -> None:
    """Its end may be 0, by which the processor's time would be divided."""
    gpu = msgspec.structs.replace(
        CASE,
        id="whisper-tiny@seeded/cuda-torch/fp32",
        hardware="cuda",
        target="cuda-torch",
        on_host_cpu=False,
    )
    good = seen("latency.task", values={"interval_s": [0.1, 0.2]}, time="2026-11-21T12:00:00Z")
    bad = seen("latency.task", values={"interval_s": [0.1, 0]}, time="2026-11-21T12:00:00Z")
    bad = msgspec.structs.replace(bad, case=gpu.id)
    path = written(tmp_path / "x.jsonl", good, Planned(case=gpu, checks=CHECKS), bad)
    (one,) = build(read_all([path])).cell("Whisper", "cuda").configurations
    assert one.figures.speed_up is None


@pytest.mark.parametrize(
    "value", [10**400, float("nan"), "2", True, None], ids=lambda value: str(value)[:9]
)
def test_what_is_no_number_crowds_nobody(value: Any) -> None:
    assert crowding({"others_busy": value, "processors": 2}, 1) == ""
    assert crowding({"others_busy": 2.0, "processors": value}, 1) == ""
    assert crowding({"others_busy": 2.0, "processors": 2}, 10**400) == ""


# What is said of it ----------------------------------------------------------------------------


def test_ten_thousand_broken_files_are_told_in_a_few_lines(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    written(folder / "sound.jsonl")
    for number in range(10_000):
        (folder / f"{number:05}.jsonl").write_bytes(b"{}\n" if number % 10 else b"")
    out, err, status = shown(capsys, folder, tmp_path / "site")
    assert status == 0
    assert err == ""
    told = [line for line in out.splitlines() if line.startswith("! ")]
    assert 2 <= len(told) <= 8
    assert "00000.jsonl" in out.replace("\n", ""), "a long path is broken over lines"
    assert any("9,997 more files without a readable run header" in line for line in told)
    for name in ("index.html", "MATRIX.md", "summary.json", "data.json"):
        text = (tmp_path / "site" / name).read_text()
        assert "9,997 more files" in text
        assert text.count(".jsonl") < 20


def test_a_file_of_broken_lines_is_told_in_a_few(tmp_path: Path) -> None:
    path = tmp_path / "x.jsonl"
    path.write_bytes(b"\n".join((*lines(), *[b"{"] * 10_000)))
    told = read(path).problems
    assert len(told) == 4
    assert told[0].startswith("x.jsonl:7: ")
    assert told[-1] == "x.jsonl: and 9,997 more lines that are no sound JSON of a known kind"
    (rejected,) = publish([path], tmp_path / "reports").rejected
    assert "it cannot be read whole (x.jsonl:7:" in rejected


def test_many_cases_without_a_plan_are_told_in_a_few_lines(tmp_path: Path) -> None:
    strays = [msgspec.structs.replace(seen(), case=f"a@b/c/{number}") for number in range(2000)]
    told = build(read_all([written(tmp_path / "x.jsonl", *strays)])).problems
    assert len(told) == 4
    assert told[-1] == "and 1,997 more cases whose results cannot be attributed"


ESCAPES = "\x1b]0;title\x07\x1b[2J\x9b31m\u202e"


@pytest.mark.parametrize("broken", [True, False])
def test_no_name_of_a_file_steers_a_terminal(
    tmp_path: Path, broken: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    name = os.fsdecode(f"in/{ESCAPES}".encode() + b"\xff.jsonl")
    path = written(tmp_path / name)
    if broken:
        path.write_bytes(b"\n".join((*lines(), b"{\x1b[31m", b'{"kind":"\x1b[2J"}')))
    headless = path.with_name("headless" + path.name)
    headless.write_bytes(b"{}")
    for words in (
        ["report", str(tmp_path / "in"), "--output", str(tmp_path / "site")],
        ["report", str(headless), "--no-site"],
        ["report", str(tmp_path / ESCAPES), "--no-site"],
        ["publish", str(tmp_path / "in"), "--output", str(tmp_path / f"reports{ESCAPES}")],
        ["rescore", str(tmp_path / "in"), "--output", str(tmp_path / f"rescored{ESCAPES}")],
    ):
        command.main(words)
        printed = capsys.readouterr()
        text = printed.out + printed.err
        assert text.strip()
        assert clean(text) == text, repr(text)
    for page in (tmp_path / "site").rglob("*"):
        if page.suffix in (".html", ".md", ".svg"):
            assert clean(page.read_text(encoding="utf-8")) == page.read_text(encoding="utf-8")
    text = (tmp_path / "site/index.html").read_text()
    assert "headless" in text


def test_no_word_of_a_result_steers_a_terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    case = msgspec.structs.replace(
        CASE, id="whisper-nano@trained/cpu-torch/fp32", row=ESCAPES, recipe=ESCAPES, target=ESCAPES
    )
    one = msgspec.structs.replace(
        seen("support.loads", status="failed", level="failed", reason=ESCAPES, time=ESCAPES),
        case=case.id,
        values={ESCAPES: "\x7f"},
    )
    path = written(tmp_path / "x.jsonl", Planned(case=case, checks=CHECKS), one)
    for words in (["report", str(path), "--no-site"], ["show", case.id, str(path)]):
        assert command.main(words) == 0
        printed = capsys.readouterr()
        assert clean(printed.out) == printed.out, repr(printed.out)


# Exit statuses ---------------------------------------------------------------------------------


def test_unreadable_results_alone_are_no_success(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = tmp_path / "in"
    site = tmp_path / "site"
    written(folder / "a.jsonl")
    assert shown(capsys, folder, site)[2] == 0
    before = (site / "index.html").read_text()
    (folder / "b.jsonl").write_text("{}")
    out, err, status = shown(capsys, folder, site)
    assert status == 0, "what can be read is shown"
    assert "b.jsonl" in out
    before = (site / "index.html").read_text()
    assert "b.jsonl" in before
    (folder / "a.jsonl").write_text("")
    out, err, status = shown(capsys, folder, site)
    assert status == 3
    assert "a.jsonl" in err and "b.jsonl" in err
    assert "Mend what is named above" in err
    assert (site / "index.html").read_text() == before, "an earlier site stays"
    (folder / "a.jsonl").unlink()
    (folder / "b.jsonl").unlink()
    out, err, status = shown(capsys, folder, site)
    assert status == 3
    assert "Run `compat matrix`" in err


def test_a_bracket_in_a_word_costs_nothing_where_predictions_are_passed_over(
    tmp_path: Path,
) -> None:
    """Such a line is examined whole, as one that may be nested too deep."""
    one = msgspec.structs.replace(seen("support.loads"), reason="[31m", predictions=[{"a": 1}])
    written(tmp_path / "x.jsonl", one)
    (run,) = read_all([tmp_path], predictions=False).runs
    assert run.observations[-1].reason == "[31m" and run.observations[-1].predictions == []
