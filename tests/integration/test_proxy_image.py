"""The proxy's image: built from its Dockerfile by the docker command, pushed with a password, and run as its task runs.

The base is made here by mmdebstrap, with the wheels of the proxy's lock for pip; Debian's packages come from the
machine's archive, as in a real build. The registry is Debian's docker-registry, which demands a password. AWS is moto,
which refuses what the policy of TaskRole does not allow (tests/role_guard.py).
"""

from __future__ import annotations

import base64
import http.client
import json
import os
import re
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from threading import Thread
from typing import Any, Final

import boto3
import docker
import pytest
from botocore.exceptions import ClientError
from docker.models.containers import Container

from chalicelib.aws.routes import RouteStore
from chalicelib.aws.sign_ins import SignIn
from chalicelib.aws.tokens import TokenStore
from chalicelib.errors import BadConfiguration
from chalicelib.notebook.certificates import Ca, issue_notebook
from chalicelib.notebook.pair import Pair
from chalicelib.session.values import Session, Target
from infra.certificates import ensure_certificates
from infra.images import Docker, Login, provide_image
from infra.stack import deploy_stack
from local import processes, recipe
from local.engine import Engine
from local.recipe import Recipe
from tests.builders import a_session
from tests.policies import REGION, ROOT, STAGE
from tests.proxy_rig import HUB, Answer, NotebookServer, ask, eventually
from tests.real_parts import KEPT_IMAGES
from tests.role_guard import RoleGuard, guarded_moto
from tests.roles import key_of

DOMAIN: Final = "notebooks.example.org"
PASSWORD: Final = "password"  # of the registry; hashed by bcrypt below
HTPASSWD: Final = "AWS:$2b$05$abcdefghijklmnopqrstuuWG29KuyeAicPCJODk1zjyGvyQUU2awu\n"
REGISTRY: Final = """\
version: 0.1
log: {{level: warn}}
storage: {{filesystem: {{rootdirectory: {folder}/data}}}}
http: {{addr: "127.0.0.1:{port}"}}
auth: {{htpasswd: {{realm: test, path: {folder}/htpasswd}}}}
"""
# What apt needs on this machine stays in the image, and pip finds the wheels of the lock there.
BASE: Final = Recipe(
    name="base of the proxy's image",
    kind="proxy-base",
    setting="BASE",
    lock=ROOT / "proxy" / "requirements.txt",
    contents="boto3",
    packages=("ca-certificates",),
    customize=(
        f"{recipe.INSIDE}"
        'cp -r @WHEELS@ "$root/opt/wheels"\n'
        'printf "[global]\\nno-index = true\\nfind-links = /opt/wheels\\n" > "$root/etc/pip.conf"\n'
    ),
    configuration=('CMD ["/bin/sh"]',),
)
missing = [name for name in ("docker-registry", "mmdebstrap") if shutil.which(name) is None]
pytestmark = [
    pytest.mark.skipif(
        bool(missing) or os.geteuid() != 0,
        reason="as root, after: apt-get install docker-registry mmdebstrap docker.io",
    ),
    pytest.mark.filterwarnings("ignore:Tried to parse:UserWarning"),  # alarms and TLS-only policies: moto skips them
]


class EcrTwin:
    """What of ECR is asked, answered from the registry that stands in for it."""

    def __init__(self, registry: str) -> None:
        self._registry = registry

    def describe_images(self, *, repositoryName: str, imageIds: list[dict[str, str]]) -> dict[str, Any]:
        (wanted,) = imageIds
        url = f"http://{self._registry}/v2/{repositoryName}/manifests/{wanted['imageTag']}"
        accepted = {"Accept": "application/vnd.docker.distribution.manifest.v2+json", "Authorization": f"Basic {TOKEN}"}
        try:
            with urllib.request.urlopen(urllib.request.Request(url, headers=accepted)) as answer:
                return {"imageDetails": [{"imageDigest": answer.headers["Docker-Content-Digest"]}]}
        except urllib.error.HTTPError as error:
            if error.code != 404:
                raise
            raise ClientError({"Error": {"Code": "ImageNotFoundException"}}, "DescribeImages") from error

    def get_authorization_token(self) -> dict[str, Any]:
        return {"authorizationData": [{"authorizationToken": TOKEN}]}


TOKEN: Final = base64.b64encode(f"AWS:{PASSWORD}".encode()).decode()


@dataclass(frozen=True)
class Built:
    """The image by its digest in the registry, the command that made it, and what it was made with."""

    image: str
    registry: str
    docker: Docker
    base: str
    home: Path


@pytest.fixture(scope="module")
def built(engine: Engine, state: Path, report: Callable[[str], None]) -> Iterator[Built]:
    """The image, built and pushed as `make deploy` does."""
    folder = state / "proxy-image"
    home = folder / "home"
    (home / ".docker").mkdir(parents=True)
    local_base = recipe.provide(BASE, engine.url, KEPT_IMAGES, report)
    with registry(folder) as address:
        (home / ".docker" / "config.json").write_text(json.dumps({"auths": {address: {"auth": TOKEN}}}))
        environ = {"PATH": os.environ["PATH"], "HOME": str(home), "DOCKER_HOST": engine.url}
        command = Docker(environ, ("--network", "host"))
        name = f"{address}/base:1"
        with recipe.client_of(engine.url, BASE) as client:
            client.tag(local_base, f"{address}/base", "1")
        command.push(name, Login(address, "AWS", PASSWORD))
        (home / ".docker" / "config.json").chmod(0o600)
        report("the proxy's image: building it from its Dockerfile")
        uri = f"{address}/homeport-test-proxy"
        image, is_new = provide_image(command, EcrTwin(address), ROOT, uri=uri, base=name, platform=command.platform())
        assert is_new
        yield Built(image, address, command, name, home)


@contextmanager
def registry(folder: Path) -> Iterator[str]:
    """Debian's docker-registry with a password; gives its address."""
    port = processes.free_port()
    (folder / "htpasswd").write_text(HTPASSWD)
    (folder / "registry.yml").write_text(REGISTRY.format(folder=folder, port=port))
    command = ["docker-registry", "serve", str(folder / "registry.yml")]
    with processes.running("registry", command, folder=folder, environ={"PATH": os.environ["PATH"]}) as child:
        processes.wait_for_port(port, child=child, deadline=30)
        yield f"127.0.0.1:{port}"


def test_an_image_that_is_there_is_not_built_again(built: Built) -> None:
    uri = f"{built.registry}/homeport-test-proxy"
    platform = built.docker.platform()
    again = provide_image(built.docker, EcrTwin(built.registry), ROOT, uri=uri, base=built.base, platform=platform)
    assert again == (built.image, False)


def test_the_base_is_named_by_its_digest(built: Built) -> None:
    platform = built.docker.platform()
    named = built.docker.base(built.base, platform)
    assert re.fullmatch(rf"{re.escape(built.registry)}/base@sha256:[0-9a-f]{{64}}", named)
    assert built.docker.base(named, platform) == named


def test_the_registrys_password_is_written_nowhere(built: Built) -> None:
    (file,) = (built.home / ".docker").iterdir()
    assert json.loads(file.read_text()) == {"auths": {built.registry: {"auth": TOKEN}}}, "the operator's own, as it was"
    assert not list(Path("/tmp").glob("homeport-docker-*"))
    assert PASSWORD not in repr(Login(built.registry, "AWS", PASSWORD))


def test_a_push_that_is_refused_says_so_without_the_password(built: Built) -> None:
    wrong = "another-password"
    with pytest.raises(BadConfiguration, match="docker push failed") as raised:
        built.docker.push(built.base, Login(built.registry, "AWS", wrong))
    assert wrong not in str(raised.value.message)


# ── the task ─────────────────────────────────────────────────────────────────────────────────────────────────────


@dataclass
class Task:
    """The running container, what judges it, and one launch whose notebook is outside."""

    container: Container
    address: str
    guard: RoleGuard
    client: Callable[..., Any]
    session: Session
    environ: dict[str, str] = field(repr=False)

    @property
    def table(self) -> str:
        return self.environ["HOMEPORT_TABLE"]

    def ask(self, path: str = "/lab", *, port: int = 8080, **more: Any) -> Answer:
        return ask_at(self.address, port, f"{self.session.host}.{DOMAIN}", path, **more)

    def enter(self) -> str:
        store = TokenStore(self.client("dynamodb"), self.table, time.time, lifetime=3600)
        sign_in = SignIn("b0" * 32, self.session.owner, int(time.time() * 1000))
        store.put_ticket("t" * 43, self.session, sign_in, path="/lab", expires_at=time.time() + 60)
        headers = [("Origin", HUB), ("Content-Type", "application/x-www-form-urlencoded")]
        answer = self.ask("/.homeport/enter", method="POST", headers=headers, body=b"ticket=" + b"t" * 43)
        assert answer.status == 303
        return (answer.get("Set-Cookie") or "").partition(";")[0].partition("=")[2]


def ask_at(address: str, port: int, host: str, path: str, **more: Any) -> Answer:
    connection = http.client.HTTPConnection(address, port, timeout=20)
    try:
        return ask(port, host, path, connection=connection, **more)
    finally:
        connection.close()


@pytest.fixture(scope="module")
def task(built: Built, engine: Engine, state: Path) -> Iterator[Task]:
    """The image as ECS runs it: its environment and secrets, no capability, and nothing writable but its run folder."""
    with ExitStack() as stack:
        engine_client = docker.DockerClient(base_url=engine.url)
        stack.callback(engine_client.close)
        gateway = engine_client.networks.get("bridge").attrs["IPAM"]["Config"][0]["Gateway"]
        endpoint, application = stack.enter_context(guarded_moto(gateway))

        def client(service: str, key: str = "test") -> Any:
            return boto3.client(  # type: ignore[call-overload]  # the name is a variable
                service, REGION, endpoint_url=endpoint, aws_access_key_id=key, aws_secret_access_key="test"
            )

        template = (ROOT / "infra" / "resources.yaml").read_text()
        outputs = deploy_stack(
            client("cloudformation"), name=f"homeport-{STAGE}", template=template, parameters={"Stage": STAGE}
        )
        certificates = outputs["Certificates"]
        ensure_certificates(client("ssm"), prefix=certificates, key_id=outputs["Key"], now=time.time())

        def parameter(name: str) -> str:
            found = client("ssm").get_parameter(Name=f"{certificates}/{name}", WithDecryption=True)
            return str(found["Parameter"]["Value"])

        session = a_session(expires_at=time.time() + 3600)
        ca = Pair.from_json(parameter("notebook-ca"), name="notebook-ca")
        leaf = issue_notebook(Ca(ca.certificate, ca.key), session.host, now=time.time(), lifetime=3600)
        trusted = Pair.from_json(parameter("client-ca"), name="client-ca", with_key=False).certificate
        notebook = NotebookServer(session.host, leaf, trusted, state, gateway)
        serving = Thread(target=notebook.serve_forever, kwargs={"poll_interval": 0.05})
        serving.start()
        stack.callback(notebook.server_close)
        stack.callback(serving.join, 20)
        stack.callback(notebook.shutdown)
        environ = {
            "AWS_DEFAULT_REGION": REGION,
            "AWS_ENDPOINT_URL": endpoint,
            "AWS_ACCESS_KEY_ID": key_of("test", "proxy"),
            "AWS_SECRET_ACCESS_KEY": "test",
            "HOMEPORT_TABLE": outputs["Table"],
            "HOMEPORT_QUEUE_URLS": outputs["QueueUrls"],
            "HOMEPORT_STAGE": STAGE,
            "HOMEPORT_FEED_SHARDS": "1",
            "HOMEPORT_HUB_ORIGIN": HUB,
            "HOMEPORT_NOTEBOOK_URL": f"https://*.{DOMAIN}",
            "HOMEPORT_PROXY_NOTEBOOK_CA": parameter("notebook-ca-certificate"),
            "HOMEPORT_PROXY_CLIENT": parameter("proxy-client"),
            "HOMEPORT_PROXY_MAXCONN": "1000",
            "HOMEPORT_PROXY_DRAIN": "5",
        }
        container = engine_client.containers.run(
            built.image,
            detach=True,
            environment=environ,
            read_only=True,
            tmpfs={"/run/homeport": "uid=880,gid=880,mode=0700"},
            cap_drop=["ALL"],
            security_opt=["no-new-privileges:true"],
            init=True,
        )
        stack.callback(container.remove, force=True)
        container.reload()
        address = container.attrs["NetworkSettings"]["IPAddress"]
        session = replace(session, target=Target(gateway, notebook.port))
        made = Task(container, address, application.guard, client, session, environ)
        eventually(lambda: is_ready(made), "the container being ready", deadline=60)
        yield made


def is_ready(task: Task) -> bool:
    try:
        return task.ask("/.homeport/ready", port=8081).status == 200
    except OSError:
        task.container.reload()
        assert task.container.status == "running", task.container.logs().decode()[-2000:]
        return False


def test_the_image_serves_a_launch_with_no_more_than_its_tasks_role(task: Task) -> None:
    routes = RouteStore(task.client("dynamodb"), task.table, time.time)
    routes.publish(task.session)
    eventually(lambda: task.ask().status == 401, "the route in HAProxy")
    cookie = task.enter()
    answer = task.ask(headers=[("Cookie", f"__Host-homeport={cookie}")])
    assert answer.seen["notebook"] == task.session.host
    routes.withdraw(task.session)
    eventually(lambda: task.ask().status == 404, "the route gone")
    assert task.guard.refused == []
    made = {action for _, _, action, _ in task.guard.used}
    assert made >= {"dynamodb:Query", "dynamodb:GetItem", "dynamodb:PutItem", "dynamodb:DeleteItem"}


def test_the_gateway_refuses_what_the_role_may_not(task: Task) -> None:
    as_task = task.client("dynamodb", task.environ["AWS_ACCESS_KEY_ID"])
    with pytest.raises(ClientError, match="not allowed"):
        as_task.get_item(TableName=task.table, Key={"pk": {"S": "session#1"}, "sk": {"S": "session"}})
    task.guard.refused.clear()


def test_the_container_runs_as_a_user_without_capabilities_and_is_healthy(task: Task) -> None:
    listed = task.container.top(ps_args="-eo pid,uid,args")["Processes"]
    assert {row[1] for row in listed} == {"880"}
    assert sum("haproxy" in row[2] and "-db" in row[2] for row in listed) == 1
    assert sum("proxy.agent" in row[2] for row in listed) == 1

    def health() -> str:
        task.container.reload()
        return str(task.container.attrs["State"]["Health"]["Status"])

    eventually(lambda: health() == "healthy", "the image's own health check", deadline=60)


def test_stopped_it_drains_and_ends_well_and_its_log_holds_nothing_secret(task: Task) -> None:
    task.container.stop(timeout=30)
    assert task.container.wait(timeout=30)["StatusCode"] == 0
    log = task.container.logs().decode()
    assert "told HAProxy" in log
    for secret in ("PRIVATE KEY", "t" * 43, "Traceback"):
        assert secret not in log
