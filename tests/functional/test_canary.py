"""No key byte comes out of the hub in this process: not by a refusal, not by a store that fails, not by an endpoint.

The canary is a valid client key. After every failing path that is cheap, everything that left is searched for it in
every spelling: answers with their headers, log records down to DEBUG, what is stored and queued, and the errors, as an
error reporter would show them: the whole chain, with every frame's local variables.
"""

from __future__ import annotations

import base64
import json
import logging
import re
import ssl
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import cache
from types import SimpleNamespace
from typing import Any

import pytest
from botocore.exceptions import EndpointConnectionError, ParamValidationError, ReadTimeoutError
from cryptography.exceptions import UnsupportedAlgorithm

from chalicelib.aws.credentials import object_key
from chalicelib.aws.queues import TickMessage
from chalicelib.aws.routes import RouteStore
from chalicelib.aws.slots import SlotStore
from chalicelib.bundle.archive import read as read_archive
from chalicelib.bundle.credentials import Credentials
from chalicelib.bundle.parse import parse
from chalicelib.engine.endpoint import DockerEndpoint
from chalicelib.engine.errors import EndpointError, EndpointFailed, NotADockerEngine
from chalicelib.errors import BadEnvelope, HomeportError
from chalicelib.launcher.effects import Effects
from chalicelib.launcher.outside import CredentialsAccess
from chalicelib.launcher.tick import Launcher
from chalicelib.session.events import ContainerCreated, CreateContainer, EffectDelayed, EffectFailed, VerifyEndpoint
from chalicelib.session.lanes import Lane
from chalicelib.session.machine import PullPatience
from chalicelib.session.values import Limits, Session, State
from chalicelib.web.forms import Launch
from tests.certificates import key_pem, shared_key
from tests.functional.hostile_engine import HostileEngine, Pki, http, of_json, ping, refusal, version
from tests.functional.hub_rig import BUCKET, Answer, HubRig, a_bundle, a_hub, hub_rig
from tests.launcher_twins import BuildLogTwin, EngineTwin, ImageStoreTwin, a_trust, drive
from tests.secrets_seen import Canary, canary_of_bundle, secret_numbers, shown_with_locals, spellings
from tests.unit import corpus

BUNDLE = a_bundle()
KEY = key_pem(shared_key("p256", 0))
CANARY = canary_of_bundle(BUNDLE)
LARGEST_PEM = 4096  # bytes; the corpus has larger keys, which are nobody's
DIFFIE_HELLMAN = bytes.fromhex("2a864886f70d010301")  # its OID: the corpus has one that takes half a minute to load
PRIVATE_KEY = rb"-----BEGIN ([A-Z ]*PRIVATE KEY)-----[^-]*-----END \1-----"


@pytest.fixture
def hub(caplog: pytest.LogCaptureFixture) -> Iterator[HubRig]:
    for name in ("homeport", "docker", "urllib3", "requests", "chalice"):
        caplog.set_level(logging.DEBUG, name)
    with hub_rig() as rig:
        yield rig


def shown(answer: Answer) -> str:
    return f"{answer.status}\n{dict(answer.headers)!r}\n{answer.body.decode()}"


def logged(caplog: pytest.LogCaptureFixture) -> str:
    """All that was logged, with the arguments and tracebacks as they would be shown."""
    return "\n".join([caplog.text, *(repr(record.args) for record in caplog.records)])


# ── the detector itself ──────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("kind", ["p256", "p384", "ed25519", "rsa2048"])
def test_the_detector_finds_a_planted_key_in_every_spelling(kind: str) -> None:
    key = shared_key(kind)
    canary = Canary.of(key_pem(key))
    planted: list[bytes] = [text for number in secret_numbers(key_pem(key)) for _, text in spellings(number)]
    planted += [str(int.from_bytes(number)).encode() for number in secret_numbers(key_pem(key))]
    planted += [f"{int.from_bytes(number):x}".encode() for number in secret_numbers(key_pem(key))]
    for form in ("pkcs8",) if kind == "ed25519" else ("pkcs8", "traditional"):
        pem = key_pem(key, form=form)  # type: ignore[arg-type]
        der = base64.b64decode(b"".join(pem.splitlines()[1:-1]))
        planted += [pem, pem.replace(b"\n", b"\r\n"), json.dumps({"key": pem.decode()}).encode(), repr(pem).encode()]
        planted += [der, der.hex().encode(), der.hex().upper().encode(), repr(der).encode()]
        planted += [base64.b64encode(b"x" * skip + der) for skip in range(3)]
        planted += [base64.urlsafe_b64encode(b"x" * skip + der) for skip in range(3)]
    planted += [base64.b64encode(b"x" * skip + key_pem(key)) for skip in range(3)]
    for number, text in enumerate(planted):
        assert canary.seen_in(b"before" + text + b"after"), f"the {number}th planted text is not found"


def test_the_detector_finds_a_piece_of_a_key_and_the_bundle_it_came_in() -> None:
    (number,) = secret_numbers(KEY)
    for begin in range(len(number) - 12):
        piece = number[begin : begin + 12]
        assert CANARY.seen_in(piece)
        assert CANARY.seen_in(piece.hex())
    for begin in range(3):
        text = base64.b64encode(b"x" * begin + BUNDLE).decode()
        assert CANARY.seen_in(BUNDLE, text)
        assert CANARY.seen_in(text)
        assert CANARY.seen_in(text[300:])
    assert CANARY.places({"here": BUNDLE, "not here": b""}).keys() == {"here"}


def test_the_detector_finds_nothing_in_what_is_public_or_anothers() -> None:
    credentials = parse(BUNDLE, host=None, now=corpus.NOW).credentials
    der = ssl.PEM_cert_to_DER_cert(credentials.certificate.decode())
    assert not CANARY.seen_in(credentials.certificate, credentials.ca, der, der.hex(), repr(der))
    assert not CANARY.seen_in(a_bundle(1), key_pem(shared_key("p256", 1)), repr(key_pem(shared_key("p256", 1))))
    assert not CANARY.seen_in(bytes(100_000), "A" * 100_000, bytes(range(256)) * 400)


# ── values ───────────────────────────────────────────────────────────────────────────────────────────────────────


def test_no_value_that_holds_a_key_shows_it() -> None:
    bundle = parse(BUNDLE, host=None, now=corpus.NOW)
    form = Launch(bundle=BUNDLE, name="n", host=None, image=None, limits=Limits(), open_path="")
    for value in (bundle, bundle.credentials, form, read_archive(BUNDLE)):
        assert not CANARY.seen_in(repr(value), str(value), f"{value!a}")
    trust = a_trust()
    hubs_own = Canary.of(trust.notebook_ca.key, trust.probe.key)
    for own in (trust, trust.notebook_ca, trust.probe):
        assert not hubs_own.seen_in(repr(own), str(own))


# ── refusals ─────────────────────────────────────────────────────────────────────────────────────────────────────


def _keys_in(bundle: bytes) -> Canary:
    """The keys in a bad bundle: most hold a good one."""
    contents = [bundle]
    with suppress(HomeportError):
        contents = [file.data for file in read_archive(bundle)]
    found = {match[0] for content in contents for match in re.finditer(PRIVATE_KEY, content)}
    return Canary.of(*filter(_has_secret, found))


@cache
def _has_secret(pem: bytes) -> bool:
    if len(pem) > LARGEST_PEM:
        return False
    try:
        return DIFFIE_HELLMAN not in corpus.der_of(pem) and bool(secret_numbers(pem))
    except (ValueError, TypeError, UnsupportedAlgorithm):  # junk, encrypted, or a Diffie-Hellman key
        return False


def test_no_refusal_of_a_bad_bundle_shows_a_key(hub: HubRig, caplog: pytest.LogCaptureFixture) -> None:
    with_a_key = 0
    hub.hub = a_hub(hub.parts, clock=lambda: corpus.NOW)
    for name, bad in corpus.corpus().items():
        bundle = bad.build()
        canary = _keys_in(bundle)
        with_a_key += len(canary.pieces) > 0
        fields: dict[str, Any] = {} if bad.host is None else {"host": bad.host}
        caplog.clear()
        asked = [hub.upload(bundle, **fields), hub.upload(bundle, "/bundles", html=True, **fields)]
        assert all(400 <= answer.status < 500 for answer in asked), name
        form = Launch(bundle=bundle, name="n", host=bad.host, image=None, limits=Limits(), open_path="")
        with pytest.raises(HomeportError) as caught:
            hub.hub.launch(form)
        error = shown_with_locals(caught.value)
        evidence = {"error": error, "log": logged(caplog)} | {f"answer {i}": shown(a) for i, a in enumerate(asked)}
        assert not canary.places({place: text.encode() for place, text in evidence.items()}), name
        assert repr(bundle)[2:66] not in error or len(bundle) < 64, f"{name}: the bundle is among the error's variables"
    assert with_a_key > 150


# ── variables ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_no_value_of_a_variable_is_anywhere_but_in_the_envelope(hub: HubRig, caplog: pytest.LogCaptureFixture) -> None:
    """From the upload to a notebook that is stopped: stored, queued, logged, answered; and the names are shown."""
    value = "a value of 23 letters"
    launched = hub.upload(BUNDLE, name="one", env=f"TOKEN={value}\n", data="/srv/data")
    sid, token = launched.json["id"], launched.json["owner_token"]
    assert hub.parts.credentials.get(sid, 1, hub.parts.sessions.load(sid).owner).environment == {"TOKEN": value}
    engine = EngineTwin()
    engine.images.add(hub.parts.config.image)
    effects = Effects(
        config=hub.parts.config,
        credentials=hub.parts.credentials,
        routes=RouteStore(hub.client_of("dynamodb"), hub.parts.config.table, lambda: corpus.NOW),
        slots=SlotStore(hub.client_of("dynamodb"), hub.parts.config.table, lambda: corpus.NOW),
        images=ImageStoreTwin(),
        build_logs=BuildLogTwin(),
        trust=a_trust,
        find_session=hub.parts.sessions.find,
        clock=lambda: corpus.NOW,
        sleep=lambda seconds: None,
        connect=engine.connect,
        resolve=lambda endpoint, policy: engine.address,
        probe=lambda target, host, trust, *, deadline: None,
    )
    session = replace(hub.parts.sessions.load(sid), state=State.CREATING, container=f"homeport-{sid}-1")
    assert list(effects.perform(CreateContainer(), session)) == [ContainerCreated()]
    (container,) = engine.containers.values()
    assert container.specification.variables == {"TOKEN": value}
    answers = [launched, hub.ask("GET", f"/sessions/{sid}", token=token)]
    answers += [hub.ask("GET", f"/sessions/{sid}", token=token, html=True), hub.ask("GET", "/sessions", token=token)]
    assert answers[1].json["options"]["env"] == ["TOKEN"]
    assert "<code>TOKEN</code>" in answers[2].text
    evidence = [*map(shown, answers), logged(caplog), repr(session), repr(container), container.files.decode("latin-1")]
    assert not any(value in text for text in evidence)
    assert value not in hub.everything_stored()


# ── AWS fails ────────────────────────────────────────────────────────────────────────────────────────────────────

SERVICES = ("dynamodb", "kms", "s3", "sqs")
Fault = Callable[[], tuple[Any, dict[str, Any]]]


def _answers(code: str, status: int) -> Fault:
    """AWS's error answer, as botocore hands it on."""
    error = {"Error": {"Code": code, "Message": f"{code} was made up"}, "ResponseMetadata": {"HTTPStatusCode": status}}
    return lambda: (SimpleNamespace(status_code=status, headers={}, text=""), error)


def _raises(error: Exception) -> Fault:
    def fault() -> tuple[Any, dict[str, Any]]:
        raise error

    return fault


FAULTS: dict[str, Fault] = {
    "busy": _answers("InternalServerError", 500),
    "refused": _answers("AccessDeniedException", 400),
    "gone": _answers("ResourceNotFoundException", 400),
    "unreachable": _raises(EndpointConnectionError(endpoint_url="https://aws.example.org")),
    "silent": _raises(ReadTimeoutError(endpoint_url="https://aws.example.org")),
    "misused": _raises(ParamValidationError(report="made up")),
}


class Calls:
    """Watches the calls to AWS, keeps the data keys that KMS gave out, and fails the `at`-th call and those after."""

    def __init__(self, at: int | None = None, fault: Fault | None = None) -> None:
        self.at = at
        self.fault = fault
        self.names: list[str] = []
        self.data_keys: list[bytes] = []

    def before(self, model: Any, **_: Any) -> tuple[Any, dict[str, Any]] | None:
        self.names.append(model.name)
        return self.fault() if self.fault and self.at is not None and len(self.names) > self.at else None

    def after(self, parsed: dict[str, Any], **_: Any) -> None:
        if "Plaintext" in parsed:
            self.data_keys.append(parsed["Plaintext"])


@contextmanager
def watched(hub: HubRig, calls: Calls) -> Iterator[Calls]:
    clients = [hub.client_of(service) for service in SERVICES]
    for client in clients:
        client.meta.events.register_first("before-call", calls.before)
        client.meta.events.register("after-call.kms.*", calls.after)
    try:
        yield calls
    finally:
        for client in clients:
            client.meta.events.unregister("before-call", calls.before)
            client.meta.events.unregister("after-call.kms.*", calls.after)


def _form(name: str) -> Launch:
    return Launch(bundle=BUNDLE, name=name, host=None, image=None, limits=Limits(), open_path="")


def test_no_key_is_shown_whichever_call_to_aws_fails_during_a_launch(
    hub: HubRig, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG, "botocore")
    with watched(hub, Calls()) as good:
        assert hub.upload(BUNDLE, name="good").status == 201
    assert {"GenerateDataKey", "PutObject", "PutItem", "SendMessage"} <= set(good.names)
    for kind, fault in FAULTS.items():
        for at, name in enumerate(good.names):
            caplog.clear()
            with watched(hub, Calls(at, fault)):
                answer = hub.upload(BUNDLE, name=f"{kind} {at} answer")
            with watched(hub, Calls(at, fault)) as calls:
                error = _error_of(hub, f"{kind} {at} error")
            assert answer.status >= 500, (kind, name)
            evidence = {"answer": shown(answer), "log": logged(caplog), "error": error}
            assert not CANARY.places({place: text.encode() for place, text in evidence.items()}), (kind, name)
            assert not Canary.of(packed=calls.data_keys).seen_in(error), f"{kind} {name} shows the data key"
    assert not CANARY.seen_in(hub.everything_stored())


def _error_of(hub: HubRig, name: str) -> str:
    """Do what the web function does, without its catching errors."""
    try:
        launched = hub.hub.launch(_form(name))
        hub.hub.token_for(launched.bundle.owner)
    except Exception as error:  # noqa: BLE001 - whatever comes out is looked at
        return shown_with_locals(error)
    raise AssertionError("no call failed")


@pytest.mark.parametrize("spoiled", ["flipped", "cut", "of another session", "of another version"])
def test_no_key_is_shown_when_stored_credentials_cannot_be_opened(hub: HubRig, spoiled: str) -> None:
    store, s3 = hub.parts.credentials, hub.client_of("s3")
    credentials = parse(BUNDLE, host=None, now=corpus.NOW).credentials
    with watched(hub, Calls()) as calls:
        if spoiled == "of another version":
            store.put("sid", 1, "owner", Aged(credentials.endpoint, b"ca", b"certificate", KEY))
        else:
            store.put("sid", 1, "owner", credentials)
    sealed = s3.get_object(Bucket=BUCKET, Key=object_key("sid", 1))["Body"].read()
    changes = {"flipped": sealed[:-1] + bytes([sealed[-1] ^ 1]), "cut": sealed[:-1]}
    s3.put_object(Bucket=BUCKET, Key=object_key("sid", 1), Body=changes.get(spoiled, sealed))
    with pytest.raises(BadEnvelope) as caught:
        store.get("sid", 1, "somebody else" if spoiled == "of another session" else "owner")
    shown_error = shown_with_locals(caught.value)
    assert not CANARY.seen_in(shown_error, sealed)
    assert calls.data_keys
    assert not Canary.of(packed=calls.data_keys).seen_in(shown_error)


class Aged(Credentials):
    """Credentials as another version of the hub may have stored them."""

    __slots__ = ()

    def to_bytes(self) -> bytes:
        return super().to_bytes().replace(b'"version": 1', b'"version": 0')


# ── the endpoint fails ───────────────────────────────────────────────────────────────────────────────────────────


def every_kind(root: type[EndpointError] = EndpointError) -> Iterator[type[EndpointError]]:
    yield root
    for kind in root.__subclasses__():
        yield from every_kind(kind)


@dataclass
class Stage:
    """A session whose credentials are really stored, and the outside as its launcher sees it."""

    hub: HubRig
    session: Session

    @classmethod
    def of(cls, hub: HubRig, name: str) -> Stage:
        sid = hub.upload(BUNDLE, name=name).json["id"]
        return cls(hub, hub.parts.sessions.load(sid))

    def effects(
        self, connect: Any, address: str = "203.0.113.7", credentials: CredentialsAccess | None = None
    ) -> Effects:
        parts = self.hub.parts
        return Effects(
            config=parts.config,
            credentials=credentials or parts.credentials,
            routes=RouteStore(self.hub.client_of("dynamodb"), parts.config.table, lambda: self.session.created_at),
            slots=SlotStore(self.hub.client_of("dynamodb"), parts.config.table, lambda: self.session.created_at),
            images=ImageStoreTwin(),
            build_logs=BuildLogTwin(),
            trust=a_trust,
            find_session=parts.sessions.find,
            clock=lambda: self.session.created_at + 1,
            sleep=lambda seconds: None,
            connect=connect,
            resolve=lambda endpoint, policy: address,
            probe=lambda target, host, trust, *, deadline: None,
        )

    def tick(self, connect: Any) -> Session:
        sessions = self.hub.parts.sessions

        def launcher(lane: Lane) -> Launcher:
            return Launcher(
                sessions=sessions,
                effects=self.effects(connect),
                enqueue=lambda message, *, lane, delay: None,
                lane=lane,
                pulls=PullPatience(),
                clock=lambda: self.session.created_at + 1,
                time_left=lambda: 1000.0,
                name=f"tick-{lane}",
            )

        drive(launcher, sessions, TickMessage(self.session.sid))
        return self.hub.parts.sessions.load(self.session.sid)


@pytest.mark.parametrize("at", ["connect", "verify", "pull", "create", "put_files", "start"])
def test_no_key_is_shown_by_a_launch_that_ends_with_any_error_of_the_endpoint(
    hub: HubRig, caplog: pytest.LogCaptureFixture, at: str
) -> None:
    for kind in every_kind() if at == "connect" else (EndpointFailed, NotADockerEngine):
        engine = EngineTwin()
        error = kind(f"The endpoint failed on purpose while {at}")
        if at == "connect":
            engine.refuses = error
        engine.during = lambda call, error=error: _raise_at(call, at, error)  # type: ignore[misc]
        session = Stage.of(hub, kind.__name__).tick(engine.connect)
        assert CANARY.seen_in(engine.credentials.key), "the launch had no key"
        assert session.last_problem or session.state is State.STOPPED
        assert not CANARY.seen_in(repr(session), shown_with_locals(error))
    assert not CANARY.seen_in(hub.everything_stored(), logged(caplog))


def _raise_at(call: str, at: str, error: Exception) -> None:
    if call == at:
        raise error


HOSTILE: dict[str, dict[str, Any]] = {
    "not Docker": {"GET /version": http(b"<html>")},
    "redirected": {"GET /version": http(status=307, headers=[("Location", "https://elsewhere.example.org/")])},
    "refused": {"GET /version": refusal(403, "who are you?")},
    "broken": {"GET /version": refusal(500, "no")},
    "too old": {"GET /version": version("1.10")},
    "cut": {"GET /version": lambda connection: connection.send(http(b"{", length=100))},
    "Windows": {"GET /version": version(Os="windows"), "GET /_ping": ping()},
    "no JSON object": {"GET /version": of_json([])},
}


@pytest.mark.parametrize("kind", [*HOSTILE, "not TLS", "nothing listens", "another CA", "refuses the certificate"])
def test_no_key_is_shown_by_the_errors_of_a_real_connection(hub: HubRig, kind: str) -> None:
    pki, stranger, stage = Pki.new(), Pki.new(), Stage.of(hub, "real")
    greet = (lambda peer: peer.sendall(b"220 smtp\r\n")) if kind == "not TLS" else None
    with HostileEngine(pki, HOSTILE.get(kind, {}), greet=greet) as engine:
        endpoint = engine.credentials.endpoint
        ca = (stranger if kind == "another CA" else pki).ca.certificate
        leaf = (stranger if kind == "refuses the certificate" else pki).client
        credentials = Credentials(endpoint, ca, leaf.certificate, leaf.key)
        if kind != "nothing listens":
            _look_at_errors(stage, credentials)
    if kind == "nothing listens":
        _look_at_errors(stage, credentials)


def _look_at_errors(stage: Stage, credentials: Credentials) -> None:
    """Verify the endpoint for real; look at the error that leaves the endpoint, and at the event it becomes."""
    canary = Canary.of(credentials.key)
    leaving: list[BaseException] = []

    class Watched(DockerEndpoint):
        def verify(self) -> tuple[str, str]:
            try:
                return super().verify()
            except EndpointError as error:
                leaving.append(error)
                raise

    effects = stage.effects(Watched, credentials.endpoint.host, Kept(credentials))
    (event,) = effects.perform(VerifyEndpoint(), replace(stage.session, endpoint=str(credentials.endpoint)))
    (error,) = leaving
    assert isinstance(error, EndpointError)
    reported = shown_with_locals(error)
    assert "in perform" in reported, "the frames are not looked at"
    assert not canary.seen_in(reported)
    assert isinstance(event, EffectDelayed | EffectFailed)
    assert not canary.seen_in(repr(event))


@dataclass(frozen=True)
class Kept:
    """Credentials that nobody stored."""

    credentials: Credentials = field(repr=False)

    def get(self, sid: str, generation: int, owner: str) -> Credentials:
        return self.credentials

    def holds(self, sid: str, generation: int) -> bool:
        return True

    def purge(self, sid: str, generation: int) -> None:
        pass
