"""`chalice local`, as engineers run it, serves the hub in the environment of `make run`."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import requests

from local import processes
from local.aws import own_environ
from local.settings import ROOT
from tests.functional.hub_rig import a_bundle
from tests.role_guard import guarded_aws
from tests.roles import environ_of


def test_chalice_local_launches_sessions_too(tmp_path: Path) -> None:
    port = processes.free_port()
    command = [
        str(Path(sys.executable).parent / "chalice"),
        "local",
        "--no-autoreload",
        "--port",
        str(port),
    ]
    with guarded_aws(tmp_path / "aws") as cloud:
        environ = own_environ(os.environ) | environ_of("web", cloud.environ)
        with processes.running("chalice", command, folder=tmp_path, environ=environ, cwd=ROOT) as child:
            processes.wait_for_port(port, child=child, deadline=60)
            url = f"http://127.0.0.1:{port}"
            assert requests.get(f"{url}/health", timeout=30).json()["status"] == "ok"
            answer = requests.post(
                f"{url}/sessions",
                files={"credentials": ("credentials.zip", a_bundle())},
                data={"name": "by chalice local"},
                headers={"Accept": "application/json"},
                timeout=30,
            )
            assert answer.status_code == 201
            page = requests.get(f"{url}/", timeout=30)
            assert page.headers["content-type"].startswith("text/html")
        stored = cloud.client("s3").list_objects_v2(Bucket=cloud.environ["HOMEPORT_BUCKET"])
        assert [entry["Key"] for entry in stored["Contents"]] == [f"credentials/{answer.json()['id']}/1"]
