"""Fill the generated tables of documents.

A generated table stands between two comments, and the first gives its name::

    <!-- generated: NAME -->
    <!-- end -->
"""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from compat.contract.errors import CompatError

_BLOCK = re.compile(r"(<!-- generated: ([\w-]+) -->\n)(.*?)(<!-- end -->)", re.DOTALL)


def names(document: str) -> tuple[str, ...]:
    """Return the names of a document's generated tables, in the document's order."""
    return tuple(block[2] for block in _BLOCK.finditer(document))


def table(document: str, name: str) -> str:
    """Return the text of one table of a document; it is empty if there is no such table."""
    return next((block[3] for block in _BLOCK.finditer(document) if block[2] == name), "")


def filled(document: str, make: Callable[[str], str | None]) -> str:
    """Return a document with every table replaced by what ``make`` returns for its name.

    A table stays as it is where ``make`` returns None, and so does all text outside the comments.
    """

    def fill(block: re.Match[str]) -> str:
        head, name, _, end = block.groups()
        made = make(name)
        return block[0] if made is None else f"{head}{made}\n{end}"

    return _BLOCK.sub(fill, document)


def put(path: Path, name: str, made: str) -> None:
    """Replace one table of a document.

    Raises:
        CompatError: the document has no table of that name.
    """
    document = path.read_text(encoding="utf-8")
    if name not in names(document):
        raise CompatError(
            f"{path} has no table {name}.",
            f"Put `<!-- generated: {name} -->` and `<!-- end -->` where it belongs.",
        )
    text = filled(document, lambda one: made if one == name else None)
    path.write_text(text, encoding="utf-8")
