"""A notebook ends by itself when it is idle, and never while a kernel is busy or a browser is connected: all real.

The image's entry point shortens the idle time that the hub has put into the configuration, and the image has the server
look every second whether it is idle, instead of every minute.
"""

from __future__ import annotations

import json
import secrets
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from typing import Final

import docker
from websocket import WebSocket, create_connection

from local import demo
from local.demo import HubClient, Notebook
from local.run import Stack
from tests.integration.test_quick_start import an_image
from tests.integration.test_volume import Lab
from tests.integration.test_whole_path import eventually

IDLE: Final = 3  # seconds
BUSY: Final = 3 * IDLE
HURRY: Final = f'sed -i "s/7200/{IDLE}/; s/300/1/" /opt/homeport/jupyter_server_config.json'
IMAGE: Final = f"""
FROM {{image}}
USER root
RUN cd "$(/opt/jupyter/bin/python -c 'import jupyter_server as it; print(it.__path__[0])')" \\
 && sed -i 's/shutdown_no_activity, 60000/shutdown_no_activity, 1000/' serverapp.py \\
 && grep -q 'shutdown_no_activity, 1000' serverapp.py && rm __pycache__/serverapp.*
RUN printf '%s\\n' '#!/bin/sh' '{HURRY}' 'exec "$@"' > /usr/local/bin/hurry && chmod 755 /usr/local/bin/hurry
ENV HOME=/root
ENTRYPOINT ["/usr/local/bin/hurry"]
"""
CELL: Final = f"import time; time.sleep({BUSY}); open('done.txt', 'w').write('done')"


@contextmanager
def connected(notebook: Notebook, kernel: str) -> Iterator[WebSocket]:
    """A browser's connection to a kernel."""
    with closing(
        create_connection(
            f"ws://127.0.0.1:{notebook.port}/api/kernels/{kernel}/channels",
            host=notebook.host,
            origin=notebook.origin,
            cookie=f"{demo.COOKIE}={notebook.grant}",
            timeout=60,
        )
    ) as socket:
        yield socket


def execute(socket: WebSocket, code: str) -> None:
    """Send a cell, and wait for nothing but that the kernel has begun with it."""
    header = {"msg_id": secrets.token_hex(8), "msg_type": "execute_request", "session": "test", "version": "5.3"}
    content = {"code": code, "silent": False, "store_history": False, "user_expressions": {}, "allow_stdin": False}
    message = {"header": {**header, "username": "", "date": "2026-01-01T00:00:00Z"}, "parent_header": {}}
    socket.send(json.dumps({**message, "metadata": {}, "content": content, "channel": "shell", "buffers": []}))
    while json.loads(socket.recv())["msg_type"] != "execute_input":
        pass


def test_an_idle_notebook_ends_by_itself_and_a_busy_or_connected_kernel_is_never_culled(
    stack: Stack, notebook_image: str
) -> None:
    with (
        an_image(stack, "idle", IMAGE.format(image=notebook_image)) as image,
        closing(HubClient(stack.hub_address)) as hub,
        closing(docker.DockerClient(base_url=stack.engine_url)) as engine,
    ):
        sid = hub.launch(Path(stack.bundle), "idle", image)["id"]
        try:
            session = demo.follow(hub, sid, "ready")
            container = engine.containers.get(session["container"])
            notebook = demo.enter(stack.hub_url, hub.enter(sid), stack.proxy_port)
            lab = Lab(notebook)
            busy, connected_to = (lab.json("POST", "/api/kernels", {"path": ""})["id"] for _ in range(2))
            with connected(notebook, connected_to):
                with connected(notebook, busy) as socket:
                    execute(socket, CELL)
                # From here on no browser is connected to the busy kernel, and one is to the idle one.
                eventually(lambda: container.exec_run(["test", "-e", "/home/jovyan/work/done.txt"]).exit_code == 0)
                assert connected_to in {kernel["id"] for kernel in lab.json("GET", "/api/kernels")}
            container.reload()
            assert container.status == "running"
            assert container.wait(timeout=60)["StatusCode"] == 0
        finally:
            hub.stop(sid)
            demo.follow(hub, sid, "stopped")
