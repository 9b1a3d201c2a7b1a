"""Look at a stage of the hub and say what is wrong and how to mend it: `make doctor STAGE=prod`.

It reads the same HOMEPORT_ variables as the deployment and asks nobody: what it looks at so far are the domains. What a
public suffix is, it takes from the copy of the public suffix list in the package publicsuffixlist, which is as old as
the lock; browsers carry copies of their own.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final
from urllib.parse import urlsplit

from publicsuffixlist import PublicSuffixList

from chalicelib.config import HUB_ORIGIN, NOTEBOOK_URL
from chalicelib.errors import HomeportError
from infra.deploy import read_request

MARKS: Final[Mapping[bool | None, str]] = {True: "ok", None: "could be better", False: "WRONG"}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing looked at. `good` is None for what works and could be better; `mend` says how, "" if it is good."""

    good: bool | None
    what: str
    mend: str = ""

    def __str__(self) -> str:
        return f"{MARKS[self.good]}: {self.what}" + (f"\n    {self.mend}" if self.mend else "")


def domains(hub: str, notebooks: str, suffixes: PublicSuffixList) -> Iterator[Finding]:
    """Look at the hub's host ("": it is API Gateway's) and at the domain that the notebooks' hosts are below."""
    site, other = (suffixes.privatesuffix(name) or name for name in (hub, notebooks))
    if not hub:
        yield Finding(True, f"the hub has API Gateway's address, which is another site than the notebooks', {other}")
    elif hub == notebooks or hub.endswith(f".{notebooks}"):
        what = f"the hub, {hub}, is among the notebooks"
        yield Finding(False, what, "Put nothing else below the notebooks' domain.")
    elif site == other:
        what = f"the hub and the notebooks are both of {site}, so browsers take them for one site"
        mend = "Give the notebooks a registrable domain of their own: they run their visitors' code."
        yield Finding(False, what, mend)
    else:
        yield Finding(True, f"the hub, of {site}, and the notebooks, of {other}, are different sites")
    if suffixes.publicsuffix(notebooks) == notebooks:
        yield Finding(True, f"{notebooks} is a public suffix: no notebook sets cookies for another one")
    else:
        what = (
            f"{notebooks} is not a public suffix: a notebook can set cookies for the others in the same browser. They "
            "open nothing. Up to 30 KB for one request the proxy withholds and deletes them; with more, the other "
            "notebooks answer with an error until the visitor deletes cookies"
        )
        yield Finding(None, what, 'How to get on the public suffix list: docs/operations.md, "The public suffix list".')


def look(stage: str, environ: Mapping[str, str]) -> list[Finding]:
    """Look at a stage; raises BadConfiguration as the deployment does."""
    options = read_request(stage, environ).options
    notebooks = urlsplit(NOTEBOOK_URL.read(options)).hostname or ""
    hub = urlsplit(options.get(HUB_ORIGIN.name, "")).hostname or ""
    return list(domains(hub, notebooks.removeprefix("*."), PublicSuffixList()))


def main(arguments: list[str], environ: Mapping[str, str]) -> int:
    """Print what was found; the exit status is 1 if something is wrong, 2 if nothing could be looked at."""
    parser = argparse.ArgumentParser(prog="python -m infra.doctor", description="Look at a stage of the hub.")
    parser.add_argument("--stage", required=True, help="the stage's name, such as dev or prod")
    try:
        found = look(parser.parse_args(arguments).stage, environ)
    except HomeportError as error:
        print(f"Not looked at. {error.message}", file=sys.stderr)
        return 2
    print("\n".join(map(str, found)))
    return int(any(finding.good is False for finding in found))


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:], os.environ))
