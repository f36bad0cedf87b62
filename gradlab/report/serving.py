"""The report of a result as a page that follows it: drawn anew when pieces appear, served to this machine alone.

The page asks every two seconds whether there is a newer one, and loads it where it stands: its address holds the view.
Nothing is written into the result's folder.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.parse import unquote, urlsplit

from gradlab.spec.named import SpecError
from gradlab.store.folder import Folder

EVERY = 2.0
"""Seconds between two looks at the folder."""

HOST = "127.0.0.1"

FOLLOW = """<script>
setInterval(async () => {
  const answer = await fetch("version").catch(() => null);
  if (answer && answer.ok && (await answer.text()) !== "%s") location.reload();
}, 2000);
</script>
</body>"""

EMPTY = "<!doctype html><meta charset='utf-8'><title>gradlab</title><body><p>No run has ended yet.</p></body>"

KINDS = {".html": "text/html; charset=utf-8", ".png": "image/png", ".svg": "image/svg+xml", ".csv": "text/csv"}


class Follower:
    """The report of ``folder`` in ``out``, as ``draw`` writes it, and its version: how often it has been drawn."""

    def __init__(self, folder: Path, out: Path, draw: Callable[[Path, Path], object]) -> None:
        self.folder, self.out, self.draw = folder, out, draw
        self.version = 0
        self._seen: object = None

    def look(self) -> bool:
        """Draws the report where the folder has changed since; whether it did.

        A folder without a finished run, or whose tables change while they are read, is looked at again.
        """
        seen = self._state()
        if seen == self._seen:
            return False
        try:
            self.draw(self.folder, self.out)
        except SpecError:
            return False
        self._seen, self.version = seen, self.version + 1
        return True

    def _state(self) -> object:
        """What changes when runs end: the pieces and the tables that are there."""
        folder = Folder(self.folder)
        files = [folder.table("runs"), *sorted(folder.pieces.glob("*.parquet"))]
        return [(file.name, _changed(file)) for file in files]

    def page(self) -> str:
        """The page that is served, with what makes it follow."""
        page = self.out / "index.html"
        text = page.read_text(encoding="utf-8") if self.version else EMPTY
        begin, _, end = text.rpartition("</body>")
        return begin + FOLLOW % self.version + end


def _changed(file: Path) -> int:
    """When a file was written, in ns; 0 of one that is not there."""
    try:
        return file.stat().st_mtime_ns
    except FileNotFoundError:
        return 0


@contextmanager
def serving(follower: Follower, port: int = 0) -> Iterator[str]:
    """Serves on the loopback address and follows the folder until the end; gives the page's address.

    Raises `SpecError` for a port that is taken.
    """
    try:
        server = ThreadingHTTPServer((HOST, port), _handler(follower))
    except OSError as error:
        raise SpecError(f"--port {port}: {error.strerror}; --port 0 takes any that is free") from error
    ended = threading.Event()

    def follow() -> None:
        while not ended.wait(EVERY):
            follower.look()

    follower.look()
    threads = [threading.Thread(target=work, daemon=True) for work in (server.serve_forever, follow)]
    for thread in threads:
        thread.start()
    try:
        yield f"http://{HOST}:{server.server_address[1]}/"
    finally:
        ended.set()
        server.shutdown()
        server.server_close()
        for thread in threads:
            thread.join()


def _handler(follower: Follower) -> type[BaseHTTPRequestHandler]:
    class Handler(BaseHTTPRequestHandler):
        """Answers with the page, its version and the files beside it; to this machine's own addresses alone."""

        def do_GET(self) -> None:
            host = (self.headers.get("Host") or "").rpartition(":")[0]
            if host not in (HOST, "localhost"):
                # Another name that leads here: a page of somebody else's that wants to read this one.
                self._answer(HTTPStatus.FORBIDDEN, b"", ".csv")
                return
            name = unquote(urlsplit(self.path).path).removeprefix("/")
            if name in ("", "index.html"):
                self._answer(HTTPStatus.OK, follower.page().encode("utf-8"), ".html")
            elif name == "version":
                self._answer(HTTPStatus.OK, str(follower.version).encode("ascii"), ".csv")
            elif (file := {path.name: path for path in follower.out.glob("*")}.get(name)) is not None:
                self._answer(HTTPStatus.OK, file.read_bytes(), file.suffix)
            else:
                self._answer(HTTPStatus.NOT_FOUND, b"", ".csv")

        def _answer(self, status: HTTPStatus, body: bytes, suffix: str) -> None:
            self.send_response(status)
            self.send_header("Content-Type", KINDS.get(suffix, "application/octet-stream"))
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Cache-Control", "no-store")
            # A browser that has left, or loads anew, wants no answer any more.
            with suppress(ConnectionError):
                self.end_headers()
                self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Says nothing: the terminal has the address alone."""

    return Handler
