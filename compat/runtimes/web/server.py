"""A server for one page: its files, the graphs, and an exchange of calls and answers.

The server listens on the loopback only, below a path that nobody can guess. It answers requests for
the host 127.0.0.1 only, as a page elsewhere could have its own host name resolve to the loopback.
Every answer has the headers that isolate the page, without which WebAssembly has no threads, and
that forbid the page to load anything from elsewhere.

The page posts its answer to a call, and gets the next call in reply: one request for each call.
"""

from __future__ import annotations

import functools
import json
import queue
import secrets
import threading
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import numpy as np

HEADERS: Mapping[str, str] = {
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Embedder-Policy": "require-corp",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Content-Security-Policy": (
        "default-src 'none'; connect-src 'self'; img-src data:; style-src 'self'; "
        # ONNX Runtime calls WebNN through functions that it makes from text, which needs eval.
        "worker-src 'self' blob:; script-src 'self' blob: 'unsafe-eval'; "
        "base-uri 'none'; form-action 'none'"
    ),
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Cache-Control": "no-store",
}
TYPES: Mapping[str, str] = {
    ".html": "text/html; charset=utf-8",
    ".css": "text/css; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".mjs": "text/javascript; charset=utf-8",
    ".wasm": "application/wasm",
}
PATIENCE = 20.0
"""Seconds that a request of the page waits for a call. The page then asks again, before its browser
gives up waiting."""

ALIGNMENT = 8
"""Arrays in a message begin at multiples of this many bytes."""
LARGEST = 1 << 31
"""Most bytes of an answer."""


def encode(header: Mapping[str, Any], arrays: Sequence[np.ndarray] = ()) -> bytes:
    """Return a message: the header's length (4 bytes, little endian), the header, the arrays.

    The header's ``tensors`` gives the offset of each array. Offsets are multiples of
    :data:`ALIGNMENT`, so that the other side can view the arrays in place.
    """
    described: list[dict[str, Any]] = [
        {"dtype": array.dtype.name, "dims": list(array.shape), "bytes": array.nbytes, "offset": 0}
        for array in arrays
    ]
    # Offsets depend on the header's length, which depends on the offsets' digits. 12 bytes are
    # reserved for each offset.
    room = len(json.dumps({**header, "tensors": described})) + 12 * len(arrays)
    offset = _aligned(4 + room)
    for entry in described:
        entry["offset"] = offset
        offset = _aligned(offset + entry["bytes"])
    text = json.dumps({**header, "tensors": described}).encode().ljust(room)
    message = bytearray(offset)
    message[:4] = len(text).to_bytes(4, "little")
    message[4 : 4 + len(text)] = text
    for entry, array in zip(described, arrays, strict=True):
        start = entry["offset"]
        message[start : start + array.nbytes] = np.ascontiguousarray(array).tobytes()
    return bytes(message)


def decode(message: bytes) -> tuple[dict[str, Any], list[np.ndarray]]:
    """Return the header and the arrays of a message.

    Raises:
        ValueError: the message is malformed.
    """
    length = int.from_bytes(message[:4], "little")
    header: dict[str, Any] = json.loads(message[4 : 4 + length])
    arrays = []
    for entry in header.pop("tensors", []):
        kind, start, size = np.dtype(entry["dtype"]), int(entry["offset"]), int(entry["bytes"])
        if start < 4 + length or start + size > len(message) or kind.hasobject:
            raise ValueError("a tensor lies outside of its message")
        array = np.frombuffer(message, kind, size // kind.itemsize, start)
        arrays.append(array.reshape(entry["dims"]).copy())
    return header, arrays


def _aligned(offset: int) -> int:
    return -(-offset // ALIGNMENT) * ALIGNMENT


class Server:
    """A server that serves folders to one page, and exchanges calls with it.

    Args:
        folders: folders by name, which is the first part of their files' paths. ``page`` is the
            page's own.
    """

    def __init__(self, folders: Mapping[str, Path]) -> None:
        self._folders = {name: folder.resolve() for name, folder in folders.items()}
        self._token = secrets.token_urlsafe(16)
        self._calls: queue.Queue[bytes] = queue.Queue()
        self._answers: queue.Queue[bytes] = queue.Queue()
        self._count = 0
        handler = type("Handler", (_Handler,), {"owner": self})
        self._server = _Quiet(("127.0.0.1", 0), handler)
        # Closing waits up to one poll interval: with the default of 0.5 s for every page.
        serve = functools.partial(self._server.serve_forever, poll_interval=0.02)
        threading.Thread(target=serve, name="page-server", daemon=True).start()

    @property
    def port(self) -> int:
        """Port on the loopback, chosen by the operating system."""
        return int(self._server.server_address[1])

    @property
    def url(self) -> str:
        """Address of the page, with a slash at the end."""
        return f"http://127.0.0.1:{self.port}/{self._token}/page/"

    def mount(self, name: str, folder: Path) -> str:
        """Serve another folder, and return its path relative to the page."""
        self._folders[name] = folder.resolve()
        return f"../{name}/"

    def call(
        self,
        header: Mapping[str, Any],
        arrays: Sequence[np.ndarray] = (),
        watch: Callable[[], None] = lambda: None,
    ) -> tuple[dict[str, Any], list[np.ndarray]]:
        """Send a call to the page, and wait for its answer.

        Args:
            header: JSON values of the call.
            arrays: arrays that travel with it.
            watch: called four times a second while waiting; raises if the page cannot answer any
                more.

        Returns:
            The header and the arrays of the answer.
        """
        self._count += 1
        self._calls.put(encode({**header, "id": self._count}, arrays))
        while True:
            try:
                answer, found = decode(self._answers.get(timeout=0.25))
            except queue.Empty:
                watch()
                continue
            if answer.get("id") == self._count:
                return answer, found

    def close(self) -> None:
        """Stop the server."""
        self._server.shutdown()
        self._server.server_close()

    # For the handler of requests ---------------------------------------------------------------

    def serves(self, host: str, origin: str | None) -> bool:
        """Return whether a request with this ``Host`` and ``Origin`` comes from the page."""
        named = f"127.0.0.1:{self.port}"
        return host == named and origin in (None, f"http://{named}")

    def path(self, target: str) -> str | None:
        """Return the part of a request's path below the secret folder, or None outside of it."""
        secret, _, rest = urlsplit(target).path.lstrip("/").partition("/")
        return rest if secrets.compare_digest(secret.encode(), self._token.encode()) else None

    def file(self, path: str) -> Path | None:
        """Return the file that a path names, or None if there is none below its folder.

        Links are resolved first, so that a link to a file outside of the folder gives None.
        """
        name, _, inside = unquote(path).partition("/")
        folder = self._folders.get(name)
        if folder is None or "\0" in inside:
            return None
        found = (folder / (inside or "page.html")).resolve()
        return found if found.is_relative_to(folder) and found.is_file() else None

    def exchange(self, answer: bytes) -> bytes | None:
        """Take an answer, and return the next call, or None after :data:`PATIENCE` without one.

        An empty answer stands for none: the page has just started, or asks again.
        """
        if answer:
            self._answers.put(answer)
        try:
            return self._calls.get(timeout=PATIENCE)
        except queue.Empty:
            return None


class _Quiet(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request: Any, client_address: Any) -> None:
        """Ignore a broken connection: a browser that died is noticed by its driver."""


class _Handler(BaseHTTPRequestHandler):
    owner: Server
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self) -> None:
        path = self._allowed()
        if path is None:
            return
        found = self.owner.file(path)
        if found is None:
            self._reply(HTTPStatus.NOT_FOUND)
            return
        self._reply(
            HTTPStatus.OK,
            found.read_bytes(),
            TYPES.get(found.suffix, "application/octet-stream"),
        )

    def do_POST(self) -> None:
        path = self._allowed()
        if path is None:
            return
        size = self.headers.get("Content-Length", "")
        if path != "page/exchange" or not size.isdigit() or int(size) > LARGEST:
            self.close_connection = True
            self._reply(HTTPStatus.BAD_REQUEST)
            return
        call = self.owner.exchange(self.rfile.read(int(size)))
        if call is None:
            self._reply(HTTPStatus.NO_CONTENT)
        else:
            self._reply(HTTPStatus.OK, call)

    def _allowed(self) -> str | None:
        """Return the path of a request, or answer 403 and return None if it is not the page's."""
        origin = self.headers.get("Origin")
        path = self.owner.path(self.path)
        if path is not None and self.owner.serves(self.headers.get("Host", ""), origin):
            return path
        self.close_connection = True
        self._reply(HTTPStatus.FORBIDDEN)
        return None

    def _reply(
        self, status: HTTPStatus, body: bytes = b"", kind: str = "application/octet-stream"
    ) -> None:
        self.send_response(status)
        for name, value in HEADERS.items():
            self.send_header(name, value)
        if status != HTTPStatus.NO_CONTENT:
            self.send_header("Content-Type", kind)
            self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *arguments: object) -> None:
        """Log no requests: the output belongs to the case that is measured."""
