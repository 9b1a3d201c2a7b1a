"""How many requests a second a server answers: asked by `wrk`, which takes little of the machine for itself."""

from __future__ import annotations

import re
import subprocess
from collections.abc import Mapping


def per_second(url: str, headers: Mapping[str, str], *, connections: int, seconds: int) -> float:
    """Ask from so many connections for so long; gives the requests a second, all of which were answered with 200."""
    given = [f"--header={name}: {value}" for name, value in headers.items()]
    command = ["wrk", "-t1", f"-c{connections}", f"-d{seconds}s", *given, url]
    said = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    assert "Non-2xx" not in said, said
    assert "Socket errors" not in said, said
    return float(re.findall(r"Requests/sec: *([0-9.]+)", said)[0])
