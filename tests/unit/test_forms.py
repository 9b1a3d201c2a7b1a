"""What a visitor may type and send: names in any script, fields, and multipart bodies that no browser sends."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable
from contextlib import suppress
from typing import Literal

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from chalicelib.errors import HomeportError
from chalicelib.repository.address import parse_open
from chalicelib.repository.source import Provider, Source
from chalicelib.session.values import DataFolder, Limits, Options, Ports, PullPolicy, container_name, session_id
from chalicelib.web.errors import BadField, BadForm, BadName, BodyTooLarge, MissingField
from chalicelib.web.forms import (
    BODY_LIMIT,
    FIELDS,
    NAME_LENGTH,
    SUGGESTED_NAME,
    Launch,
    cpu_count,
    gpu_count,
    image_reference,
    memory_bytes,
    notebook_name,
    parse_choice,
    parse_launch,
)
from tests.unit.naughty import ACCEPTED_NAMES, REFUSED_NAMES, TYPED_NAMES

OWNER = "0" * 64
DOCKER_NAME = r"[a-zA-Z0-9][a-zA-Z0-9_.-]+"  # what the Docker Engine takes as a container's or volume's name

LETTERS = st.characters(categories=("L", "M", "N", "P", "S", "Zs"))
NAMES = st.one_of(
    st.text(min_size=0, max_size=70),
    st.text(LETTERS, min_size=1, max_size=NAME_LENGTH),
    st.sampled_from(TYPED_NAMES),
    st.text(st.sampled_from("aAé\u0301e\u0327 \u200d\u200c\u0915\u094d한\u1112\u1161\u11ab"), max_size=12),
)


def name_or_none(text: str) -> str | None:
    try:
        return notebook_name(text)
    except BadName:
        return None


# ── names ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("name", TYPED_NAMES, ids=ascii)
def test_a_name_in_any_script_is_kept_as_typed(name: str) -> None:
    kept = notebook_name(name)
    assert kept == unicodedata.normalize("NFC", name)
    assert notebook_name(f"  {name} ") == kept


@pytest.mark.parametrize("name", REFUSED_NAMES, ids=ascii)
def test_a_name_that_hides_or_reorders_text_is_refused(name: str) -> None:
    with pytest.raises(BadName) as refused:
        notebook_name(name)
    assert refused.value.message.isprintable()
    assert name not in refused.value.message


@pytest.mark.parametrize("name", ACCEPTED_NAMES, ids=ascii)
def test_a_naughty_string_that_can_be_typed_is_only_a_name(name: str) -> None:
    assert notebook_name(name) == unicodedata.normalize("NFC", name.strip(" "))


@pytest.mark.parametrize("name", ["", " ", " " * 500])
def test_an_empty_name_becomes_the_suggested_one(name: str) -> None:
    assert notebook_name(name) == SUGGESTED_NAME


@pytest.mark.parametrize(
    "character", ["a", "é", "e\u0301", "字", "한", "\u1112\u1161\u11ab", "ᾂ", "\u03b1\u0313\u0300\u0345"]
)
def test_63_characters_are_the_most_however_they_are_spelled(character: str) -> None:
    assert len(notebook_name(character * NAME_LENGTH)) == NAME_LENGTH
    with pytest.raises(BadName, match="at most 63 are allowed"):
        notebook_name(character * (NAME_LENGTH + 1))


def test_a_name_that_can_only_be_too_long_is_not_composed() -> None:
    """Composing marks in the wrong order takes the square of their number: 80 kB of them took 2.5 s."""
    with pytest.raises(BadName, match="40000 characters"):
        notebook_name("\u0301" * 20_000 + "\u0316" * 20_000)


@settings(max_examples=60)
@given(NAMES)
@example("\ud800")
@example("\u00a0")
def test_any_text_is_a_name_of_at_most_63_visible_characters_or_refused(text: str) -> None:
    name = name_or_none(text)
    if name is None:
        return
    assert 1 <= len(name) <= NAME_LENGTH
    assert notebook_name(name) == name, "a name is kept when it is sent back"
    assert unicodedata.is_normalized("NFC", name)
    assert name == name.strip()
    assert not any(unicodedata.category(c) in ("Cc", "Cs", "Co", "Zl", "Zp") for c in name)
    assert name.encode()


@settings(max_examples=50)
@given(NAMES)
def test_every_accepted_name_has_a_safe_id_and_docker_name(text: str) -> None:
    name = name_or_none(text)
    if name is None:
        return
    sid = session_id(OWNER, name)
    assert re.fullmatch(r"[0-9a-v]{20}", sid)
    assert re.fullmatch(DOCKER_NAME, container_name(sid, 1))


@settings(max_examples=50)
@given(NAMES, st.sampled_from(["NFC", "NFD"]))
@example("Ω\u2126", "NFC")  # OHM SIGN is canonically OMEGA
@example("Å\u212b", "NFD")
def test_canonically_equal_spellings_are_the_same_notebook(text: str, form: Literal["NFC", "NFD"]) -> None:
    other = unicodedata.normalize(form, text)
    assert name_or_none(text) == name_or_none(other)


@given(st.sampled_from(["application/json", "application/x-www-form-urlencoded"]), st.binary(max_size=80))
@example("application/json", b'{"everywhere": "yes", "everywhere": ""}')
@example("application/json", b"1" * 5000)
@example("application/x-www-form-urlencoded", b"everywhere=yes\x00")
def test_no_body_signs_out_everywhere_but_the_one_that_asks_for_it(content_type: str, body: bytes) -> None:
    with suppress(BadField, BadForm):
        assert not parse_choice(content_type, body, "everywhere")


def test_different_names_never_share_an_id() -> None:
    typed = {notebook_name(name) for name in (*TYPED_NAMES, *ACCEPTED_NAMES)}
    cased = {notebook_name(form) for name in typed for form in (name, name.upper(), name.lower()) if name_or_none(form)}
    near = {f"{stem}{mark}{number}" for stem in ("note", "Note", "nöte") for mark in " -_." for number in range(2000)}
    names = typed | cased | near
    assert len({session_id(OWNER, name) for name in names}) == len(names) > 24_000


@settings(max_examples=50)
@given(st.sets(NAMES, max_size=20), st.sets(st.text("0123456789abcdef", min_size=64, max_size=64), max_size=3))
def test_owner_and_name_together_decide_the_id(texts: set[str], owners: set[str]) -> None:
    names = {name for text in texts if (name := name_or_none(text)) is not None}
    assert len({session_id(owner, name) for owner in owners for name in names}) == len(owners) * len(names)


# ── the other fields ─────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "text", ["jupyter/scipy-notebook", "quay.io/a/b:2026-11-02", "[::1]:5000/a", "a@sha256:" + "0" * 64]
)
def test_an_images_name_is_taken(text: str) -> None:
    assert image_reference(text) == text


@pytest.mark.parametrize(
    "text",
    [
        "Upper",
        "a b",
        "a\n",
        "-rm",
        "--privileged",
        "../a",
        "a/../b",
        "a:tag:tag",
        "http://a/b",
        "a@sha256:0",
        "a" * 256,
        "ａ",
        "a;id",
    ],
)
def test_what_is_no_images_name_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match=r"must|too long"):
        image_reference(text)


@pytest.mark.parametrize(("text", "size"), [("256m", 2**28), ("2g", 2**31), ("1.5 GiB", 3 * 2**29), ("64T", 2**46)])
def test_a_size_is_read(text: str, size: int) -> None:
    assert memory_bytes(text) == size


@pytest.mark.parametrize("text", ["255m", "-2g", "1e9", "nan", "inf", "2x", "٢g", "65t", "9" * 400, "0x10g"])
def test_what_is_no_size_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        memory_bytes(text)


@pytest.mark.parametrize("text", ["0", "0.00", "-1", "1e3", "nan", "inf", "٢", "2,5", "10000"])
def test_what_is_no_number_of_cpus_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        cpu_count(text)


@pytest.mark.parametrize("text", ["-1", "1.5", "many", "100", "²"])
def test_what_is_no_number_of_gpus_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        gpu_count(text)


@pytest.mark.parametrize("text", ["//etc/passwd", "..", "../a", "a/../../b", "a\\b", "a/..", "a" * 201])
def test_a_path_out_of_the_work_folder_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be"):
        parse_open(text)


# ── multipart ────────────────────────────────────────────────────────────────────────────────────────────────────────

TYPE = "multipart/form-data; boundary=b"


def part(name: str | bytes, content: str | bytes, *, disposition: bytes = b"form-data", headers: bytes = b"") -> bytes:
    named = name.encode() if isinstance(name, str) else name
    body = content.encode() if isinstance(content, str) else content
    return b'--b\r\nContent-Disposition: %s; name="%s"\r\n%s\r\n%s\r\n' % (disposition, named, headers, body)


def form(*parts: bytes) -> bytes:
    return b"".join(parts) + b"--b--\r\n"


FILE = part("credentials", "bundle")


def test_a_form_gives_its_fields_and_hides_the_bundle_from_its_repr() -> None:
    launch = parse_launch(TYPE, form(FILE, part("name", "Übung"), part("memory", " 2g "), part("open", "a/b.ipynb")))
    assert (launch.bundle, launch.name, launch.limits.memory, launch.open_path) == (
        b"bundle",
        "Übung",
        2**31,
        "a/b.ipynb",
    )
    assert "bundle" not in repr(launch)


def test_a_form_gives_its_options_and_hides_the_variables_values_from_its_repr() -> None:
    launch = parse_launch(
        TYPE,
        form(
            FILE,
            part("shm", "1g"),
            part("data", "/srv/data:rw"),
            part("env", "A=s3cret\r\n\r\nB_2= s3cret =\r\n"),
            part("port", "40000-40099"),
            part("pull", "always"),
        ),
    )
    assert launch.limits == Limits(shm=2**30)
    data, port = DataFolder("/srv/data", writable=True), Ports(40000, 40099)
    assert launch.options == Options(data, ("A", "B_2"), port, PullPolicy.ALWAYS)
    assert launch.environment == {"A": "s3cret", "B_2": " s3cret ="}
    assert "s3cret" not in repr(launch)


def asked(**fields: str) -> Launch:
    return parse_launch(TYPE, form(FILE, *(part(name, text) for name, text in fields.items())))


def test_a_repository_is_built_instead_of_an_image_and_its_address_says_what_to_open() -> None:
    launch = asked(repo="https://github.com/Somebody/Lessons/blob/main/first/one.ipynb")
    assert launch.repository == Source(Provider.GITHUB, "https://github.com/somebody/lessons", "main")
    assert (launch.image, launch.content, launch.open_path) == (None, None, "first/one.ipynb")
    assert "lessons" in launch.name.lower(), "two repositories share no volume by chance"
    launch = asked(repo="somebody/lessons", ref="v1.0", folder="environment", open="/rstudio/", name="mine")
    assert launch.repository == Source(Provider.GITHUB, "https://github.com/somebody/lessons", "v1.0", "environment")
    assert (launch.open_path, launch.name) == ("/rstudio/", "mine")


def test_the_files_of_a_repository_go_into_a_folder_beside_an_image_or_another_repository() -> None:
    launch = asked(image="an/image", content="https://github.com/somebody/data/blob/main/a/b.csv")
    assert (launch.image, launch.repository) == ("an/image", None)
    assert launch.content == Source(Provider.GITHUB, "https://github.com/somebody/data", "main")
    assert launch.open_path == "data/a/b.csv"
    both = asked(repo="somebody/lessons", content="somebody/data", content_ref="v2")
    assert (both.repository, both.content, both.open_path) == (
        Source(Provider.GITHUB, "https://github.com/somebody/lessons"),
        Source(Provider.GITHUB, "https://github.com/somebody/data", "v2"),
        "",
    )


@pytest.mark.parametrize(
    ("fields", "sentence"),
    [
        ({"repo": "a/b", "image": "an/image"}, "an image or a repository, not both"),
        ({"repo": "a/b", "pull": "always"}, "“pull” is for images"),
        ({"ref": "main"}, "“ref” needs a repository in “repo”"),
        ({"folder": "docs"}, "“folder” needs a repository in “repo”"),
        ({"content_ref": "main"}, "“content_ref” needs a repository in “content”"),
        ({"repo": "10.5281/zenodo.3242074", "ref": "main"}, "“ref” is for Git repositories"),
        ({"repo": "https://user:s3cret@github.com/a/b"}, "“repo” "),
        ({"repo": "a/b", "ref": "--upload-pack=x"}, "“ref” "),
        ({"repo": "a/b", "folder": "../c"}, "“folder” "),
        ({"repo": "a/b", "open": "//evil.example"}, "“open” "),
    ],
)
def test_fields_of_repositories_that_cannot_be_together_are_refused(fields: dict[str, str], sentence: str) -> None:
    with pytest.raises(BadField, match=re.escape(sentence)) as refused:
        asked(**fields)
    assert "s3cret" not in refused.value.message


def test_fields_that_are_empty_ask_for_nothing() -> None:
    empty = [part(name, "") for name in FIELDS - {"credentials", "name"}]
    assert parse_launch(TYPE, form(FILE, *empty)) == parse_launch(TYPE, form(FILE))


@pytest.mark.parametrize(
    ("name", "value"), [("pull", "often"), ("shm", "1"), ("data", "srv"), ("port", "80"), ("env", "A"), ("open", "..")]
)
def test_an_option_that_cannot_be_is_refused_with_its_fields_name(name: str, value: str) -> None:
    with pytest.raises(BadField, match=f"^The field “{name}” must"):
        parse_launch(TYPE, form(FILE, part(name, value)))


def test_a_value_of_a_variable_is_in_no_refusal() -> None:
    for text in ("A=s3cret\x00", "1A=s3cret", "s3cret", "A=s3cret\nA=s3cret", "PATH=s3cret", "A=" + "s3cret" * 2000):
        with pytest.raises(BadField) as refused:
            parse_launch(TYPE, form(FILE, part("env", text)))
        assert "s3cret" not in refused.value.message


@pytest.mark.parametrize(
    ("body", "error", "told"),
    [
        pytest.param(form(part("name", "one")), MissingField, "credentials", id="no file"),
        pytest.param(form(part("credentials", "")), MissingField, "empty", id="an empty file"),
        pytest.param(form(), MissingField, "credentials", id="no part at all"),
        pytest.param(form(FILE, FILE), BadField, "twice", id="two files"),
        pytest.param(form(FILE, part("name", "a"), part("name", "a")), BadField, "twice", id="a doubled name"),
        pytest.param(form(FILE, part("Name", "a")), BadField, "Unknown field “Name”", id="a field of another case"),
        pytest.param(form(FILE, part("date", "/")), BadField, "Unknown field “date”", id="an unknown field"),
        pytest.param(form(FILE, part("owner", OWNER)), BadField, "Unknown field “owner”", id="an owner of one's own"),
        pytest.param(form(FILE, part("", "x")), BadField, "Unknown field “”", id="a field without name"),
        pytest.param(form(FILE, part("__proto__", "x")), BadField, "Unknown field", id="a field of another language"),
        pytest.param(form(FILE, part("x\u202e\u0007y", "x")), BadField, "“x y”", id="a field's name with controls"),
        pytest.param(form(FILE, part("x" * 4000, "x")), BadField, "x" * 39 + "…”", id="a field's name of 4000 letters"),
        pytest.param(form(FILE, part("name", b"\xff\xfe")), BadField, "UTF-8", id="a name that is not UTF-8"),
        pytest.param(form(FILE, part("name", b"\xed\xa0\x80")), BadField, "UTF-8", id="a surrogate in UTF-8"),
        pytest.param(form(FILE, part("name", b"\xc0\xaf")), BadField, "UTF-8", id="an overlong slash"),
        pytest.param(
            form(FILE, part("host", "a\r\nX: y")),
            BadField,
            "control or invisible characters",
            id="a host with a line end",
        ),
        pytest.param(
            form(FILE, part("host", "a\0b")), BadField, "control or invisible characters", id="a host with NUL"
        ),
        pytest.param(
            form(FILE, part("image", "a\x1b[31m")),
            BadField,
            "control or invisible characters",
            id="an image with an escape",
        ),
        pytest.param(
            form(FILE, part("open", "a\u202egnp.exe")),
            BadField,
            "control or invisible characters",
            id="a path turned around",
        ),
        pytest.param(form(FILE, part("name", "a\tb")), BadName, "control", id="a name with a tab"),
    ],
)
def test_a_field_that_is_missing_doubled_unknown_or_unreadable_is_named(
    body: bytes, error: type[HomeportError], told: str
) -> None:
    with pytest.raises(error) as refused:
        parse_launch(TYPE, body)
    assert told in refused.value.message
    assert len(refused.value.message) < 300


@pytest.mark.parametrize(
    "content_type",
    [
        "",
        "multipart/form-data",
        "multipart/form-data; boundary=",
        'multipart/form-data; boundary=""',
        'multipart/form-data; boundary="a\r\nb"',
        "multipart/form-data; boundary=\xff",
        'multipart/form-data; boundary="\ud800"',
        "multipart/form-data; boundary=" + "b" * 2000,
        "multipart/form-data; boundary=other",
        "multipart/mixed; boundary=b",
        "multipart/form-data2; boundary=b",
        "text/plain; multipart/form-data; boundary=b",
        "application/x-www-form-urlencoded",
        "application/json, multipart/form-data; boundary=b",
        "multipart/form-data" + '; a="' * 10_000,
        "\0",
    ],
    ids=lambda value: ascii(value[:40]),
)
def test_what_is_no_multipart_form_is_refused(content_type: str) -> None:
    with pytest.raises(BadForm):
        parse_launch(content_type, form(FILE))


def _malformed() -> Iterable[tuple[str, bytes]]:
    whole = form(FILE, part("name", "one"))
    yield "nothing", b""
    yield "no boundary in it", b"credentials=bundle&name=one"
    yield "junk before without its own line", b"junk" + whole
    yield "nothing but what may stand before", b"junk\r\n" * 100
    yield "line feeds alone", whole.replace(b"\r\n", b"\n")
    yield "no disposition", b"--b\r\nContent-Type: text/plain\r\n\r\nx\r\n--b--\r\n"
    yield "no name", b"--b\r\nContent-Disposition: form-data\r\n\r\nx\r\n--b--\r\n"
    yield "an attachment", form(part("credentials", "x", disposition=b"attachment"))
    yield "a header without colon", form(part("credentials", "x", headers=b"header\r\n"))
    yield "a header's name with a blank", form(part("credentials", "x", headers=b"a b: c\r\n"))
    yield "a header that goes on", form(part("credentials", "x", headers=b"A: b\r\n c\r\n"))
    yield "a header without end", b"--b\r\nContent-Disposition: form-data; name=" + b"x" * 20_000
    yield "a header not in UTF-8", form(part(b"\xff", "x"))
    yield "many headers", form(part("credentials", "x", headers=b"A: b\r\n" * 50))
    yield "many parts", form(*(part(f"f{number}", "x") for number in range(400)))
    yield "a part's length that lies", form(part("credentials", "x", headers=b"Content-Length: 99999\r\n"))
    yield "a part's length that is none", form(part("credentials", "x", headers=b"Content-Length: -1\r\n"))


MALFORMED = dict(_malformed())


@pytest.mark.parametrize("body", list(MALFORMED.values()), ids=MALFORMED)
def test_a_malformed_form_is_refused(body: bytes) -> None:
    with pytest.raises((BadForm, BadField)):
        parse_launch(TYPE, body)


def test_a_form_cut_off_anywhere_is_refused() -> None:
    whole = form(FILE, part("name", "one"))
    for cut in range(len(whole) - len("--\r\n")):
        with pytest.raises(BadForm):
            parse_launch(TYPE, whole[:cut])


def test_a_body_over_the_limit_is_refused_before_it_is_parsed() -> None:
    parse_launch(TYPE, form(part("credentials", b"x" * (BODY_LIMIT - 200))))
    for size in (BODY_LIMIT, 10 * 2**20):
        with pytest.raises(BodyTooLarge):
            parse_launch("no content type at all", form(part("credentials", b"x" * size)))


def test_what_looks_like_a_boundary_inside_the_file_is_content() -> None:
    content = b"--b --b--\n--b\r\n-- b\r\n\r\n"
    assert parse_launch(TYPE, form(part("credentials", content))).bundle == content


def test_what_stands_before_and_after_the_form_counts_for_nothing() -> None:
    """RFC 2046 §5.1.1 calls it preamble and epilogue; also when it looks like a form of its own."""
    sent = b"junk\r\n" + form(FILE, part("name", "one")) + form(part("name", "two"))
    assert parse_launch(TYPE, sent).name == "one"


@settings(max_examples=40)
@given(
    st.lists(
        st.tuples(
            st.one_of(st.sampled_from(sorted(FIELDS)), st.text()),
            st.one_of(st.binary(max_size=200), NAMES.map(lambda text: text.encode(errors="replace"))),
        ),
        max_size=6,
    ),
    st.integers(0, 2000),
    st.binary(max_size=3),
)
def test_no_form_does_anything_but_launch_or_be_refused(fields: list[tuple[str, bytes]], at: int, junk: bytes) -> None:
    """Well-formed and broken forms of anything: a Launch, or one of the refusals that answer with 4xx."""
    body = form(*(part(name.encode(errors="replace"), content) for name, content in fields))
    for sent in (body, body[:at] + junk + body[at:], body[:at]):
        try:
            launch = parse_launch(TYPE, sent)
        except (BadForm, BadField, MissingField, BodyTooLarge):
            continue
        assert isinstance(launch, Launch)
        assert launch.bundle
