"""A page that follows a watch: this machine alone can ask for it, under an address that nobody can guess."""

from __future__ import annotations

import secrets
from contextlib import suppress
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Thread

from circuitdsl.cli.terminal import tell
from circuitdsl.cli.view import open_in_browser
from circuitdsl.report.again import Again
from circuitdsl.report.report import Reports
from circuitdsl.viewing import page_of

_HEADERS = {
    "Cache-Control": "no-store", "X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer",
    "Cross-Origin-Resource-Policy": "same-origin",
}  # fmt: skip


class Live:
    """A server on this machine that has one page, the newest. Its thread ends with the process.

    Args:
        again: in what share of resamples parts of circuits are found, which the page draws.
    """

    def __init__(self, again: Again | None = None) -> None:
        self.again = again
        self.page, self.number, secret = b"", 0, secrets.token_urlsafe(16)
        live = self

        class Handler(BaseHTTPRequestHandler):
            def handle(self) -> None:
                with suppress(ConnectionError):  # a tab that is closed, or loaded again
                    super().handle()

            def do_GET(self) -> None:
                found = {f"/{secret}/": live.page, f"/{secret}/version": b"%d" % live.number}.get(self.path)
                known = self.headers.get("Host") == live.host
                self.send_response(200 if known and found is not None else 404)
                kind = "text/plain" if self.path.endswith("version") else "text/html"
                for name, value in {"Content-Type": f"{kind}; charset=utf-8", **_HEADERS}.items():
                    self.send_header(name, value)
                self.end_headers()
                self.wfile.write(found if known and found is not None else b"")

            def log_message(self, *_: object) -> None:
                """Say nothing of requests."""

        server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.host = f"127.0.0.1:{server.server_port}"
        self.address = f"http://{self.host}/{secret}/"
        Thread(target=server.serve_forever, daemon=True).start()

    def show(self, reports: Reports) -> None:
        """Have the page of these reports from now on; the first time it is opened, and its address printed."""
        self.page = page_of(reports, live=self.number + 1, again=self.again).encode()
        self.number += 1
        if self.number == 1:
            tell(self.address)
            open_in_browser(self.address)
