"""What `make doctor` says of a stage's domains."""

from __future__ import annotations

import pytest
from publicsuffixlist import PublicSuffixList

from infra.doctor import domains, look, main
from infra.findings import Finding

SUFFIXES = PublicSuffixList()


def found(hub: str, notebooks: str) -> tuple[bool | None, bool | None]:
    """How good the sites, and the notebooks' own domain, are found."""
    sites, suffix = domains(hub, notebooks, SUFFIXES)
    for finding in (sites, suffix):
        assert bool(finding.mend) == (finding.good is not True)
    return sites.good, suffix.good


@pytest.mark.parametrize(
    ("hub", "notebooks", "expected"),
    [
        ("hub.example.com", "notebooks.example.org", (True, None)),
        ("", "notebooks.example.org", (True, None)),
        ("hub.example.org", "notebooks.example.org", (False, None)),
        ("example.org", "notebooks.example.org", (False, None)),
        ("hub.notebooks.example.org", "notebooks.example.org", (False, None)),
        ("hub.example.co.uk", "notebooks.other.co.uk", (True, None)),
        ("hub.example.com", "github.io", (True, True)),
        ("hub.example.com", "mine.github.io", (True, None)),
        ("hub.github.io", "github.io", (False, True)),
    ],
)
def test_the_hubs_and_the_notebooks_domains_are_judged_as_browsers_do(
    hub: str, notebooks: str, expected: tuple[bool | None, bool | None]
) -> None:
    assert found(hub, notebooks) == expected


def test_what_holds_without_a_public_suffix_is_said() -> None:
    *_, suffix = look("prod", {"HOMEPORT_NOTEBOOK_URL": "https://*.notebooks.example.org"})
    assert "is not a public suffix" in suffix.what
    assert "set cookies for the others" in suffix.what
    assert "docs/operations.md" in suffix.mend


@pytest.mark.parametrize(
    ("environ", "status", "says"),
    [
        ({"HOMEPORT_NOTEBOOK_URL": "https://*.notebooks.example.org"}, 0, "could be better: notebooks.example.org"),
        (
            {"HOMEPORT_NOTEBOOK_URL": "https://*.n.example.org", "HOMEPORT_HUB_ORIGIN": "https://hub.example.org"},
            1,
            "WRONG: the hub and the notebooks are both of example.org",
        ),
        ({}, 2, "Not looked at. HOMEPORT_NOTEBOOK_URL is needed"),
    ],
)
def test_the_command_says_what_is_wrong_and_its_status_too(
    environ: dict[str, str], status: int, says: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["--stage", "prod"], environ) == status
    printed = capsys.readouterr()
    assert says in printed.out + printed.err


def test_a_finding_is_one_line_and_how_to_mend_it() -> None:
    assert str(Finding(True, "all is well")) == "ok: all is well"
    assert str(Finding(False, "it is not", "Do this.")) == "WRONG: it is not\n    Do this."
