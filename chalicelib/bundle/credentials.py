"""What is sealed for a launch: the endpoint, the PEM that opens it, and the values of the visitor's variables.

The form in which it is sealed is decided here. A version that knows no variables opens it too, and passes them over:
after a rollback it can still watch, stop and remove what runs.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Self

from chalicelib.bundle.address import Endpoint, parse_endpoint
from chalicelib.bundle.errors import BadEndpoint
from chalicelib.errors import BadEnvelope

_STORED_VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Credentials:
    """What opens a Docker endpoint: PEM of the CA, of the client certificate (leaf first) and of its key.

    `environment` is set in the launch's container: no part of a bundle, and as secret.
    """

    endpoint: Endpoint
    ca: bytes = field(repr=False)
    certificate: bytes = field(repr=False)
    key: bytes = field(repr=False)
    environment: Mapping[str, str] = field(default_factory=dict, repr=False, hash=False, kw_only=True)

    def to_bytes(self) -> bytes:
        """Encode for sealing."""
        document = {
            "version": _STORED_VERSION,
            "endpoint": str(self.endpoint),
            "ca": self.ca.decode("ascii"),
            "certificate": self.certificate.decode("ascii"),
            "key": self.key.decode("ascii"),
            **({"environment": dict(self.environment)} if self.environment else {}),
        }
        return json.dumps(document, ensure_ascii=False).encode()

    @classmethod
    def from_bytes(cls, data: bytes) -> Credentials:
        """Decode what `to_bytes` gave; raises BadEnvelope for anything else, with none of it in a traceback."""
        try:
            return cls._decoded(json.loads(data))
        except (ValueError, KeyError, TypeError, AttributeError, BadEndpoint):
            del data
        raise BadEnvelope("The stored credentials are not in a form this version reads. Upload the bundle again")

    @classmethod
    def _decoded(cls, document: Any) -> Self:
        if document["version"] != _STORED_VERSION:
            raise ValueError
        ca, certificate, key = (document[name].encode("ascii") for name in ("ca", "certificate", "key"))
        environment = document.get("environment", {})
        if not all(isinstance(value, str) for value in environment.values()):
            raise TypeError
        return cls(parse_endpoint(document["endpoint"]), ca, certificate, key, environment=environment)
