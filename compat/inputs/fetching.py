"""Fetch a package: download its archive, compare its hash, and unpack its files.

Archives are read, never built, installed or executed: a wheel is a zip file and a source
distribution a tar file. pip downloads wheels, by its own settings of index, proxy and certificates.
pip would build a source distribution to find its dependencies, so this module downloads those from
the same indexes.
"""

from __future__ import annotations

import ast
import hashlib
import os
import shutil
import ssl
import subprocess
import sys
import tarfile
import tempfile
import urllib.request
import zipfile
from collections.abc import Callable, Iterator
from fnmatch import fnmatchcase
from html.parser import HTMLParser
from importlib.util import find_spec
from pathlib import Path, PurePosixPath
from typing import IO, Any
from urllib.parse import unquote, urljoin, urlsplit

from packaging.utils import canonicalize_name

from compat.contract.errors import CompatError
from compat.inputs.packages import Package, packages_folder

ALWAYS = ("*.dist-info/METADATA", "*.dist-info/*LICEN*", "PKG-INFO", "LICEN*")
"""Patterns of files that are unpacked from every archive: its metadata and its licence."""
PYPI = "https://pypi.org/simple"
TIMEOUT = 60.0
"""Seconds without an answer after which an index counts as unreachable."""
BLOCK = 1 << 20
"""Bytes that are copied at once."""


class FetchError(CompatError):
    """A package could not be fetched; nothing of it was left behind."""


def fetch(
    package: Package,
    archive: Path | None = None,
    again: bool = False,
    said: Callable[[str], None] = lambda line: None,
) -> Path:
    """Fetch a package into the user's cache, unless it is there, and return its folder.

    Args:
        package: the package to fetch.
        archive: the package's archive, if a person has it already.
        again: replace the package if it is there.
        said: called with a line of text on the progress.

    Raises:
        FetchError: the archive cannot be downloaded, is not the known one, or cannot be written.
    """
    from filelock import FileLock

    root = packages_folder()
    try:
        root.mkdir(parents=True, exist_ok=True)
        with FileLock(root / f".{package.name}.lock"):
            if package.here and not again:
                return package.folder
            # A temporary folder on the same file system, so that one rename completes the package.
            with tempfile.TemporaryDirectory(prefix=".fetching-", dir=root) as temporary:
                work = Path(temporary)
                if archive is None:
                    said(f"downloading {package.archive} ({package.bytes / 1e6:.1f} MB)")
                    archive = _download(package, work)
                _verify(package, archive)
                unpacked = _unpack(package, archive, work / "unpacked")
                if package.here:
                    package.folder.rename(work / "before")
                unpacked.rename(package.folder)
    except OSError as error:
        raise FetchError(
            f"cannot write the package {package.name} below {root}: {error}.",
            "Free some disk, make the folder writable, or name another with $COMPAT_PACKAGES.",
        ) from error
    return package.folder


# Archives ----------------------------------------------------------------------------------------


def _verify(package: Package, archive: Path) -> None:
    if not archive.is_file():
        raise FetchError(f"there is no archive {archive}.", "Check the path.")
    with archive.open("rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != package.sha256:
        raise FetchError(
            f"{archive.name} is not the archive that this project knows (sha256 {found[:12]}…, "
            f"expected {package.sha256[:12]}…).",
            f"It is damaged or another version: get {package.archive} again.",
        )


def _unpack(package: Package, archive: Path, into: Path) -> Path:
    """Write a package's needed files, its metadata and its licence into a folder; return it."""
    wanted = set(package.files)
    try:
        for name, file in _members(archive):
            patterns = [one for one in (*package.files, *ALWAYS) if fnmatchcase(name, one)]
            if not patterns:
                continue
            path = PurePosixPath(name)
            if path.is_absolute() or ".." in path.parts:
                raise FetchError(f"{archive.name} has a file {name!r} that lies outside of it.")
            target = into / path
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("wb") as written:
                shutil.copyfileobj(file, written, BLOCK)
            wanted -= set(patterns)
    except (zipfile.BadZipFile, tarfile.TarError, EOFError) as error:
        raise FetchError(
            f"{archive.name} is damaged: {error}.", f"Get {package.archive} again."
        ) from error
    if wanted:
        raise FetchError(
            f"{archive.name} has no {', '.join(sorted(wanted))}.",
            "Correct `files` of its entry in fixtures/packages.toml.",
        )
    return into


def _members(archive: Path) -> Iterator[tuple[str, IO[bytes]]]:
    """Yield name and content of each plain file; names in a tar file lose their root folder."""
    if archive.suffix == ".whl":
        with zipfile.ZipFile(archive) as wheel:
            for entry in wheel.infolist():
                if not entry.is_dir():
                    with wheel.open(entry) as file:
                        yield entry.filename, file
        return
    with tarfile.open(archive) as distribution:
        for member in distribution:
            content = distribution.extractfile(member) if member.isreg() else None
            if content is not None:
                yield member.name.partition("/")[2], content


# Downloads ---------------------------------------------------------------------------------------


def _download(package: Package, into: Path) -> Path:
    if find_spec("pip") is None:
        raise _not_to_be_had(package, "this environment has no pip (`python -m ensurepip`)")
    # Only the data of a wheel are needed, but pip would refuse one for another kind of machine.
    if package.archive.endswith("-any.whl"):
        _by_pip(package, into)
    else:
        _from_index(package, into)
    return into / package.archive


def _not_to_be_had(package: Package, why: str) -> FetchError:
    return FetchError(
        f"{package.distribution} {package.version} could not be downloaded: {why}.",
        "Check the network and pip's settings (`pip config list`), or get the archive "
        f"{package.archive} elsewhere and run `compat fetch {package.name} --archive FILE`.",
    )


def _by_pip(package: Package, into: Path) -> None:
    """Download a wheel by pip, which shows its progress if the output is a terminal."""
    pinned = into / "requirements.txt"
    pinned.write_text(
        f"{package.distribution}=={package.version} --hash=sha256:{package.sha256}\n", "utf-8"
    )
    command = [sys.executable, "-m", "pip", "download", "--no-deps", "--only-binary=:all:"]
    command += ["--require-hashes", "--no-input", "--disable-pip-version-check"]
    command += ["--dest", str(into), "--requirement", str(pinned)]
    if not sys.stdout.isatty():
        command.append("--quiet")
    # Without this, ``python -m`` could import files of the working folder.
    environment = {**os.environ, "PYTHONSAFEPATH": "1"}
    done = subprocess.run(command, stderr=subprocess.PIPE, text=True, env=environment, check=False)
    if done.returncode:
        raise _not_to_be_had(package, _complaint(done.stderr))
    if not (into / package.archive).is_file():
        raise _not_to_be_had(package, f"pip did not bring {package.archive}")


def _complaint(text: str) -> str:
    """Return the last error that pip printed, on one line."""
    if "DO NOT MATCH THE HASHES" in text:
        return "what the index has is not the archive that this project knows"
    errors = [line.removeprefix("ERROR: ") for line in text.splitlines() if "ERROR: " in line]
    lines = errors or text.split("\n")
    return lines[-1].strip().rstrip(".") or "pip said nothing"


def _from_index(package: Package, into: Path) -> None:
    """Download a file from the first of pip's indexes that lists it."""
    settings = _pip_settings()
    opener = _opener(settings)
    extra = settings.get("extra-index-url", "").split()
    failures: list[str] = []
    for index in (settings.get("index-url", PYPI), *extra):
        page = f"{index.rstrip('/')}/{canonicalize_name(package.distribution)}/"
        if page.startswith("file:"):
            page += "index.html"
        try:
            with opener.open(page, timeout=TIMEOUT) as answer:
                links = _links(answer.read().decode(), page)
            for link in links:
                if unquote(PurePosixPath(urlsplit(link).path).name) == package.archive:
                    _copy(opener, link, into / package.archive)
                    return
            failures.append(f"{package.archive} is not on an index that has the package")
        except (OSError, ValueError) as error:
            failures.append(str(error))
    raise _not_to_be_had(package, failures[0])


def _copy(opener: urllib.request.OpenerDirector, link: str, target: Path) -> None:
    with opener.open(link, timeout=TIMEOUT) as answer, target.open("wb") as file:
        shutil.copyfileobj(answer, file, BLOCK)


def _links(html: str, page: str) -> list[str]:
    """Return the addresses that a page of the simple repository API links to."""
    links: list[str] = []

    class Links(HTMLParser):
        def handle_starttag(self, tag: str, attributes: Any) -> None:
            address = dict(attributes).get("href")
            if tag == "a" and address:
                links.append(urljoin(page, address))

    Links().feed(html)
    return links


def _pip_settings() -> dict[str, str]:
    """Return pip's settings by name; the environment's take precedence over those of files."""
    command = [sys.executable, "-m", "pip", "config", "list"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    settings: dict[str, str] = {}
    environment: dict[str, str] = {}
    for line in done.stdout.splitlines():
        key, separator, value = line.partition("=")
        section, _, name = key.partition(".")
        if separator and section in ("global", "download", ":env:"):
            target = environment if section == ":env:" else settings
            target[name] = str(ast.literal_eval(value))
    return settings | environment


def _opener(settings: dict[str, str]) -> urllib.request.OpenerDirector:
    """Return an opener that uses pip's proxy and certificates, else the environment's."""
    context = ssl.create_default_context(cafile=settings.get("cert"))
    handlers: list[urllib.request.BaseHandler] = [urllib.request.HTTPSHandler(context=context)]
    if proxy := settings.get("proxy"):
        handlers.append(urllib.request.ProxyHandler({"http": proxy, "https": proxy}))
    return urllib.request.build_opener(*handlers)
