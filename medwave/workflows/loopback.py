"""A web server for one person on one machine: 127.0.0.1 only, and nothing but what a :class:`Site` answers.

Requests under another name than this machine's are refused, so that a page from elsewhere whose name was pointed at
127.0.0.1 reads nothing; what is sent is taken from pages of this server only. Pages may load nothing from outside.
"""

from __future__ import annotations

import shutil
import socketserver
import sys
from dataclasses import dataclass
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any, Protocol
from urllib.parse import unquote, urlsplit

from medwave.core.errors import InputError

LOOPBACK = "127.0.0.1"
LARGEST_MESSAGE_BYTES = 1 << 16
_KINDS = {
    ".html": "text/html; charset=utf-8", ".json": "application/json", ".csv": "text/csv; charset=utf-8",
    ".txt": "text/plain; charset=utf-8", ".swc": "text/plain; charset=utf-8", ".jpg": "image/jpeg", ".png": "image/png",
}  # fmt: skip
_HEADERS = {
    "Cache-Control": "no-store",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'self' 'unsafe-inline' data: blob:; frame-ancestors 'none'",
}


@dataclass(frozen=True)
class Answer:
    """What a request is answered: bytes, a file, or an address to go to instead."""

    body: bytes | Path = b""
    kind: str = "text/plain; charset=utf-8"
    status: HTTPStatus = HTTPStatus.OK
    go_to: str = ""


class Site(Protocol):
    """What is served. Paths are decoded and begin with ``/``; requests come from several threads."""

    def answer(self, path: str) -> Answer | None:
        """What is at a path; None when there is nothing."""

    def receive(self, path: str, message: bytes) -> Answer | None:
        """Take JSON that a page of the site sent; None when the path takes nothing."""


def file_answer(root: Path, path: str) -> Answer | None:
    """A file of a folder; nothing outside it, also by links, and no hidden one.

    Args:
        root: the folder, resolved.
        path: of the request.
    """
    try:
        file = root.joinpath(path.lstrip("/")).resolve(strict=True)
    except (OSError, ValueError, RuntimeError):
        return None
    if not (file.is_relative_to(root) and file.is_file()):
        return None
    if any(part.startswith(".") for part in file.relative_to(root).parts):
        return None
    return Answer(file, _KINDS.get(file.suffix.lower(), "application/octet-stream"))


class LoopbackServer(ThreadingHTTPServer):
    """Serves a site on this machine.

    Args:
        site: what to serve.
        port: 0 takes a free one.

    Raises:
        InputError: when the port cannot be had.
    """

    daemon_threads = True

    def __init__(self, site: Site, port: int = 0) -> None:
        self.site = site
        try:
            super().__init__((LOOPBACK, port), _Handler)
        except (OSError, OverflowError) as error:
            reason = getattr(error, "strerror", None) or error
            raise InputError(f"port: {port} cannot be used ({reason}); choose another, or 0 for a free one") from None

    @property
    def address(self) -> str:
        """Such as ``http://127.0.0.1:40123/``."""
        return f"http://{LOOPBACK}:{self.server_port}/"

    def server_bind(self) -> None:
        socketserver.TCPServer.server_bind(self)  # HTTPServer's asks for the name of this machine, which can take long
        self.server_name, self.server_port = LOOPBACK, self.socket.getsockname()[1]

    def handle_error(self, request: Any, client_address: Any) -> None:
        if not isinstance(sys.exception(), ConnectionError):  # a browser that went away is none
            super().handle_error(request, client_address)


class _Handler(BaseHTTPRequestHandler):
    server: LoopbackServer

    def do_GET(self) -> None:
        if self._is_ours():
            self._send(self.server.site.answer(self._path()))

    do_HEAD = do_GET

    def do_POST(self) -> None:
        if not self._is_ours():
            return
        origin, kind = self.headers.get("Origin"), self.headers.get("Content-Type", "")
        length = self.headers.get("Content-Length", "")
        if (origin is not None and origin != f"http://{self.headers['Host']}") or kind != "application/json":
            self._refuse(HTTPStatus.FORBIDDEN)
        elif not (length.isdecimal() and int(length) <= LARGEST_MESSAGE_BYTES):
            self._refuse(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        else:
            self._send(self.server.site.receive(self._path(), self.rfile.read(int(length))))

    def _path(self) -> str:
        return unquote(urlsplit(self.path).path, errors="surrogateescape")

    def _is_ours(self) -> bool:
        port = self.server.server_port
        if self.headers.get("Host", "").lower() in (f"{LOOPBACK}:{port}", f"localhost:{port}"):
            return True
        self._refuse(HTTPStatus.FORBIDDEN)
        return False

    def _refuse(self, status: HTTPStatus) -> None:
        self._send(Answer(f"{status.value} {status.phrase}\n".encode(), status=status))

    def _send(self, answer: Answer | None) -> None:
        if answer is None:
            self._refuse(HTTPStatus.NOT_FOUND)
            return
        size = answer.body.stat().st_size if isinstance(answer.body, Path) else len(answer.body)
        self.send_response(HTTPStatus.FOUND if answer.go_to else answer.status)
        for name, value in _HEADERS.items():
            self.send_header(name, value)
        if answer.go_to:
            self.send_header("Location", answer.go_to)
        self.send_header("Content-Type", answer.kind)
        self.send_header("Content-Length", str(size))
        self.end_headers()
        if self.command == "HEAD":
            return
        if isinstance(answer.body, Path):
            with answer.body.open("rb") as stream:
                shutil.copyfileobj(stream, self.wfile)
        else:
            self.wfile.write(answer.body)

    def log_message(self, format: str, *args: object) -> None:
        pass
