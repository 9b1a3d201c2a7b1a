"""Images' names: the examples of the reference grammar's own tests, and what the operator's patterns allow.

Source: https://github.com/distribution/reference, reference_test.go, normalize_test.go and regexp_test.go
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.session.image import Image, is_allowed, is_pattern, parse_image

HEX = "f" * 64
SHA256, SHA512 = f"sha256:{HEX}", f"sha512:{'f' * 128}"
ID = "1a3f5e7d9c1b3a5f7e9d1c3b5a7f9e1d3c5d7f9b1a3f5e7d9c1b3a5f7e9d1c3b"


@pytest.mark.parametrize(
    ("text", "image"),
    [
        ("test_com", Image("docker.io", "library/test_com")),
        ("test.com:tag", Image("docker.io", "library/test.com", "tag")),
        ("test.com:5000", Image("docker.io", "library/test.com", "5000")),
        ("test.com/repo:tag", Image("test.com", "repo", "tag")),
        ("test:5000/repo", Image("test:5000", "repo")),
        (f"test:5000/repo@{SHA256}", Image("test:5000", "repo", digest=SHA256)),
        (f"test:5000/repo:tag@{SHA256}", Image("test:5000", "repo", "tag", SHA256)),
        ("sub-dom1.foo.com/bar/baz/quux:some-long-tag", Image("sub-dom1.foo.com", "bar/baz/quux", "some-long-tag")),
        ("b.gcr.io/test.example.com/my-app:test.example.com",
         Image("b.gcr.io", "test.example.com/my-app", "test.example.com")),
        (f"xn--7o8h.com/myimage:xn--7o8h.com@{SHA512}", Image("xn--7o8h.com", "myimage", "xn--7o8h.com", SHA512)),
        ("foo_bar.com:8080", Image("docker.io", "library/foo_bar.com", "8080")),
        ("foo/foo_bar.com:8080", Image("docker.io", "foo/foo_bar.com", "8080")),
        ("[fc00::1]:5000/docker", Image("[fc00::1]:5000", "docker")),
        ("[fc00:1:2:3:4:5:6:7]:5000/library/debian", Image("[fc00:1:2:3:4:5:6:7]:5000", "library/debian")),
        ("[::1]/a", Image("[::1]", "a")),
        ("localhost/a", Image("localhost", "a")),
        ("debian", Image("docker.io", "library/debian")),
        ("docker/docker", Image("docker.io", "docker/docker")),
        ("docker.io/debian", Image("docker.io", "library/debian")),
        ("index.docker.io/library/debian", Image("docker.io", "library/debian")),
        ("127.0.0.1:5000/debian", Image("127.0.0.1:5000", "debian")),
        ("192.168.0.1", Image("docker.io", "library/192.168.0.1")),
        ("a__b/c--d", Image("docker.io", "a__b/c--d")),
        (f"docker.io/{ID}", Image("docker.io", f"library/{ID}")),
        ("Test.COM/repo:TAG", Image("Test.COM", "repo", "TAG")),
        ("r.example/" + "a/" * 127 + "a:tag-puts-this-over-max",
         Image("r.example", "a/" * 127 + "a", "tag-puts-this-over-max")),
        ("a:" + "t" * 128, Image("docker.io", "library/a", "t" * 128)),
    ],
)  # fmt: skip
def test_a_name_is_taken_apart_as_engines_do(text: str, image: Image) -> None:
    assert parse_image(text) == image


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "must be an image's name such as"),
        (":justtag", "must be an image's name such as"),
        ("a*b", "must be an image's name such as"),
        (f"@{SHA256}", "must be an image's name such as"),
        ("repo@sha256:ffffffffffffffffffffffffffffffffff", "digest"),
        (f"validname@invaliddigest:{HEX}{HEX}", "digest"),
        (f"a@sha256:{'F' * 64}", "digest"),
        (f"a@sha512:{HEX}", "digest"),
        ("a@", "digest"),
        (f"a@{SHA256}@{SHA256}", "digest"),
        ("a:", "tag"),
        ("a:" + "t" * 129, "tag"),
        ("a:-tag", "tag"),
        ("a:b:c", "tag"),
        ("r.example/" + "a/" * 128 + "a:tag", "too long"),
        ("a" * 300, "too long"),
        ("a" * 300 + ".example/b", "too long"),
        ("a" * 90_000 + "!", "too long"),
        ("aa/asdf$$^/aa", "must be an image's name such as"),
        ("https://github.com/docker/docker", "must be an image's name such as"),
        ("docker/Docker", "lower case: docker/docker"),
        ("Docker/docker", "lower case: docker/docker"),
        ("Uppercase:tag", "lower case: uppercase"),
        ("test:5000/Uppercase/lowercase:tag", "lower case: uppercase/lowercase"),
        ("A" * 200, "lower case: jupyter/scipy-notebook"),
        ("-docker/docker", "must be an image's name such as"),
        ("-docker.io/docker/docker", "must be an image's name such as"),
        ("docker///docker", "must be an image's name such as"),
        ("docker.io/docker///docker", "must be an image's name such as"),
        ("[fc00::1]", "must be an image's name such as"),
        ("[fc00::1]:5000", "must be an image's name such as"),
        ("fc00::1:5000/debian", "must be an image's name such as"),
        ("[fe80::1%eth0]:5000/debian", "must be an image's name such as"),
        ("[2001:db8:3:4::192.0.2.33]:5000/debian", "must be an image's name such as"),
        ("foo/foo_bar.com:80_80/x", "must"),
        ("xn--n3h.com:abc/x", "must be an image's name such as"),
        ("a..b", "must be an image's name such as"),
        ("a___b", "must be an image's name such as"),
        ("a/", "must be an image's name such as"),
        ("/a", "must be an image's name such as"),
        (ID, "image's id"),
        ("a\n", "must be an image's name such as"),
        ("字", "must be an image's name such as"),
    ],
)
def test_what_is_no_name_is_refused_with_what_is_wrong(text: str, told: str) -> None:
    with pytest.raises(ValueError, match=r"must|is") as refused:
        parse_image(text)
    assert told in str(refused.value)
    assert str(refused.value).isprintable()
    assert len(str(refused.value)) < 150


@given(st.text("aA1._-:/@[]*字 ", max_size=40))
def test_any_text_is_a_name_or_refused_and_a_name_written_in_full_is_the_same(text: str) -> None:
    try:
        image = parse_image(text)
    except ValueError:
        return
    assert parse_image(str(image)).name == image.name
    assert parse_image(str(image)).version == image.version


def test_a_digest_counts_before_a_tag_and_no_tag_is_latest() -> None:
    assert str(parse_image("a")) == "docker.io/library/a:latest"
    assert str(parse_image(f"a/b:old@{SHA256}")) == f"docker.io/a/b@{SHA256}"


@pytest.mark.parametrize(
    ("pattern", "allowed", "refused"),
    [
        ("quay.io/jupyter/*", ["quay.io/jupyter/scipy-notebook", "quay.io/jupyter/a/b:tag"],
         ["quay.io/other/a", "docker.io/jupyter/a", "jupyter/a", "quay.io.example.org/jupyter/a"]),
        ("jupyter/base", ["jupyter/base:2026-11-02", "docker.io/jupyter/base", f"jupyter/base@{SHA256}"],
         ["jupyter/base2", "r.example/jupyter/base"]),
        ("python:3.11-*", ["python:3.11-slim", "library/python:3.11-x"],
         ["python", "python:3.12-slim", f"python:3.11-slim@{SHA256}"]),
        (SHA256, [f"any/name@{SHA256}", f"r.example/a:tag@{SHA256}"], ["any/name", f"a@sha256:{'0' * 64}"]),
        (f"a/b@{SHA256}", [f"a/b@{SHA256}", f"a/b:tag@{SHA256}"], ["a/b", f"c/b@{SHA256}"]),
        ("py*", ["python", "pypy:3"], ["a/python", "r.example/python"]),
        ("*", ["a", "r.example:5000/a/b:c"], []),
        ("*.example.org/*", ["r.example.org/a"], ["example.org/a", "docker.io/a"]),
        ("a.b/c", ["a.b/c"], ["axb/c"]),
        ("*.example.org/team/*", ["r.example.org/team/a/b:1"],
         ["evil.io/x.example.org/team/a", "evil/x.example.org/team/a", "r.example.org:5000/team/a"]),
        ("r.example/a/*:2026*", ["r.example/a/b:2026-11"], [f"r.example/a/b@{SHA256}", "r.example/a/b"]),
        ("a/b:latest", ["a/b", "a/b:latest"], ["a/b:2"]),
    ],
)  # fmt: skip
def test_a_pattern_allows_what_it_names_however_that_is_written(
    pattern: str, allowed: list[str], refused: list[str]
) -> None:
    assert is_pattern(pattern)
    assert all(is_allowed(parse_image(text), ["no/such", pattern]) for text in allowed)
    assert not any(is_allowed(parse_image(text), ["no/such", pattern]) for text in refused)


@pytest.mark.parametrize("text", ["A/b", "a b", "[a-z]/b", "a?", "", "sha256:12", "https://a/b"])
def test_what_can_allow_nothing_is_no_pattern(text: str) -> None:
    assert not is_pattern(text) or text == "sha256:12"  # which is the tag 12 of an image called sha256
