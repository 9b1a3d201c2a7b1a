"""HAProxy and the agent as two children, for one machine: as proxy/run.py in the container, with a handle on each.

Both run in `folder`, with the environment of proxy/README.md's table. Stopping and starting one of them alone is for
tests of restarts; the maps in the folder survive it.
"""

from __future__ import annotations

import http.client
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

from chalicelib.notebook.pair import Pair
from local import processes
from local.processes import LOOPBACK, Child, SocketFileConnection
from proxy.settings import (
    HEALTH_SOCKET,
    Settings,
    agent_command,
    agent_environ,
    haproxy_command,
    haproxy_environ,
    prepare,
)

START_DEADLINE: Final = 20.0


class Proxy:
    """A proxy on 127.0.0.1:`port`, made of the children `haproxy` and `agent`."""

    def __init__(self, settings: Settings, environ: Mapping[str, str], logs: Path) -> None:
        self.settings = settings
        self.port = int(settings.bind.split()[0].rpartition(":")[2])
        self.haproxy: Child | None = None
        self.agent: Child | None = None
        self._environ = environ
        self._logs = logs

    def start_haproxy(self) -> Child:
        """Start HAProxy and wait for its port; raises StackError."""
        environ = haproxy_environ(self.settings, os.environ)
        self.haproxy = processes.start("haproxy", haproxy_command(self.settings), folder=self._logs, environ=environ)
        processes.wait_for_port(self.port, child=self.haproxy, deadline=START_DEADLINE)
        return self.haproxy

    def start_agent(self) -> Child:
        """Start the agent and wait until it answers; raises StackError."""
        environ = agent_environ(self.settings, self._environ)
        self.agent = processes.start("agent", agent_command(), folder=self._logs, environ=environ)
        # The shorter name of the two fits a socket's.
        accepting = Path(os.path.relpath(self.settings.run / "agent.sock"))
        processes.wait_until(
            lambda: processes.accepts(accepting),
            what="the agent listening",
            deadline=START_DEADLINE,
            child=self.agent,
        )
        return self.agent

    def wait_until_ready(self) -> None:
        """Wait until the agent has read the whole table; raises StackError."""
        processes.wait_until(
            lambda: self.health("/.homeport/ready") == 200,
            what="the proxy's first reading of the table",
            deadline=START_DEADLINE,
            child=self.agent,
        )

    def stop(self) -> None:
        """Stop both."""
        for child in (self.haproxy, self.agent):
            if child is not None:
                processes.stop(child)

    def health(self, path: str = "/.homeport/health", *, timeout: float = 5) -> int:
        """Ask at the socket file for health; the status, or 0 if there is no answer in time (seconds)."""
        connection = SocketFileConnection(Path(os.path.relpath(self.settings.run / HEALTH_SOCKET)), timeout=timeout)
        try:
            connection.request("GET", path)
            return connection.getresponse().status
        except (OSError, http.client.HTTPException):
            return 0
        finally:
            connection.close()


@contextmanager
def running(
    *, folder: Path, port: int, notebook_ca: bytes, client: Pair, environ: Mapping[str, str], wait: bool = True
) -> Iterator[Proxy]:
    """Run a proxy for as long as the block lasts; raises StackError, BadConfiguration.

    `notebook_ca` is the PEM certificate that notebooks' leaves are checked with, `client` what the proxy shows them.
    `environ` is the agent's whole environment: the hub's HOMEPORT_… variables (table, hub origin, notebook URL) and
    those of AWS. `wait`: until the table was read.
    """
    given = {
        **environ,
        "HOMEPORT_PROXY_RUN": str(folder.absolute()),
        "HOMEPORT_PROXY_BIND": f"{LOOPBACK}:{port}",
        "HOMEPORT_PROXY_NOTEBOOK_CA": Pair(notebook_ca).to_json(),
        "HOMEPORT_PROXY_CLIENT": client.to_json(),
    }
    settings = Settings.from_environ(given)
    prepare(settings)
    proxy = Proxy(settings, given, folder)
    try:
        proxy.start_agent()
        proxy.start_haproxy()
        if wait:
            proxy.wait_until_ready()
        yield proxy
    finally:
        proxy.stop()
