"""Wheels of a single module, for tests of what is installed."""

from __future__ import annotations

import hashlib
from pathlib import Path
from zipfile import ZipFile


def write_wheel(folder: Path, name: str, version: str, tag: str = "py3-none-any", *, code: str = "") -> str:
    """Write a wheel whose module `name` holds `code`; give its SHA-256 in hex."""
    name = name.replace("-", "_")
    information = f"{name}-{version}.dist-info"
    path = folder / f"{name}-{version}-{tag}.whl"
    with ZipFile(path, "w") as wheel:
        wheel.writestr(f"{name}.py", code)
        wheel.writestr(f"{information}/METADATA", f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
        wheel.writestr(f"{information}/WHEEL", f"Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: {tag}\n")
        wheel.writestr(f"{information}/RECORD", "")
    return hashlib.sha256(path.read_bytes()).hexdigest()
