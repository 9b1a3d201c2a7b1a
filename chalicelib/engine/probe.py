"""Whether a notebook answers, and since when it is idle: one request over mutual TLS, to the port and under the name
that are this launch's own."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from datetime import datetime
from typing import Final

from chalicelib.engine import errors
from chalicelib.engine.transport import Budget, Channel, new_context
from chalicelib.notebook.certificates import HubTrust, notebook_name
from chalicelib.session.values import Target

STATUS_BYTES: Final = 4096  # Jupyter's has about 120


def probe(
    target: Target, host: str, trust: HubTrust, *, deadline: float, clock: Callable[[], float] = time.monotonic
) -> float | None:
    """Ask the notebook for its status over mutual TLS, `deadline` seconds long.

    Gives since when it is idle (epoch seconds), None while it runs a kernel or does not say; a hint, as it may say
    anything. Raises NotebookSilent, NotebookUnreachable, NotebookWrongCertificate, NotebookNotTls.
    """
    ca, leaf = trust.notebook_ca.certificate, trust.probe
    context = new_context(ca=ca, certificate=leaf.certificate, key=leaf.key)
    channel = Channel(target.address, target.port, notebook_name(host), context, Budget(clock, deadline))
    try:
        status, body = _status(channel)
    except errors.EndpointWrongCertificate as error:
        raise errors.NotebookWrongCertificate(
            f"Port {target.port} of the endpoint is answered by something other than this notebook. Launch again"
        ) from error
    except errors.EndpointNotTls as error:
        raise errors.NotebookNotTls(
            f"What answers at port {target.port} of {target.address} does not speak TLS, so it is not JupyterLab as "
            "the hub starts it. Choose an image whose entry point runs the command that it is given"
        ) from error
    except errors.EndpointError as error:
        if channel.reached:
            raise errors.NotebookSilent("The notebook does not answer yet") from error
        raise _unreachable(target, error) from error
    if status != 200:
        raise errors.NotebookSilent(f"The notebook answers with status {status}")
    if channel.nameless:
        raise errors.NotebookWrongCertificate("The notebook's certificate contains no name. Launch again")
    return _idle_since(body)


def _idle_since(body: bytes) -> float | None:
    """Read Jupyter Server's status (its `last_activity` has the time zone Z); anything else says nothing."""
    try:
        status = json.loads(body)
        return None if status["kernels"] else datetime.fromisoformat(status["last_activity"]).timestamp()
    except (KeyError, OverflowError, RecursionError, TypeError, ValueError):
        return None


def _unreachable(target: Target, error: errors.EndpointError) -> errors.NotebookUnreachable:
    what, open_ports = "cannot be reached from the hub", "Open"
    if isinstance(error, errors.ConnectionRefused):  # as it is until the notebook listens
        what, open_ports = "refuses the hub's connections", "If this goes on, open"
    return errors.NotebookUnreachable(
        f"The notebook was started, but port {target.port} of {target.address} {what}. {open_ports} the ports that "
        "Docker publishes (usually 32768 to 60999) in its firewall"
    )


def _status(channel: Channel) -> tuple[int, bytes]:
    pool = channel.open_pool()
    try:
        with channel.failures():
            response = pool.urlopen(
                "GET",
                "/api/status",
                headers={"Host": channel.host, "Accept-Encoding": "identity", "User-Agent": "homeport"},
                retries=False,
                redirect=False,
                preload_content=False,
            )
            body = response.read(STATUS_BYTES, decode_content=False)  # a few bytes can be made to decode to gigabytes
            response.close()
            return int(response.status), body
    finally:
        pool.close()
