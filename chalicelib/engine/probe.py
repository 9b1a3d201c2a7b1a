"""Whether a notebook answers: one request over mutual TLS, to the port and under the name that are this launch's
own."""

from __future__ import annotations

import time
from collections.abc import Callable

from chalicelib.engine import errors
from chalicelib.engine.transport import Budget, Channel, new_context
from chalicelib.notebook.certificates import HubTrust, notebook_name
from chalicelib.session.values import Target


def probe(
    target: Target, host: str, trust: HubTrust, *, deadline: float, clock: Callable[[], float] = time.monotonic
) -> None:
    """Ask the notebook for its status over mutual TLS, `deadline` seconds long.

    Raises NotebookSilent, NotebookWrongCertificate.
    """
    ca, leaf = trust.notebook_ca.certificate, trust.probe
    context = new_context(ca=ca, certificate=leaf.certificate, key=leaf.key)
    channel = Channel(target.address, target.port, notebook_name(host), context, Budget(clock, deadline))
    try:
        status = _status(channel)
    except errors.EndpointWrongCertificate as error:
        raise errors.NotebookWrongCertificate(
            f"Port {target.port} of the endpoint is answered by something other than this notebook. Launch again"
        ) from error
    except (errors.EndpointTimeout, errors.EndpointUnreachable) as error:
        raise errors.NotebookSilent(
            f"The notebook's port {target.port} cannot be reached from the hub. Open the ports that Docker publishes "
            "(usually 32768 to 60999) in the endpoint's firewall"
        ) from error
    except errors.EndpointError as error:
        raise errors.NotebookSilent("The notebook does not answer yet") from error
    if status != 200:
        raise errors.NotebookSilent(f"The notebook answers with status {status}")
    if channel.nameless:
        raise errors.NotebookWrongCertificate("The notebook's certificate contains no name. Launch again")


def _status(channel: Channel) -> int:
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
            response.close()
            return int(response.status)
    finally:
        pool.close()
