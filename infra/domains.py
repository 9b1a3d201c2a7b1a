"""What browsers make of the domains that the operator has chosen: one site or two, and a public suffix or not.

What a public suffix is, is taken from the copy of the public suffix list in the package publicsuffixlist, which is as
old as the lock; browsers carry copies of their own.
"""

from __future__ import annotations

from collections.abc import Iterator

from publicsuffixlist import PublicSuffixList

from infra.findings import Finding
from infra.request import Request


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
