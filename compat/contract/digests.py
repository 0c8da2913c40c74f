"""Digests: short names for what determines a result, be it values, files or code."""

from __future__ import annotations

import ast
import hashlib
import importlib.util
import json
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

PROJECT = "compat"
INSTALLED = ("site-packages", "dist-packages")
"""Folders of installed packages: a module there has other packages beside it, none of its own."""


def digest(value: Any) -> str:
    """Return 16 hex digits that identify a JSON value."""
    text = json.dumps(value, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def file_digest(path: Path) -> str:
    """Return 16 hex digits that identify a file's bytes."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()[:16]


@cache
def code_digest(module: str) -> str:
    """Return 16 hex digits that identify the code of a module and of all modules that it imports.

    Comments and docstrings do not count, so that better words rebuild nothing.
    """
    files = code_files(module)
    # Without the module's own name: that of a catalog file depends on where the file lies.
    return digest(
        sorted(["" if name == module else name, _code(path)[0]] for name, path in files.items())
    )


@cache
def code_files(module: str) -> dict[str, Path]:
    """Return the files of a module and of all modules that it imports, by the modules' names.

    Imports are read from the source, those inside functions too and those for type checkers left
    out; no module is imported for it. Followed are modules of this project, of the module's own
    package, and modules beside a file that belongs to no package (a catalog file). All others are
    identified by the versions of their distributions.

    Raises:
        ModuleNotFoundError: the module itself has no Python file.
    """
    path = _file(module)
    if path is None:
        raise ModuleNotFoundError(f"no Python file of the module {module}", name=module)
    packages = {PROJECT, module.partition(".")[0]}
    alone = "." not in module and path.name != "__init__.py"
    beside = path.parent if alone and path.parent.name not in INSTALLED else None
    files: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        top = name.partition(".")[0]
        if name in files or not (top in packages or (beside and _folder(top) == beside)):
            continue
        if found := _file(name):
            files[name] = found
            waiting += _imported(name, found)
    return files


@cache
def _file(module: str) -> Path | None:
    """Return the Python file of a module; None if it has none, as folders and attributes have."""
    loaded = sys.modules.get(module)
    if loaded is not None:
        named = getattr(loaded, "__file__", None)
        return Path(named) if named and named.endswith(".py") else None
    top, *rest = module.split(".")
    try:
        # Only of the first name: looking for a longer one imports the packages that it is in.
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin and spec.origin.endswith(".py") else None
    for folder in spec.submodule_search_locations or ():
        path = Path(folder, *rest)
        for file in (path / "__init__.py", path.with_suffix(".py")):
            if file.is_file():
                return file
    return None


def _folder(module: str) -> Path | None:
    """Return the folder in which a module without dots in its name lies, file or package."""
    if module in sys.stdlib_module_names:
        return None
    path = _file(module)
    if path is None:
        return None
    return path.parent.parent if path.name == "__init__.py" else path.parent


@cache
def _code(path: Path) -> tuple[str, tuple[ast.Import | ast.ImportFrom, ...]]:
    """Return the digest of a file's code and the import statements in it."""
    tree = ast.parse(path.read_bytes(), str(path))
    imports = tuple(_bared(tree))
    return hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16], imports


def _bared(block: ast.AST) -> Iterator[ast.Import | ast.ImportFrom]:
    """Yield the imports below a block at any depth, and remove its docstrings on the way."""
    for field in ("body", "orelse", "finalbody", "handlers", "cases"):
        statements = getattr(block, field, None)
        if not isinstance(statements, list):  # A lambda's body is an expression.
            continue
        statements[:] = [statement for statement in statements if not _is_docstring(statement)]
        if field == "body" and isinstance(block, ast.If) and _is_for_type_checkers(block.test):
            continue
        for statement in statements:
            if isinstance(statement, ast.Import | ast.ImportFrom):
                yield statement
            else:
                yield from _bared(statement)


def _is_docstring(statement: ast.AST) -> bool:
    value = getattr(statement, "value", None) if isinstance(statement, ast.Expr) else None
    return isinstance(value, ast.Constant) and isinstance(value.value, str)


def _is_for_type_checkers(test: ast.expr) -> bool:
    name = getattr(test, "attr", None) or getattr(test, "id", None)
    return name == "TYPE_CHECKING"


def _imported(module: str, path: Path) -> Iterator[str]:
    """Yield the name of whatever a module imports; among them are names that are no modules."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for statement in _code(path)[1]:
        if isinstance(statement, ast.Import):
            names = [alias.name for alias in statement.names]
        else:
            start = statement.module or ""
            if statement.level:
                within = package.split(".")[: len(package.split(".")) - statement.level + 1]
                start = ".".join([*within, *([start] if start else [])])
            # Each name may be a module of that package, or something that is defined there.
            names = [start, *(f"{start}.{alias.name}" for alias in statement.names)]
        for name in names:
            parts = name.split(".")
            yield from (".".join(parts[:count]) for count in range(1, len(parts) + 1))
