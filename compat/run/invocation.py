"""Command lines of pytest, rewritten where pytest by itself would misread them.

pytest looks for the root of the project before it knows any option of a plugin. In
``--corpus FOLDER`` it then takes FOLDER for a folder of tests, and uses the root, the settings and
the tests of whatever project FOLDER is in. ``--corpus=FOLDER`` means the same and is never misread.
"""

from __future__ import annotations

import os
import shlex
import sys
from argparse import Namespace
from collections.abc import Collection, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

from compat.contract.places import INSTALLED, PACKAGE, ROOT, SUITES

SETTINGS = PACKAGE / "run" / "suites.ini" if INSTALLED else ROOT / "pyproject.toml"
"""The file of pytest settings with which the suites are run."""
ADDED = "PYTEST_ADDOPTS"
"""The environment variable that pytest reads more arguments from."""


@dataclass(frozen=True)
class Invocation:
    """The arguments of one call of pytest: those given to it and those of its environment."""

    arguments: tuple[str, ...]
    added: str = ""
    """The value of ``$PYTEST_ADDOPTS``."""

    @contextmanager
    def environment(self) -> Iterator[None]:
        """Put the added arguments into the environment of processes that start meanwhile.

        pytest itself and its parallel processes read them there.
        """
        before = os.environ.get(ADDED)
        if before is not None:
            os.environ[ADDED] = self.added
        try:
            yield
        finally:
            if before is not None:
                os.environ[ADDED] = before


def suites() -> tuple[str, ...]:
    """Return the arguments that name the suites, their root and their settings."""
    return (str(SUITES), f"--rootdir={ROOT}", f"--config-file={SETTINGS}")


def meant(
    given: Invocation,
    options: Collection[str],
    parsed: Namespace,
    defaults: Mapping[str, object],
    folder: Path,
    settings: Path | None,
) -> Invocation:
    """Return an invocation that pytest cannot misread; ``given`` if pytest reads that right.

    An invocation that has options of the suites, but names no tests, means the suites of this
    project. At the root of the project pytest finds them; elsewhere it would take whatever tests
    lie in the working folder. A project with settings of its own keeps its tests.

    Args:
        given: the invocation that pytest was called with.
        options: names of the options that pytest does not know at first and that take one value.
        parsed: the arguments as they are read once pytest knows every option.
        defaults: the values that the suites' options have where nobody gives them.
        folder: the working folder.
        settings: the file whose settings pytest follows, if there is any.
    """
    added = shlex.split(given.added)
    joined = tuple(_joined(given.arguments, options)), _joined(added, options)
    if joined != (given.arguments, added):
        return Invocation(joined[0], shlex.join(joined[1]))
    asked = any(getattr(parsed, name, value) != value for name, value in defaults.items())
    elsewhere = folder != ROOT and settings in (None, SETTINGS)
    if asked and elsewhere and not parsed.file_or_dir:
        # pytest's cache must not lie in an installed package.
        memory = ("-o", f"cache_dir={folder / '.pytest_cache'}") if INSTALLED else ()
        return Invocation((*suites(), *memory, *given.arguments), given.added)
    return given


def _joined(arguments: Sequence[str], options: Collection[str]) -> list[str]:
    """Return arguments with an equals sign between an option and a value that exists as a path.

    Arguments that ``@FILE`` stands for take its place, as pytest reads them: one a line.
    """
    words = list(arguments)
    joined: list[str] = []
    while words:
        word = words.pop(0)
        if word == "--":
            return [*joined, word, *words]
        # Path.is_file and its like raise where a word is too long for a name.
        if word.startswith("@") and os.path.isfile(word[1:]):  # noqa: PTH113
            words[:0] = Path(word[1:]).read_text().splitlines()
            continue
        named = words[0].partition("::")[0] if words else ""
        if word in options and named and os.path.exists(named):  # noqa: PTH110
            word = f"{word}={words.pop(0)}"
        joined.append(word)
    return joined


def forget(search_paths: Sequence[Path]) -> None:
    """Remove from ``sys.path`` the folders that another project's settings put there."""
    for path in search_paths:
        with suppress(ValueError):
            sys.path.remove(str(path))


def hint() -> str:
    """Return a sentence that says where the suites are, for a folder that has none."""
    if INSTALLED:
        named = "Name them as `--pyargs compat.suites`"
    else:
        named = f"Start pytest in {ROOT}, or name the folder of the suites"
    return f"No suite is here: they are in {SUITES}. {named}; `compat matrix` runs them anywhere."
