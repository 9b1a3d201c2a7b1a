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

from publicsuffixlist import PublicSuffixList

from chalicelib.errors import HomeportError
from infra.findings import Finding
from infra.request import Request, read_request


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


def look_at_domains(request: Request) -> list[Finding]:
    """Look at the domains that the operator has chosen."""
    return list(domains(request.hub_domain, request.notebook_domain, PublicSuffixList()))


def look(stage: str, environ: Mapping[str, str]) -> list[Finding]:
    """Look at a stage; raises BadConfiguration as the deployment does."""
    return look_at_domains(read_request(stage, environ))


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
