"""JupyterLab's quick start (docs/adr/0014) in real containers of three kinds of images, and switched off."""

from __future__ import annotations

import io
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Any, Final

import docker

from local import demo
from local.demo import HubClient
from local.run import Stack

# The Jupyter Docker Stacks: an entrypoint that is a shell script, programs that look their interpreter up.
STACKS: Final = """
FROM {image}
USER root
RUN printf '#!/bin/bash\\nset -e\\nexport FROM_THE_ENTRYPOINT=yes\\nexec "$@"\\n' > /usr/local/bin/start.sh \\
 && chmod 755 /usr/local/bin/start.sh \\
 && sed -i '1s|.*|#!/usr/bin/env python3|' /opt/jupyter/bin/jupyter /opt/jupyter/bin/jupyter-lab
USER jovyan
ENTRYPOINT ["tini", "-g", "--", "start.sh"]
"""
# An image whose programs are wrappers in shell, as conda's are when their path is long.
WRAPPED: Final = """
FROM {image}
USER root
RUN cd /opt/jupyter/bin && mv jupyter-lab lab.py \\
 && printf '#!/bin/sh\\nexec /opt/jupyter/bin/python3 /opt/jupyter/bin/lab.py "$@"\\n' > jupyter-lab \\
 && chmod 755 jupyter-lab
USER jovyan
"""
# One whose jsonschema does not know the format at all.
WITHOUT: Final = """
FROM {image}
RUN rm -r /opt/jupyter/lib/python3*/site-packages/rfc3987_syntax*
"""
# In a kernel: how it uses the module, whether the server is the process that tini started, and what that has loaded.
LOOK: Final = """
import os, subprocess
try:
    import rfc3987_syntax
    print(type(rfc3987_syntax).__name__, rfc3987_syntax.is_valid_syntax("iri", "https://example.org/é"))
except ImportError as error:
    print(type(error).__name__)
server = os.getppid()
with open(f"/proc/{server}/cmdline") as line:
    print(*line.read().split(chr(0)))
print(os.environ.get("FROM_THE_ENTRYPOINT"), open(f"/proc/{server}/stat").read().split()[3])
"""
QUICK: Final = "/opt/homeport/start.py /opt/jupyter/bin/jupyter-lab --no-browser"


@contextmanager
def an_image(stack: Stack, name: str, dockerfile: str) -> Iterator[str]:
    tag = f"homeport-{name}-test:latest"
    with closing(docker.DockerClient(base_url=stack.engine_url)) as client:
        client.images.build(fileobj=io.BytesIO(dockerfile.encode()), tag=tag, rm=True)
        try:
            yield tag
        finally:
            client.images.remove(tag, force=True)


def seen_in(stack: Stack, image: str) -> list[str]:
    """Launch the image, and look from a kernel."""
    with closing(HubClient(stack.hub_address)) as hub:
        session: dict[str, Any] = hub.launch(Path(stack.bundle), "quick start", image)
        try:
            demo.follow(hub, session["id"], "ready")
            notebook = demo.enter(stack.hub_url, hub.enter(session["id"]), stack.proxy_port)
            return demo.run_cell(notebook, LOOK).strip().splitlines()
        finally:
            hub.stop(session["id"])
            demo.follow(hub, session["id"], "stopped")


def test_a_plain_image_starts_quickly_and_its_kernels_have_the_real_module(stack: Stack, notebook_image: str) -> None:
    module, command, entrypoint = seen_in(stack, notebook_image)
    assert module == "module True"
    assert command.strip().endswith(QUICK)
    assert entrypoint == "None 1"


def test_the_docker_stacks_entrypoint_is_run_first(stack: Stack, notebook_image: str) -> None:
    with an_image(stack, "stacks", STACKS.format(image=notebook_image)) as image:
        module, command, entrypoint = seen_in(stack, image)
    assert module == "module True"
    assert command.split() == ["python3", *QUICK.split()]
    assert entrypoint == "yes 1"


def test_an_image_whose_program_is_a_wrapper_starts_as_ever(stack: Stack, notebook_image: str) -> None:
    with an_image(stack, "wrapped", WRAPPED.format(image=notebook_image)) as image:
        module, command, _ = seen_in(stack, image)
    assert module == "module True"
    assert "start.py" not in command
    assert command.strip().endswith("lab.py --no-browser")


def test_an_image_without_the_module_starts(stack: Stack, notebook_image: str) -> None:
    with an_image(stack, "without", WITHOUT.format(image=notebook_image)) as image:
        module, command, _ = seen_in(stack, image)
    assert module == "ModuleNotFoundError"
    assert command.strip().endswith(QUICK)
