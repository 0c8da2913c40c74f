"""Digests: short names for what determines a result, be it values, files or code."""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib.util
import json
import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

from compat.contract.cache import cache_folder

PROJECT = "compat"
INSTALLED = ("site-packages", "dist-packages")
"""Folders of installed packages. What lies beside a module there belongs to other packages."""


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
    code = sorted(
        ["" if name == module else name, _code(path).digest] for name, path in files.items()
    )
    _parsed.save()
    return digest(code)


@cache
def code_files(module: str) -> dict[str, Path]:
    """Return the files of a module and of all modules that it imports, by the modules' names.

    Imports are read from the source, and no module is imported for it. Imports inside functions
    count, those for type checkers do not. It follows modules of this project, modules of the
    module's own package, and modules beside a file that belongs to no package (a catalog file). All
    others are identified by the versions of their distributions. A name that is imported from a
    module which only lists names (``compat.api``) counts where it is defined.

    Raises:
        ModuleNotFoundError: the module itself has no Python file.
    """
    path = _file(module)
    if path is None:
        raise ModuleNotFoundError(f"no Python file of the module {module}", name=module)
    packages = {PROJECT, module.partition(".")[0]}
    alone = "." not in module and path.name != "__init__.py"
    beside = path.parent if alone and path.parent.name not in INSTALLED else None

    def is_followed(name: str) -> bool:
        top = name.partition(".")[0]
        return top in packages or bool(beside and _folder(top) == beside)

    files: dict[str, Path] = {}
    waiting = [module]
    while waiting:
        name = waiting.pop()
        if name in files or not is_followed(name):
            continue
        if file := _file(name):
            files[name] = file
            for start, attribute in _imported(name, file):
                waiting += _modules(_origin(start, attribute, is_followed), attribute)
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


class _Code(NamedTuple):
    """What one source text says. JSON keeps it as a list."""

    digest: str
    """Hex digits of the code without comments and docstrings."""
    imports: list[tuple[str, int, list[str]]]
    """Module, level of a relative import, and names; no names of a plain ``import``."""
    lists_names: bool
    """Whether it only imports names from elsewhere, as ``compat.api`` does."""


class _Parsed:
    """Parsed source texts, kept in the cache's folder: parsing takes most of a digest's time.

    Texts are known by their hash, together with this module's and the version of Python, so that
    nothing in it can be out of date.
    """

    LIMIT = 2000
    """Most texts that are kept. Beyond it those of earlier processes are dropped."""

    def __init__(self) -> None:
        self._texts: dict[str, _Code] | None = None
        self._is_new = False
        self._kind = hashlib.sha256(Path(__file__).read_bytes() + sys.version.encode())

    def __getitem__(self, path: Path) -> _Code:
        text = path.read_bytes()
        kind = self._kind.copy()
        kind.update(text)
        key = kind.hexdigest()
        if self._texts is None:
            self._texts = self._load()
        if key not in self._texts:
            self._texts[key] = _parse(text, path)
            self._is_new = True
        return self._texts[key]

    def save(self) -> None:
        """Write what is new, in one step; a cache that cannot be written costs time only."""
        if not self._is_new or self._texts is None:
            return
        texts = {**self._load(), **self._texts}
        kept = texts if len(texts) <= self.LIMIT else self._texts
        with contextlib.suppress(OSError):
            cache_folder().mkdir(parents=True, exist_ok=True)
            number, name = tempfile.mkstemp(".json", "code.", cache_folder())
            with os.fdopen(number, "w", encoding="utf-8") as file:
                json.dump(kept, file, separators=(",", ":"))
            Path(name).replace(self._file())
            self._is_new = False

    def _load(self) -> dict[str, _Code]:
        try:
            texts = json.loads(self._file().read_bytes())
            return {key: _Code(*fields) for key, fields in texts.items()}
        except (OSError, ValueError, TypeError, AttributeError):
            return {}

    def _file(self) -> Path:
        return cache_folder() / "code.json"


_parsed = _Parsed()


@cache
def _code(path: Path) -> _Code:
    return _parsed[path]


def _parse(text: bytes, path: Path) -> _Code:
    tree = ast.parse(text, str(path))
    imports: list[tuple[str, int, list[str]]] = []
    for statement in _bared(tree):
        if isinstance(statement, ast.Import):
            imports += [(alias.name, 0, []) for alias in statement.names]
        else:
            names = [alias.name for alias in statement.names]
            imports.append((statement.module or "", statement.level, names))
    code = hashlib.sha256(ast.dump(tree).encode()).hexdigest()[:16]
    return _Code(code, imports, all(map(_lists_names, tree.body)))


def _lists_names(statement: ast.stmt) -> bool:
    """Return whether a statement only imports names as they are, or declares ``__all__``."""
    if isinstance(statement, ast.ImportFrom):
        return not any(alias.asname or alias.name == "*" for alias in statement.names)
    target = statement.targets[0] if isinstance(statement, ast.Assign) else None
    return isinstance(target, ast.Name) and target.id == "__all__"


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


def _imported(module: str, path: Path) -> Iterator[tuple[str, str]]:
    """Yield what a module imports: a module, and the name that is taken from it or nothing."""
    package = module if path.name == "__init__.py" else module.rpartition(".")[0]
    for start, level, names in _code(path).imports:
        if level:
            within = package.split(".")[: len(package.split(".")) - level + 1]
            start = ".".join([*within, *([start] if start else [])])
        yield from ((start, name) for name in names or [""])


def _origin(module: str, name: str, is_followed: Callable[[str], bool]) -> str:
    """Return the module that defines a name; ``module`` may only list it, like ``compat.api``."""
    passed = set()
    while name and module not in passed and is_followed(module) and (path := _file(module)):
        passed.add(module)
        if not _code(path).lists_names:
            break
        origins = {listed: origin for origin, listed in _imported(module, path)}
        module = origins.get(name, module)
    return module


def _modules(module: str, name: str) -> Iterator[str]:
    """Yield a module, the packages that hold it, and the imported name, as it may be a module."""
    parts = [*module.split("."), *([name] if name else [])]
    yield from (".".join(parts[:count]) for count in range(1, len(parts) + 1))
