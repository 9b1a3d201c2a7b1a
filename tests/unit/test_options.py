"""Options of a launch: how they are written, which are refused and why, and what the operator allows."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chalicelib.aws.envelope import LARGEST_PLAINTEXT
from chalicelib.bundle.files import FILE_LIMIT
from chalicelib.session.options import (
    NAMES_BYTES,
    VARIABLES,
    VARIABLES_BYTES,
    Allowance,
    data_folder,
    ports,
    shown_limits,
    shown_size,
    size_of,
    variables,
)
from chalicelib.session.values import DataFolder, Limits, Ports
from tests.builders import some_credentials

# ── sizes ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "size", "shown"),
    [
        ("512", 512, "512 bytes"),
        ("64 KB", 65536, "64 KiB"),
        ("1.5g", 3 << 29, "1.5 GiB"),
        ("0.5T", 1 << 39, "512 GiB"),
        ("999999t", 999999 << 40, "1e+06 TiB"),
        ("0", 0, "0 bytes"),
    ],
)
def test_sizes_are_read_and_shown_in_the_same_units(text: str, size: int, shown: str) -> None:
    assert size_of(text) == size
    assert shown_size(size) == shown


@given(st.integers(0, 1 << 46))
def test_a_size_that_is_shown_can_be_typed(size: int) -> None:
    again = size_of(shown_size(size).replace("bytes", ""))
    assert abs(again - size) <= size / 999


# ── the data directory ───────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "folder"),
    [
        ("/srv/data", DataFolder("/srv/data")),
        ("/srv/data/", DataFolder("/srv/data")),
        ("/srv/data:ro", DataFolder("/srv/data")),
        ("/srv/data:rw", DataFolder("/srv/data", writable=True)),
        ("/srv/data/:rw", DataFolder("/srv/data", writable=True)),
        ("/mnt/a:b/Übung 1", DataFolder("/mnt/a:b/Übung 1")),
        ("/etcetera", DataFolder("/etcetera")),
        ("/var/lib/mysql", DataFolder("/var/lib/mysql")),
        ("/home/ada", DataFolder("/home/ada")),
    ],
)
def test_a_data_directory_is_read_only_unless_it_says_otherwise(text: str, folder: DataFolder) -> None:
    assert data_folder(text) == folder
    assert data_folder(str(folder)) == folder


@pytest.mark.parametrize(
    "text", ["", "data", "./data", "~/data", "C:\\data", "/a//b", "/a/../b", "/a/.", ":rw", "/" + "a" * 500]
)
def test_a_path_that_is_not_absolute_and_plain_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be an absolute path"):
        data_folder(text)


@pytest.mark.parametrize(
    "text", ["/", "/:rw", "//", "/etc", "/etc/", "/etc/docker", "/proc/1", "/run/docker.sock", "/var", "/var/lib",
             "/var/run/docker.sock", "/var/lib/docker/volumes", "/dev/shm:rw", "/sys", "/boot"]
)  # fmt: skip
def test_the_system_itself_is_no_data_directory(text: str) -> None:
    with pytest.raises(ValueError, match=r"whole machine|absolute path"):
        data_folder(text)


# ── ports ────────────────────────────────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("text", "found"),
    [("40000", Ports(40000, 40000)), ("1024-65535", Ports(1024, 65535)), ("40000 – 40099", Ports(40000, 40099))],
)
def test_a_port_or_a_range_is_read(text: str, found: Ports) -> None:
    assert ports(text) == found
    assert ports(str(found)) == found


@pytest.mark.parametrize(
    "text", ["", "0", "80", "1023-2000", "65536", "40000-65536", "40099-40000", "-40000", "a", "٤٠٠٠٠", "1024-", "1 2"]
)
def test_what_is_no_range_of_ports_that_a_notebook_can_have_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="must be a port or a range"):
        ports(text)


# ── variables ────────────────────────────────────────────────────────────────────────────────────────────────────────


def test_a_variable_is_a_line_and_its_value_all_that_follows() -> None:
    assert variables("A=1\r\n\n_b2= x = y \nC=\n") == {"A": "1", "_b2": " x = y ", "C": ""}
    assert variables("\n  \n") == {}


@pytest.mark.parametrize("name", ["1A", "A B", "A-B", "", " A", "Ä", "A" * 129, "export A", "#A"])
def test_a_name_that_posix_does_not_know_is_refused_by_its_lines_number(name: str) -> None:
    with pytest.raises(ValueError, match="must have in line 2 NAME=value"):
        variables(f"A=1\n{name}=secret")


@pytest.mark.parametrize(
    "name",
    ["PATH", "HOME", "ENV", "BASH_ENV", "LD_PRELOAD", "LD_LIBRARY_PATH", "PYTHONPATH", "PYTHONHOME", "OPENSSL_CONF",
     "JUPYTER_NO_CONFIG", "JUPYTER_CONFIG_PATH", "JUPYTERHUB_API_TOKEN", "IPYTHONDIR", "HOMEPORT_X"],
)  # fmt: skip
def test_what_decides_how_jupyterlab_starts_or_whom_it_believes_is_not_the_visitors_to_set(name: str) -> None:
    with pytest.raises(ValueError, match=f"must not set {name}: "):
        variables(f"{name}=1")


@pytest.mark.parametrize("name", ["MYPATH", "PATHS", "HOMEPORT", "OMP_NUM_THREADS", "AWS_SECRET_ACCESS_KEY", "NB_UID"])
def test_other_variables_are_the_visitors(name: str) -> None:
    assert variables(f"{name}=1") == {name: "1"}


@pytest.mark.parametrize("value", ["a\0", "a\x1b[0m", "a\u202e", "a\rb", "a\u200b"])
def test_a_value_that_hides_something_is_refused(value: str) -> None:
    with pytest.raises(ValueError, match="invisible characters in the value of A"):
        variables(f"A={value}")


def test_a_variable_that_is_set_twice_is_refused() -> None:
    with pytest.raises(ValueError, match="must not set A twice"):
        variables("A=1\nA=1")


def test_there_are_bounds_to_how_many_and_how_large_variables_are() -> None:
    most = "\n".join(f"V{number}=" for number in range(VARIABLES))
    assert len(variables(most)) == VARIABLES
    assert variables("A=" + "ü" * (VARIABLES_BYTES // 2 - 1))
    for text in (f"{most}\nMORE=", "A=" + "ü" * (VARIABLES_BYTES // 2)):
        with pytest.raises(ValueError, match="at most 64 variables, and 6 KiB together"):
            variables(text)
    many = "\n".join(f"{number:N>{NAMES_BYTES // 32}}=" for number in range(32))
    assert len(variables(many)) == 32
    with pytest.raises(ValueError, match="names of at most 2 KiB together"):
        variables(f"{many}\nM=")


def test_the_largest_credentials_and_the_largest_variables_together_fit_into_an_envelope() -> None:
    """A file of a bundle has at most FILE_LIMIT bytes, lines of PEM 64 characters; JSON doubles a quotation mark."""
    pem = (b"x" * 64 + b"\n") * (FILE_LIMIT // 65)
    largest = variables("A=" + '"' * (VARIABLES_BYTES - 1))
    sealed = some_credentials(ca=pem, certificate=pem, key=pem, environment=largest).to_bytes()
    assert len(sealed) <= LARGEST_PLAINTEXT
    assert json.loads(sealed)["environment"] == largest


# ── what the operator allows ─────────────────────────────────────────────────────────────────────────────────────────


def test_who_asks_for_no_limit_gets_the_default_and_never_more_than_the_most() -> None:
    allowance = Allowance(most=Limits(memory=8, cpus=2.0), default=Limits(memory=4, cpus=4.0, shm=1))
    assert allowance.settled(Limits()) == Limits(memory=4, cpus=2.0, shm=1)
    assert allowance.settled(Limits(memory=6, cpus=1.0, gpus=1, shm=3)) == Limits(memory=6, cpus=1.0, gpus=1, shm=3)
    assert Allowance(most=Limits(memory=8)).settled(Limits()) == Limits(memory=8)
    assert Allowance().settled(Limits()) == Limits()


def test_what_is_above_the_most_is_said() -> None:
    allowance = Allowance(most=Limits(memory=8 << 30, cpus=2.0, shm=1 << 30))
    assert allowance.exceeded(Limits(memory=8 << 30, cpus=2.0, shm=1 << 30, gpus=-1)) == []
    asked = Limits(memory=9 << 30, cpus=2.5, shm=2 << 30)
    assert allowance.exceeded(asked) == ["8 GiB of memory", "2 CPUs", "1 GiB of shared memory"]
    assert Allowance().exceeded(asked) == []


def test_limits_are_shown_as_people_say_them() -> None:
    assert shown_limits(Limits(memory=1 << 30, cpus=1.0, gpus=1)) == ["1 GiB of memory", "1 CPU", "1 GPU"]
    assert shown_limits(Limits(cpus=0.5, gpus=-1)) == ["0.5 CPUs", "all GPUs"]
    assert shown_limits(Limits(gpus=2)) == ["2 GPUs"]
