"""What `make run` and `make demo` are told through their environment."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Final

from chalicelib import environment
from chalicelib.environment import PORT, Kind, Variable, setting

ROOT: Final = Path(__file__).parent.parent

# Who uses one machine alone guards it against nobody; everybody's address is the same here.
NO_RATES: Final[Mapping[str, str]] = MappingProxyType(
    {"HOMEPORT_OWNER_LAUNCHES": "0", "HOMEPORT_OWNER_NOTEBOOKS": "0", "HOMEPORT_NETWORK_UPLOADS": "0"}
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Settings:
    """Where a stack keeps its state and which ports it takes."""

    hub_port: int = setting(Variable("HOMEPORT_HUB_PORT", PORT, "where `make run` offers the hub", default="8000"))
    proxy_port: int = setting(
        Variable("HOMEPORT_PROXY_PORT", PORT, "where `make run` offers the notebooks", default="8080")
    )
    endpoint_port: int = setting(
        Variable(
            "HOMEPORT_ENDPOINT_PORT",
            PORT,
            "where `make run` offers its Docker endpoint; another port if this one is taken",
            default="2376",
        )
    )
    state: Path = setting(
        Variable(
            "HOMEPORT_STATE_DIR",
            Kind("a folder", lambda text: Path(text).absolute()),
            "where `make run` keeps the notebook image and its logs",
            default=str(ROOT / ".homeport"),
            note="`.homeport`",
        )
    )

    @classmethod
    def from_environ(cls, environ: Mapping[str, str]) -> Settings:
        """Read the variables; raises BadConfiguration, which names the variable."""
        return environment.from_environ(cls, environ)

    @property
    def hub_name(self) -> str:
        """What this hub labels its containers with: the same from run to run of one state folder."""
        return f"local-{hashlib.sha256(str(self.state).encode()).hexdigest()[:8]}"

    @property
    def hub_url(self) -> str:
        return f"http://localhost:{self.hub_port}"
