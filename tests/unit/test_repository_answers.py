"""What a helper says is believed as far as it can be: its log is a stranger's."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.repository.answers import ANSWER_LENGTH, CLONED, LOG_LENGTH, MARK, Report, report_of


def line(**answer: Any) -> str:
    return MARK + json.dumps(answer)


def test_ordinary_lines_are_the_log_and_the_last_one_is_shown() -> None:
    log = "\n".join(["Step 1/2 : FROM x", "", " Step 2/2 : RUN y ", "   ", line(answer="phase", phase="building")])
    assert report_of(log) == Report(line="Step 2/2 : RUN y")


def test_the_last_step_says_how_far_it_is() -> None:
    log = "\n".join([line(answer="step", done=1, of=4), "x", line(answer="step", done=3, of=4), "y"])
    assert report_of(log) == Report(fraction=0.75, line="y")
    assert report_of(line(answer="step", done=0, of=4)).fraction == 0


@pytest.mark.parametrize(
    "step",
    [{}, {"done": 1}, {"of": 2}, {"done": 3, "of": 2}, {"done": -1, "of": 2}, {"done": 0, "of": 0},
     {"done": 1, "of": 10_001},
     {"done": True, "of": True}, {"done": 0.5, "of": 1}, {"done": "1", "of": "2"}, {"done": None, "of": 2},
     {"done": [], "of": 1}],
)  # fmt: skip
def test_a_step_that_is_none_leaves_what_was_known(step: dict[str, Any]) -> None:
    assert report_of(line(answer="step", **step)).fraction is None
    assert report_of(line(answer="step", done=1, of=2) + "\n" + line(answer="step", **step)).fraction == 0.5


def test_the_last_answer_that_ends_it_is_its_end() -> None:
    log = "\n".join(
        [line(answer="built", size=1), line(answer="failed", code="no-space", detail="full"), line(answer="x")]
    )
    report = report_of(log)
    assert report.failure == ("no-space", "full")
    assert report.versions(0) is None
    assert report_of(log + "\n" + line(answer="built", size=2)).failure == ("", "")


def test_only_the_end_of_a_long_log_is_read_and_what_is_left_of_a_cut_line_is_no_answer() -> None:
    said = line(answer="built", size=1)
    rest = "x\n" * ((LOG_LENGTH - len(said)) // 2)
    short = LOG_LENGTH - len(said + rest) - 1
    assert report_of(f"{said}{' ' * short}\n{rest}").end is not None
    assert report_of(f"printed by a repository: {said}{' ' * short}\n{rest}").end is None


@pytest.mark.parametrize("found", [None, "https://x", [], ["https://x", 1], ["https://x"]])
def test_addresses_are_those_of_all_sources_or_none(found: Any) -> None:
    assert report_of(line(answer="resolved", addresses=found)).addresses(2) == ()
    assert report_of(line(answer="resolved", addresses=["https://x", "y"])).addresses(2) == ("https://x", "y")


@pytest.mark.parametrize(
    "answer",
    [{"answer": "failed"}, {"answer": "failed", "code": ""}, {"answer": "failed", "code": 1},
     {"answer": "failed", "code": "A-b"},
     {"answer": "failed", "code": "a--b"}, {"answer": "failed", "code": "no-space\n"},
     {"answer": "failed", "code": "é-é"},
     {"answer": "failed", "code": "a" * 200}, {"answer": "failed", "code": ["no-space"]}, {"code": "no-space"}],
)  # fmt: skip
def test_a_failure_without_a_known_form_of_code_tells_nothing(answer: dict[str, Any]) -> None:
    assert report_of(line(**answer)).failure == ("", "")


@pytest.mark.parametrize("detail", [None, 1, ["x"], {"x": 1}])
def test_a_detail_that_is_no_text_is_none(detail: Any) -> None:
    assert report_of(line(answer="failed", code="fetch-failed", detail=detail)).failure == ("fetch-failed", "")


def test_versions_are_those_of_so_many_sources() -> None:
    report = report_of(line(answer="resolved", versions=["a" * 40, "10.5281/zenodo.1"], disk=5))
    assert report.versions(2) == ("a" * 40, "10.5281/zenodo.1")
    assert report.free_disk == 5
    assert (report.versions(1), report.versions(3), report.cloned) == (None, None, "")


@pytest.mark.parametrize(
    "versions",
    [
        None,
        "a",
        {"a": 1},
        [""],
        ["-a"],
        ["a b"],
        ["a\n"],
        ["a" * 201],
        [1],
        [None],
        [["a"]],
        ["é"],
        ["a\u202eb"],
        ["$(x)"],
    ],
)
def test_versions_that_are_none_are_not_believed(versions: Any) -> None:
    assert report_of(line(answer="resolved", versions=versions)).versions(1) is None


@pytest.mark.parametrize("disk", [None, -1, 1 << 60, 1.5, True, "5", [5]])
def test_a_free_disk_that_is_none_is_not_believed(disk: Any) -> None:
    assert report_of(line(answer="resolved", versions=[], disk=disk)).free_disk is None


def test_what_became_of_the_files_is_a_sentence() -> None:
    assert {report_of(line(answer="cloned", state=state)).cloned for state in CLONED} == set(CLONED.values())
    for state in ("", "other", None, 1, ["new"], {"new": 1}):
        assert report_of(line(answer="cloned", state=state)).cloned == ""


@pytest.mark.parametrize("end", ["\r", "\x0b", "\x0c", "\x1c", "\x1e", "\x85", "\u2028", "\u2029"])
def test_only_a_line_feed_ends_a_line(end: str) -> None:
    assert report_of(f"Step 1/2{end}{line(answer='built', size=1)}").end is None


def test_a_helper_that_says_nothing_reports_nothing() -> None:
    report = report_of("")
    assert report == Report()
    assert (report.failure, report.versions(0), report.free_disk, report.cloned) == (("", ""), None, None, "")


@pytest.mark.parametrize(
    "text",
    [MARK, f"{MARK}x", f"{MARK}[]", f"{MARK}1", f"{MARK}null", f'{MARK}"built"', f"{MARK}{{",
     f'{MARK}{{"answer": "built"}} x',
     f" {line(answer='built')}", f"HOMEPORT {json.dumps({'answer': 'built'})}", MARK + "[" * 2000,
     line(answer="built", padding="a" * ANSWER_LENGTH), f'{MARK}{{"answer": ["built"]}}', f"{MARK}{{}}"],
)  # fmt: skip
def test_a_line_that_only_looks_like_an_answer_is_a_line_of_the_log(text: str) -> None:
    assert report_of(text) == Report(line=text.strip())


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)
ANSWERS = st.fixed_dictionaries(
    {"answer": st.sampled_from(["step", "resolved", "built", "cloned", "failed", "phase"]) | JSON},
    optional={"done": JSON, "of": JSON, "versions": JSON, "disk": JSON, "state": JSON, "code": JSON, "detail": JSON},
)


@given(
    st.lists(ANSWERS.map(lambda answer: MARK + json.dumps(answer)) | st.text(max_size=30), max_size=6).map("\n".join)
)
def test_any_log_is_read(log: str) -> None:
    report = report_of(log)
    assert report.fraction is None or 0 <= report.fraction <= 1
    assert all(isinstance(text, str) for text in (*report.failure, report.cloned, report.line))
    assert report.versions(1) is None or isinstance(report.versions(1), tuple)
    assert report.free_disk is None or report.free_disk >= 0


@pytest.mark.parametrize(
    ("log", "line"),
    [
        ("Step 2/3 : RUN x\n ---> Running in 0123456789ab\n", "Step 2/3 : RUN x"),
        ("cached\nRemoving intermediate container 0123456789ab\n ---> 0123456789ab\n\n", "cached"),
        ("#9 [5/9] RUN mamba env update\n", "[5/9] RUN mamba env update"),
        ("#9 12.34 Solving environment\n", "Solving environment"),
        ("# a comment of a program's\n", "# a comment of a program's"),
        ("#12\n", "#12"),
    ],
)
def test_a_line_is_what_a_person_wants_to_read_of_it(log: str, line: str) -> None:
    assert report_of(log).line == line
