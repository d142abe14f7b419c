"""optuna-dashboard on this machine alone, with the storage options of the study.

It has no password: every user of this machine may look. Web pages that are open in a browser may
not: a request must name this host, and come from a page of it (DNS rebinding, cross-site requests).
"""

from __future__ import annotations

import logging
import re
import signal
from collections.abc import Callable, Iterable
from socketserver import ThreadingMixIn
from typing import TYPE_CHECKING
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from study.errors import StorageError
from study.storage.location import Database

if TYPE_CHECKING:
    from wsgiref.types import StartResponse, WSGIApplication, WSGIEnvironment

# A Host header; the port may be another one that was forwarded.
_OWN = re.compile(r"(127\.0\.0\.1|localhost)(:[0-9]+)?", re.IGNORECASE)

_log = logging.getLogger(__name__)


class _Handler(WSGIRequestHandler):
    timeout = 30.0  # seconds that a connection may be idle

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        _log.debug(format, *args)


class _Server(ThreadingMixIn, WSGIServer):
    """Answers each connection in its own thread; a browser's aborted request is not reported."""

    daemon_threads = True
    block_on_close = False

    def handle_error(self, request: object, client_address: object) -> None:
        _log.debug("a request of %s failed", client_address)


def serve(database: Database, port: int, say: Callable[[str], None]) -> None:
    """Serve the dashboard on 127.0.0.1 until Ctrl-C or SIGTERM; port 0 takes a free one.

    Raises ``StorageError`` where there is no database or the port is taken.
    """
    storage = database.open()
    from optuna_dashboard import wsgi

    app = local_only(wsgi(storage), storage.remove_session)
    try:
        server = make_server("127.0.0.1", port, app, server_class=_Server, handler_class=_Handler)
    except OSError as error:
        raise StorageError(
            f"--port {port}: cannot be served ({error.strerror}); choose another"
        ) from None
    for number in (signal.SIGINT, signal.SIGTERM):  # a shell's background job ignores Ctrl-C
        signal.signal(number, signal.default_int_handler)
    with server:
        say(f"Dashboard on http://127.0.0.1:{server.server_port} (Ctrl-C ends it)")
        try:
            server.serve_forever()
        except KeyboardInterrupt:
            return


def local_only(app: WSGIApplication, done: Callable[[], None]) -> WSGIApplication:
    """Refuse requests of other hosts' pages with 403; call ``done`` after each request."""

    def checked(environ: WSGIEnvironment, start_response: StartResponse) -> Iterable[bytes]:
        host, origin = environ.get("HTTP_HOST", ""), environ.get("HTTP_ORIGIN")
        if not _OWN.fullmatch(host) or origin not in {None, f"http://{host}"}:
            start_response("403 Forbidden", [("Content-Type", "text/plain")])
            return [b"This dashboard answers on 127.0.0.1 and localhost alone.\n"]
        environ.setdefault("HTTP_ACCEPT_ENCODING", "")  # optuna-dashboard fails without it
        try:
            return list(app(environ, start_response))
        finally:
            done()  # this thread's connection to the database

    return checked
