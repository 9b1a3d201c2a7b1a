"""The web function on one machine: app.py under Chalice's local server, on 127.0.0.1.

Chalice writes an answer's headers and body with separate calls, each of which waits for the other side's delayed
acknowledgement (Nagle's algorithm): 23 requests/s. Buffered and without the algorithm it is thousands. It says that
every request comes from 127.0.0.1; here it is where it comes from. And the address that stands for all others is in API
Gateway one of any length.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import urlsplit

from local import processes
from local.processes import LOOPBACK, Child

ROOT = Path(__file__).parent.parent
START_DEADLINE = 60.0


@contextmanager
def hub(folder: Path, *, port: int, environ: Mapping[str, str]) -> Iterator[Child]:
    """Serve app.py on 127.0.0.1:`port` for as long as the block lasts; `environ` is the whole environment."""
    command = [sys.executable, "-m", "local.hub", str(port)]
    with processes.running("hub", command, folder=folder, environ=environ, cwd=ROOT) as child:
        processes.wait_for_port(port, child=child, deadline=START_DEADLINE)
        yield child


def serve(port: int) -> None:
    """Serve app.py until the process ends."""
    import chalice.local
    from chalice.config import Config
    from chalice.local import ChaliceRequestHandler, MatchResult, RouteMatcher, ThreadedHTTPServer, create_local_server

    from app import app

    def setup(handler: ChaliceRequestHandler) -> None:
        super(ChaliceRequestHandler, handler).setup()
        handler.local_gateway.event_converter.LOCAL_SOURCE_IP = handler.client_address[0]

    class Matcher(RouteMatcher):
        def match_route(self, url: str) -> MatchResult:
            try:
                return super().match_route(url)
            except ValueError:  # of several parts, which Chalice takes /{proxy+} not to be for
                return MatchResult("/{proxy+}", {"proxy": urlsplit(url).path[1:]}, {})

    chalice.local.RouteMatcher = Matcher  # type: ignore[misc]
    ChaliceRequestHandler.setup = setup
    ChaliceRequestHandler.wbufsize = 65536
    ChaliceRequestHandler.disable_nagle_algorithm = True
    ThreadedHTTPServer.request_queue_size = 128  # of socketserver's 5, a workshop's sixth visitor is turned away
    config = Config.create(chalice_stage="local", chalice_app=app, project_dir=str(ROOT), lambda_timeout=30)
    create_local_server(app, config, LOOPBACK, port).serve_forever()


if __name__ == "__main__":
    os.chdir(ROOT)
    serve(int(sys.argv[1]))
