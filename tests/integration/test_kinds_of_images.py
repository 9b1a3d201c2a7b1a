"""What an image brings is respected (user, entry point, working directory, health check); what is no notebook is told.

The layouts are those of images in use, on the local image's programs: nothing of theirs is downloaded. That the
entry point runs before the quick start is also in test_quick_start.py, what survives a launch in test_volume.py.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import docker
import pytest

from local import demo
from local.demo import HubClient
from local.run import Stack
from tests.integration.test_quick_start import an_image

# Each says what the engine would call unhealthy: a look over plain HTTP, without the proxy's certificate.
HEALTH: Final = "HEALTHCHECK --interval=1s --timeout=1s --retries=1 CMD python3 -c 'raise SystemExit(1)'"

# The Jupyter Docker Stacks: a user by number with the group `users`, tini and a script in front, a health check.
STACKS: Final = """
FROM {image}
USER root
RUN /usr/sbin/usermod --gid 100 jovyan && chown -R 1000:100 /home/jovyan \\
 && printf '%s\\n' '#!/bin/bash' 'set -e' 'export FROM_THE_ENTRYPOINT="start.sh as $(id -u)"' 'exec "$@"' \\
    > /usr/local/bin/start.sh && chmod 755 /usr/local/bin/start.sh
ENV NB_USER=jovyan NB_UID=1000 NB_GID=100 HOME=/home/jovyan
USER 1000
WORKDIR /home/jovyan
{health}
ENTRYPOINT ["tini", "-g", "--", "start.sh"]
CMD ["start-notebook.py"]
"""
# `pip install jupyterlab` and nothing else: root, no entry point, the working directory /.
PLAIN: Final = """
FROM {image}
USER root
ENV HOME=/root
WORKDIR /
ENTRYPOINT []
CMD ["python3"]
"""
# repo2docker: a user by name, programs on a PATH of the image's own, an entry point in Python that keeps a log.
REPO2DOCKER: Final = """
FROM {image}
USER root
RUN mkdir -p /srv/conda/envs && ln -s /opt/jupyter /srv/conda/envs/notebook && rm -r /home/jovyan/work \\
 && printf '%s\\n' '#!/usr/bin/env -S python3 -u' 'import os, signal, subprocess, sys' \\
    'os.environ["FROM_THE_ENTRYPOINT"] = "repo2docker-entrypoint as " + str(os.getuid())' \\
    'child = subprocess.Popen(sys.argv[1:], stdout=subprocess.PIPE, stderr=subprocess.STDOUT)' \\
    'signal.signal(signal.SIGTERM, lambda *_: child.terminate())' \\
    'with open(os.environ["REPO_DIR"] + "/.jupyter-server-log.txt", "ab") as log:' \\
    '    for line in child.stdout: log.write(line); sys.stdout.buffer.write(line)' \\
    'sys.exit(child.wait())' > /usr/local/bin/repo2docker-entrypoint \\
 && chmod 755 /usr/local/bin/repo2docker-entrypoint
ENV REPO_DIR=/home/jovyan HOME=/home/jovyan NB_USER=jovyan NB_UID=1000 \\
    PATH=/home/jovyan/.local/bin:/srv/conda/envs/notebook/bin:/usr/local/bin:/usr/bin:/bin
USER jovyan
WORKDIR /home/jovyan
{health}
ENTRYPOINT ["/usr/local/bin/repo2docker-entrypoint"]
CMD ["jupyter", "notebook", "--ip", "0.0.0.0"]
"""

LOOK: Final = """
import json, os
from pathlib import Path
work = Path.cwd()
first = not (work / "kept.txt").exists()
(work / "kept.txt").open("a").write("x")
print(json.dumps({
    "launch": len((work / "kept.txt").read_text()), "user": [os.getuid(), os.getgid()], "home": str(Path.home()),
    "work": str(work), "owner": work.stat().st_uid, "entrypoint": os.environ.get("FROM_THE_ENTRYPOINT"),
}))
"""


@dataclass(frozen=True)
class Kind:
    dockerfile: str
    user: tuple[int, int]
    home: str
    entrypoint: str | None


KINDS: Final = {
    "docker-stacks": Kind(STACKS, (1000, 100), "/home/jovyan", "start.sh as 1000"),
    "pip": Kind(PLAIN, (0, 0), "/root", None),
    "repo2docker": Kind(REPO2DOCKER, (1000, 1000), "/home/jovyan", "repo2docker-entrypoint as 1000"),
}


@pytest.fixture
def hub(stack: Stack) -> Iterator[HubClient]:
    with closing(HubClient(stack.hub_address)) as client:
        yield client


@pytest.mark.parametrize("name", KINDS)
def test_an_images_own_ways_are_respected(name: str, hub: HubClient, stack: Stack, notebook_image: str) -> None:
    kind = KINDS[name]
    dockerfile = kind.dockerfile.format(image=notebook_image, health=HEALTH)
    with an_image(stack, name, dockerfile) as image, closing(docker.APIClient(stack.engine_url)) as engine:
        for launch in (1, 2):
            session = hub.launch(Path(stack.bundle), name, image)
            try:
                ready = demo.follow(hub, session["id"], "ready")
                notebook = demo.enter(stack.hub_url, hub.enter(session["id"]), stack.proxy_port)
                seen: dict[str, Any] = json.loads(demo.run_cell(notebook, LOOK))
                assert "Health" not in engine.inspect_container(ready["container"])["State"]
            finally:
                hub.stop(session["id"])
                demo.follow(hub, session["id"], "stopped")
            assert seen == {
                "launch": launch,
                "user": list(kind.user),
                "home": kind.home,
                "work": "/home/jovyan/work",
                "owner": kind.user[0],
                "entrypoint": kind.entrypoint,
            }


def failure_of(hub: HubClient, stack: Stack, name: str, dockerfile: str) -> dict[str, str]:
    """Launch an image that is no notebook; says why it failed once it is stopped, with nothing left."""
    with an_image(stack, name, dockerfile) as image, closing(docker.APIClient(stack.engine_url)) as engine:
        sid = hub.launch(Path(stack.bundle), name, image)["id"]
        stopped = demo.follow(hub, sid, "stopped")
        assert engine.containers(all=True, filters={"label": f"homeport.session={sid}"}) == []
    error: dict[str, str] = stopped["error"]
    return error


def test_an_image_without_jupyter_fails_with_its_last_log_lines(
    hub: HubClient, stack: Stack, notebook_image: str
) -> None:
    entrypoint = 'ENTRYPOINT ["sh", "-c", "echo Setting up >&2; exec \\"$@\\"", "sh"]'
    dockerfile = f"FROM {notebook_image}\nENV PATH=/usr/bin:/bin\n{entrypoint}\n"
    error = failure_of(hub, stack, "without-jupyter", dockerfile)
    assert error["code"] == "image-without-jupyter"
    assert "no program called jupyter" in error["message"]
    assert "Last log lines: Setting up | /opt/homeport/start: " in error["message"]


def test_an_image_that_serves_plain_http_there_is_ended_at_once(
    hub: HubClient, stack: Stack, notebook_image: str
) -> None:
    dockerfile = f'FROM {notebook_image}\nENTRYPOINT ["tini", "--", "sh", "-c", "exec python3 -m http.server 8888"]\n'
    error = failure_of(hub, stack, "plain-http", dockerfile)
    assert error["code"] == "notebook-not-tls"
    assert "does not speak TLS" in error["message"]
