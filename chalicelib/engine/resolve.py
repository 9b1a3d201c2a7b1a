"""From an endpoint's name to the one address that is connected to: looked up once, every answer checked."""

from __future__ import annotations

import socket
from collections.abc import Callable
from typing import Any

from chalicelib.bundle.address import AddressPolicy, Endpoint
from chalicelib.engine import errors


def resolve(
    endpoint: Endpoint, policy: AddressPolicy, getaddrinfo: Callable[..., list[Any]] = socket.getaddrinfo
) -> str:
    """Look the endpoint's name up, once, and give the address to connect to.

    Raises ForbiddenAddress when any answer is forbidden, EndpointNameUnknown, EndpointUnreachable.
    """
    policy.check_port(endpoint)
    try:
        answers = getaddrinfo(endpoint.host, endpoint.port, type=socket.SOCK_STREAM, proto=socket.IPPROTO_TCP)
    except socket.gaierror as error:
        if error.errno == socket.EAI_AGAIN:
            raise errors.EndpointUnreachable(
                f"The name {endpoint.host} could not be looked up just now. The hub will try again"
            ) from error
        raise _unknown_name(endpoint) from error
    except UnicodeError as error:
        raise _unknown_name(endpoint) from error
    return policy.check([str(answer[4][0]) for answer in answers])


def _unknown_name(endpoint: Endpoint) -> errors.EndpointNameUnknown:
    return errors.EndpointNameUnknown(
        f"No address is known for {endpoint.host}. Check the name's spelling, or give the endpoint's IP address"
    )
