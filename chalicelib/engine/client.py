"""docker-py's client on our own transport, without its trust in files, environment variables and answers.

It is made without its constructor, which reads ~/.docker/config.json: no registry credentials, proxies or headers of
the hub's own machine ever reach a visitor's endpoint. No redirect is followed and no compressed answer decoded.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from urllib.parse import quote

import requests
from docker.api.client import APIClient
from docker.auth import AuthConfig
from docker.constants import MINIMUM_DOCKER_API_VERSION
from docker.utils.proxy import ProxyConfig
from requests.adapters import HTTPAdapter
from urllib3 import BaseHTTPResponse, HTTPConnectionPool

from chalicelib.engine import errors
from chalicelib.engine.answers import json_of, minor_version
from chalicelib.engine.messages import message_of
from chalicelib.engine.transport import ANSWER_BYTES, Channel


class ApiError(Exception):
    """The engine answered with an error status and this sentence, which is not part of the exception's own text."""

    def __init__(self, status: int, text: str) -> None:
        super().__init__(str(status))
        self.status = status
        self.text = text


class Client(APIClient):
    """docker-py's low-level client without its files, environment variables, redirects and trust in answers."""

    def __init__(self, channel: Channel) -> None:
        requests.Session.__init__(self)  # not APIClient's: it reads ~/.docker/config.json and connects
        self._channel = channel
        self.adapters.clear()
        self.mount("https://", _Adapter(channel))
        self.trust_env = False
        self.headers.update({"Accept-Encoding": "identity", "Host": channel.host, "User-Agent": "homeport"})
        self.base_url = f"https://{channel.host}"
        self.timeout = None  # type: ignore[assignment]  # the channel's budget is the one clock
        self.credstore_env = None
        self._general_configs: dict[str, Any] = {}
        self._proxy_configs = ProxyConfig()
        self._auth_configs = AuthConfig({})
        self._version = MINIMUM_DOCKER_API_VERSION

    def url(self, path: str, *names: str) -> str:
        """The URL of a path of the API, its {0}… replaced by names."""
        return f"{self.base_url}/v{self._version}{path.format(*(quote(name, safe='') for name in names))}"

    def use_version(self, version: str) -> None:
        """Speak this version of the API from now on."""
        self._version = version

    def request(self, *args: Any, **kwargs: Any) -> requests.Response:
        """Send a request; everything docker-py does comes through here. Raises an EndpointError."""
        kwargs["allow_redirects"] = False
        self._channel.budget.begin_call()
        with self._channel.failures():
            return super().request(*args, **kwargs)

    def ping_version(self) -> str | None:
        """Ask for the newest API version the cheap way; None when the engine does not say it there."""
        response = self.get(f"{self.base_url}/_ping")
        self._raise_for_status(response)
        version = response.headers.get("Api-Version")
        return version if minor_version(version) is not None else None

    def get_bytes(self, path: str, name: str, params: Mapping[str, Any], *, most: int = ANSWER_BYTES) -> bytes:
        """GET what is not JSON, of at most so many bytes."""
        with self._channel.budget.answers_of(most):
            response = self.get(self.url(path, name), params=params)
        self._raise_for_status(response)
        return bytes(response.content)

    def _raise_for_status(self, response: requests.Response) -> None:
        if response.status_code >= 400:
            raise ApiError(response.status_code, message_of(response.content))

    def _result(self, response: requests.Response, json: bool = False, binary: bool = False) -> Any:
        self._raise_for_status(response)
        if json:
            return json_of(response.content)
        return response.content if binary else response.content.decode("utf-8", "replace")


class _Adapter(HTTPAdapter):
    """requests' adapter on a channel's one pool; it refuses what is never followed or decoded."""

    def __init__(self, channel: Channel) -> None:
        self._channel = channel
        self._pool = channel.open_pool()
        super().__init__(max_retries=0)

    def get_connection_with_tls_context(self, *args: Any, **kwargs: Any) -> HTTPConnectionPool:
        """Give the one pool there is, whatever the URL, proxies or trust that requests worked out."""
        return self._pool

    def cert_verify(self, *args: Any, **kwargs: Any) -> None:
        """Leave the context alone: requests would put its own trust into it."""

    def close(self) -> None:
        """Close the pool."""
        self._pool.close()
        super().close()

    def build_response(self, req: requests.PreparedRequest, resp: BaseHTTPResponse) -> requests.Response:
        """Refuse redirects and encodings before a byte of the body is read."""
        try:
            self._check(resp)
        except errors.EndpointError:
            resp.close()
            raise
        original = getattr(resp, "_original_response", None)
        if original is not None:
            del original.msg["Set-Cookie"]  # an engine sets none, and none would be sent back
        return super().build_response(req, resp)

    def _check(self, resp: BaseHTTPResponse) -> None:
        if 300 <= resp.status < 400 and resp.status != 304:
            raise errors.EndpointRedirected(
                f"{self._channel.host} redirects elsewhere ({resp.status}), and the hub follows no redirect. Give the "
                "Docker endpoint's own address"
            )
        if (
            not 200 <= resp.status < 600
            or resp.headers.get("Content-Encoding", "identity").strip().lower() != "identity"
        ):
            raise errors.NotADockerEngine(
                f"{self._channel.host} does not answer like a Docker Engine. Check that the address and port are your "
                "Docker endpoint's, without a web server that compresses its answers in between"
            )
