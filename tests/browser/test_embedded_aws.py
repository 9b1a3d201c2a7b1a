"""A notebook's page in Chromium, on the machine of `make run`: it gets nothing from the embedded AWS."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from playwright.sync_api import Browser, Page

from local.aws import CERTIFICATES, Aws, aws
from local.gate import REGION

SCOPE = (
    "AWS4-HMAC-SHA256 Credential=homeport/20300101/{region}/{service}/aws4_request, SignedHeaders=host, Signature=00"
)
FETCH = """async ([url, options]) => {
    try {
        const answer = await fetch(url, options);
        return [answer.type, await answer.text()];
    } catch (error) {
        return ["refused", String(error)];
    }
}"""
# A form that the page makes and sends, as one without a script could; the answer goes to a frame it cannot read. The
# frame's `load` says that the answer is there, also when it is only that the connection was closed.
SUBMIT = """([url, kind, fields]) => new Promise((sent) => {
    const frame = Object.assign(document.createElement("iframe"), {name: "answer"});
    document.body.append(frame);
    frame.addEventListener("load", () => { frame.remove(); sent(null); });
    const form = Object.assign(document.createElement("form"), {action: url, method: "post", target: "answer"});
    form.enctype = kind;
    for (const [name, value] of Object.entries(fields))
        form.append(Object.assign(document.createElement("input"), {name, value}));
    document.body.append(form);
    form.submit();
})"""


class Notebook(BaseHTTPRequestHandler):
    """A page without any policy of its own."""

    def do_GET(self) -> None:
        body = b"<!doctype html><title>notebook</title><body>"
        self.send_response(200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_arguments: object) -> None:
        """Say nothing."""


@pytest.fixture(scope="module")
def cloud(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Aws]:
    with aws(tmp_path_factory.mktemp("aws")) as started:
        started.client("s3").put_object(Bucket=started.environ["HOMEPORT_BUCKET"], Key="credentials/1", Body=b"sealed")
        yield started


@pytest.fixture
def notebook(browser: Browser) -> Iterator[Page]:
    server = ThreadingHTTPServer(("127.0.0.1", 0), Notebook)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
    thread.start()
    context = browser.new_context()
    page = context.new_page()
    page.goto(f"http://b3f5k2.localhost:{server.server_address[1]}/")
    yield page
    context.close()
    server.shutdown()
    thread.join(20)
    server.server_close()


def objects(cloud: Aws) -> list[tuple[str, bytes]]:
    s3, bucket = cloud.client("s3"), cloud.environ["HOMEPORT_BUCKET"]
    keys = [found["Key"] for found in s3.list_objects_v2(Bucket=bucket).get("Contents", [])]
    return [(key, s3.get_object(Bucket=bucket, Key=key)["Body"].read()) for key in keys]


@pytest.mark.parametrize(
    ("service", "target", "body"),
    [
        ("ssm", "AmazonSSM.GetParameter", f'{{"Name": "{CERTIFICATES}/notebook-ca", "WithDecryption": true}}'),
        ("dynamodb", "DynamoDB_20120810.ListTables", "{}"),
        ("sqs", "AmazonSQS.ListQueues", "{}"),
    ],
)
def test_no_page_reads_what_a_service_answers(notebook: Page, cloud: Aws, service: str, target: str, body: str) -> None:
    headers = {
        "Authorization": SCOPE.format(region=REGION, service=service),
        "X-Amz-Target": target,
        "Content-Type": "application/x-amz-json-1.1",
    }
    for mode in ("cors", "no-cors"):
        options = {"method": "POST", "mode": mode, "headers": headers, "body": body}
        assert notebook.evaluate(FETCH, [f"{cloud.url}/", options]) == _nothing(mode)
    for path in (f"/{cloud.environ['HOMEPORT_BUCKET']}", "/moto-api/data.json"):
        for mode in ("cors", "no-cors"):
            assert notebook.evaluate(FETCH, [f"{cloud.url}{path}", {"mode": mode}]) == _nothing(mode)


def _nothing(mode: str) -> list[str]:
    """What a script sees of an answer that is not for it."""
    return ["refused", "TypeError: Failed to fetch"] if mode == "cors" else ["opaque", ""]


def test_no_page_changes_anything(notebook: Page, cloud: Aws) -> None:
    before = objects(cloud)
    assert before == [("credentials/1", b"sealed")]
    bucket = f"{cloud.url}/{cloud.environ['HOMEPORT_BUCKET']}"
    for kind in ("multipart/form-data", "application/x-www-form-urlencoded", "text/plain"):
        notebook.evaluate(SUBMIT, [bucket, kind, {"key": "credentials/2", "file": "by a page"}])
    delete = "<Delete><Object><Key>credentials/1</Key></Object></Delete>"
    for mode in ("cors", "no-cors"):
        simple = {"method": "POST", "mode": mode, "headers": {"Content-Type": "text/plain"}, "body": delete}
        notebook.evaluate(FETCH, [f"{bucket}?delete", simple])
        notebook.evaluate(FETCH, [f"{cloud.url}/moto-api/reset", {"method": "POST", "mode": mode}])
    notebook.evaluate(FETCH, [f"{bucket}/credentials/1", {"method": "DELETE"}])
    notebook.evaluate(FETCH, [f"{bucket}/credentials/1", {"method": "PUT", "body": "by a page"}])
    assert objects(cloud) == before
