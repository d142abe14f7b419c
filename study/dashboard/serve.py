"""optuna-dashboard on this machine alone, with the storage options of the study."""

from __future__ import annotations

import logging
import signal
from collections.abc import Callable
from wsgiref.simple_server import WSGIRequestHandler, WSGIServer, make_server

from study.errors import StorageError
from study.storage.location import Database


class _QuietHandler(WSGIRequestHandler):
    def log_message(self, format: str, *args: object) -> None:  # noqa: A002 - the base's name
        logging.getLogger(__name__).debug(format, *args)


def serve(database: Database, port: int, say: Callable[[str], None]) -> None:
    """Serve the dashboard on 127.0.0.1 until Ctrl-C or SIGTERM; port 0 takes a free one.

    Raises ``StorageError`` where there is no database or the port is taken.
    """
    storage = database.open()
    from optuna_dashboard import wsgi

    try:
        server = make_server(
            "127.0.0.1", port, wsgi(storage), server_class=_Server, handler_class=_QuietHandler
        )
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


class _Server(WSGIServer):
    """Answers requests one at a time; a browser's aborted request is no news."""

    def handle_error(self, request: object, client_address: object) -> None:
        logging.getLogger(__name__).debug("a request of %s failed", client_address)
