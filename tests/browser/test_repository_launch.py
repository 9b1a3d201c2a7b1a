"""A visitor's whole way by a badge's link in a real browser: whose code it is, bundle, build, JupyterLab."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Final
from urllib.parse import quote

import docker
import pytest
from playwright.sync_api import Browser, Page, expect

from local.run import Stack
from tests.browser.conftest import PATIENCE
from tests.git_rig import GitSite, Repository
from tests.repository_rig import lessons

PARTS: Final = 5  # that the build prints, one a second
LESSON: Final = "The first lesson of this course"
NOTEBOOK: Final = json.dumps(
    {
        "nbformat": 4,
        "nbformat_minor": 5,
        "metadata": {"kernelspec": {"name": "python3", "display_name": "Python 3", "language": "python"}},
        "cells": [
            {"cell_type": "markdown", "id": "lesson", "metadata": {}, "source": f"# {LESSON}"},
            {
                "cell_type": "code",
                "id": "answer",
                "metadata": {},
                "source": "6 * 7",
                "outputs": [],
                "execution_count": None,
            },
        ],
    }
)
# What the page says while something is done, in turn.
HEAR: Final = """() => {
    const message = document.getElementById("message");
    new MutationObserver(() => heard(message.textContent)).observe(message, {childList: true, characterData: true});
}"""


@pytest.fixture(scope="module")
def course(site: GitSite, notebook_image: str) -> Repository:
    """A repository whose build goes on for a while and says so."""
    dockerfile = (
        f"FROM {notebook_image}\n"
        "RUN echo the course > /home/jovyan/built.txt\n"
        f"RUN for part in $(seq {PARTS}); do echo part $part of {PARTS}; sleep 1; done\n"
    )
    return lessons(site, "o/course", notebook_image, Dockerfile=dockerfile, first_dot_ipynb=NOTEBOOK)


@pytest.fixture
def plain(browser: Browser) -> Iterator[Page]:
    """A page of a visitor without script."""
    context = browser.new_context(java_script_enabled=False)
    context.set_default_timeout(PATIENCE)
    yield context.new_page()
    context.close()


def follow_link(page: Page, stack: Stack, repository: Repository) -> None:
    """Open the link of a badge, and see that it says in two sentences what would run, and that nothing does yet."""
    page.goto(f"{stack.hub_url}/v2/git/{quote(repository.address, safe='')}/main?labpath=first.ipynb")
    said = page.locator("#consent-full")
    expect(said).to_contain_text("its authors wrote it, and this hub has not checked it")
    expect(said).to_contain_text("on the machine of your own Docker endpoint")
    expect(said).to_contain_text("nothing runs until you press Launch")
    assert len(re.findall(r"[.](?=\s|$)", said.inner_text())) == 2
    expect(page.get_by_label("Address of the repository")).to_have_value(repository.address)


def launch(page: Page, stack: Stack, name: str) -> str:
    """Choose the bundle and launch; gives the session page's address."""
    page.get_by_label("Credentials of your Docker endpoint").set_input_files(stack.bundle)
    page.get_by_label("Name of the notebook").fill(name)
    page.get_by_role("button", name="Launch", exact=True).click()
    page.wait_for_url("**/sessions/*")
    return page.url.split("#")[0]


def stop(page: Page, session: str) -> None:
    page.goto(session)
    page.get_by_text("Stop…", exact=True).click()
    page.get_by_role("button", name="Stop the notebook").click()
    expect(page.locator("#chip")).to_have_text("Stopped", timeout=PATIENCE)


def test_a_badge_leads_by_way_of_a_build_into_its_notebook_in_jupyterlab(
    visitor: Page, stack: Stack, course: Repository, behind: docker.APIClient
) -> None:
    follow_link(visitor, stack, course)
    heard: list[str] = []

    def hear(line: str) -> None:
        heard.append(line)

    visitor.expose_function("heard", hear)
    session = launch(visitor, stack, "by a badge")
    visitor.evaluate(HEAR)
    expect(visitor.locator("#steps [aria-current=step]")).to_have_text("Build", timeout=PATIENCE)
    expect(visitor.locator("#message")).to_contain_text(re.compile(rf"part \d of {PARTS}"), timeout=PATIENCE)
    visitor.wait_for_url("**/lab/tree/first.ipynb")
    assert len({line for line in heard if re.search(rf"part \d of {PARTS}$", line)}) >= 2
    expect(visitor.locator(".jp-Notebook .jp-MarkdownOutput")).to_contain_text(LESSON, timeout=PATIENCE)
    expect(visitor.locator(".jp-Notebook .jp-CodeCell .cm-content").first).to_have_text("6 * 7", timeout=PATIENCE)
    stop(visitor, session)


def test_without_script_the_same_link_leads_to_the_button_that_enters(
    plain: Page, stack: Stack, course: Repository, behind: docker.APIClient
) -> None:
    follow_link(plain, stack, course)
    session = launch(plain, stack, "by a plain form")
    expect(plain.locator("#steps")).to_contain_text("Build")
    expect(plain.get_by_role("button", name="Open the notebook")).to_be_visible(timeout=PATIENCE)
    expect(plain.locator("#log")).to_contain_text("is at")
    stop(plain, session)
