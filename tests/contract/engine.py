"""What every engine must do that effects are performed on: inherited by the tests of the twin and of a real one."""

from __future__ import annotations

from abc import ABC, abstractmethod
from contextlib import nullcontext, suppress
from dataclasses import replace
from time import sleep
from typing import Any

import pytest

from chalicelib.engine.endpoint import MISSING, NO_HELPER, ContainerStatus, HelperThere
from chalicelib.engine.errors import (
    ContainerConflict,
    ContainerMissing,
    ContainerNotSavable,
    EndpointFailed,
    EndpointTooOld,
    ImageInUse,
    ImageNotFound,
    LimitsRefused,
    LimitsUnsupported,
    VolumeInUse,
)
from chalicelib.engine.ownership import LaunchThere
from chalicelib.engine.saving import SAVED, SAVED_AT, SAVED_BY
from chalicelib.launcher.outside import Engine
from chalicelib.notebook.certificates import Leaf
from chalicelib.notebook.container import LABEL, SAVABLE, Specification, certificate_file, injected_files
from chalicelib.notebook.helpers import BUILT, HELPER_LABELS, PROGRAM, HelperSpecification, program_file
from chalicelib.repository.answers import report_of
from chalicelib.session.values import DataFolder, Limits, helper_name
from tests.builders import LABEL as LAUNCH
from tests.builders import NOW, a_session

CREATED = ContainerStatus(status="created", running=False, exit_code=0, oom=False)
RUNNING = ContainerStatus(status="running", running=True, exit_code=None, oom=False)
ABSENT = "homeport-nothing-of-that-name:latest"
LEAF = Leaf(b"a certificate\n", b"its key\n")
FILES = injected_files(
    a_session(), workdir="/home/jovyan/work", user="", leaf=LEAF, client_ca=b"a CA\n", idle_lifetime=60
)
# A shell runs it here: the engines' image has no Python.
PROGRAM_FILE = program_file(b"""echo 'homeport {"answer": "resolved", "versions": ["c0ffee"]}'\n""", NOW)


def a_helper(spec: Specification) -> HelperSpecification:
    """A helper of the image of `spec`, for nobody's launch."""
    owner, sid = (spec.labels[f"{LABEL}{key}"] for key in ("owner", "session"))
    values = (spec.labels[f"{LABEL}hub"], owner, sid, "1", LAUNCH, "resolve")
    return HelperSpecification(
        name=helper_name(sid, 1, "resolve"),
        image=spec.image,
        command=("sh", PROGRAM, "resolve", '{"sources": [{}], "engine": null}'),
        labels=dict(zip(HELPER_LABELS, values, strict=True)),
        volume=spec.volume,
    )


def sids_of(engine: Engine, owner: str) -> list[str]:
    """The sessions of which the engine has containers."""
    return [launch.sid for launch in engine.launches(owner)]


class EngineContract(ABC):
    """`opened` is a fixture of the inheriting class: an engine with an image.

    So are `spec`, a container of that image for nobody's launch yet, which runs until it is removed, `pullable`, an
    image that a registry has and the engine has not, `saved_as`, the name of one to write, `built_as`, that of one of a
    repository, and `keeps_limits`: a rootless engine may have no control groups. `helper` is one of that image
    (`a_helper`), at work for nobody yet.
    """

    @abstractmethod
    def let_it_end(self, opened: Engine, spec: Specification, exit_code: int, line: str) -> None:
        """Create and start the container of `spec`, and have it print the line and end."""

    def test_it_says_which_version_it_is(self, opened: Engine) -> None:
        version, _ = opened.verify()
        assert any(character.isdigit() for character in version)
        assert opened.address

    def test_limits_are_refused_when_they_are_above_what_it_has_or_it_keeps_none(
        self, opened: Engine, keeps_limits: bool
    ) -> None:
        opened.check_limits(Limits())
        with nullcontext() if keeps_limits else pytest.raises(LimitsUnsupported):
            opened.check_limits(Limits(memory=256 << 20, cpus=0.5, gpus=1, shm=1 << 40))
        for limits in (Limits(memory=1 << 50), Limits(cpus=9999.0)):
            with pytest.raises(LimitsRefused):
                opened.check_limits(limits)

    # ── images ──

    def test_an_image_is_there_or_not(self, opened: Engine, spec: Specification) -> None:
        assert opened.image_present(spec.image)
        assert opened.image_config(spec.image).workdir.startswith("/")
        assert not opened.image_present(ABSENT)
        with pytest.raises(ImageNotFound):
            opened.image_config(ABSENT)

    def test_a_pull_ends_with_the_image_and_its_share_never_falls(self, opened: Engine, pullable: str) -> None:
        assert not opened.image_present(pullable)
        statuses = list(opened.pull(pullable))
        assert opened.image_present(pullable)
        assert all(status.line for status in statuses)
        shares = [status.fraction for status in statuses if status.fraction is not None]
        assert shares == sorted(shares)

    # ── a container's life ──

    def test_everything_in_a_containers_life_may_happen_twice(self, opened: Engine, spec: Specification) -> None:
        for _ in range(2):
            opened.create(spec)
            assert opened.inspect(spec.name) == CREATED
        for _ in range(2):
            opened.put_files(spec.name, FILES)
        for _ in range(2):
            opened.start(spec.name)
            assert opened.inspect(spec.name) == RUNNING
        target = opened.published(spec.name)
        assert opened.published(spec.name) == target
        assert target.address == opened.address
        assert 0 < target.port < 65536
        for was_there in (True, False):
            assert opened.remove(spec.name) is was_there
            assert opened.inspect(spec.name) == MISSING

    @pytest.mark.parametrize("user", ["", "1000", "1000:100", "nobody-of-that-name:users"])
    def test_a_user_without_a_name_that_the_image_knows_is_as_the_image_says(
        self, opened: Engine, spec: Specification, user: str
    ) -> None:
        opened.create(spec)
        assert opened.user_number(spec.name, user) == user

    @pytest.mark.parametrize("limits", [Limits(), Limits(memory=64 << 20), Limits(cpus=0.5)])
    def test_a_container_that_runs_is_adopted_as_it_is(
        self, opened: Engine, spec: Specification, limits: Limits
    ) -> None:
        spec = replace(spec, limits=limits)
        opened.create(spec)
        opened.put_files(spec.name, FILES)
        opened.start(spec.name)
        opened.create(spec)
        assert opened.inspect(spec.name) == RUNNING

    @pytest.mark.parametrize("label", ["hub", "session", "generation"])
    def test_what_is_another_hubs_or_launchs_is_not_adopted(
        self, opened: Engine, spec: Specification, label: str
    ) -> None:
        opened.create(replace(spec, labels={**spec.labels, f"{LABEL}{label}": "7"}))
        with pytest.raises(ContainerConflict):
            opened.create(spec)
        with pytest.raises(ContainerConflict):
            opened.remove(spec.name)
        assert opened.inspect(spec.name) == CREATED

    def test_a_container_of_a_lost_launch_is_replaced(self, opened: Engine, spec: Specification) -> None:
        """Its certificate is for another host, so it could never be this launch's notebook; it is ours all the same."""
        lost = replace(spec, labels={**spec.labels, f"{LABEL}label": "zzzzzzzzzz"})
        opened.create(lost)
        opened.put_files(spec.name, FILES)
        opened.start(spec.name)
        for _ in range(2):
            opened.create(spec)
            assert opened.inspect(spec.name) == CREATED
        opened.create(lost)
        opened.remove(spec.name)
        assert opened.inspect(spec.name) == MISSING

    @pytest.mark.parametrize(
        "changes",
        [
            {"command": ("sh", "-c", "trap 'exit 0' TERM; echo ready; sleep 999 & wait")},
            {"volume": "homeport-another"},
            {"workdir": "/elsewhere"},
            {"port": 9999},
            {"publish_address": "127.0.0.2"},
            {"limits": Limits(memory=64 << 20)},
            {"limits": Limits(cpus=0.5)},
            {"data": DataFolder("/tmp")},
        ],
        ids=lambda changes: next(iter(changes)),
    )
    def test_what_has_our_labels_and_is_not_what_was_asked_for_is_replaced(
        self, opened: Engine, spec: Specification, changes: dict[str, Any]
    ) -> None:
        try:
            opened.create(replace(spec, **changes))
        except EndpointTooOld:
            assert "data" in changes, "API 1.30 is the first with mounts"
            return
        opened.put_files(spec.name, FILES)
        opened.start(spec.name)
        for _ in range(2):
            opened.create(spec)
            assert opened.inspect(spec.name) == CREATED

    def test_the_launches_of_an_owner_are_told_with_what_their_labels_say(
        self, opened: Engine, spec: Specification
    ) -> None:
        said = {key.removeprefix(LABEL): value for key, value in spec.labels.items()}
        owner, expires, longest = said["owner"], float(said["expires"]), float(said["longest"])
        launch = LaunchThere(said["session"], 1, False, said["label"], said["image"], expires, longest)
        assert launch.sid not in sids_of(opened, owner)
        opened.create(spec)
        assert launch in opened.launches(owner)
        opened.put_files(spec.name, FILES)
        opened.start(spec.name)
        assert replace(launch, running=True) in opened.launches(owner)
        assert launch.sid not in sids_of(opened, "cd" * 32)
        opened.remove(spec.name)
        assert launch.sid not in sids_of(opened, owner)

    def test_the_launches_of_another_hub_are_not_told(self, opened: Engine, spec: Specification) -> None:
        opened.create(replace(spec, labels={**spec.labels, f"{LABEL}hub": "another"}))
        assert spec.labels[f"{LABEL}session"] not in sids_of(opened, spec.labels[f"{LABEL}owner"])

    # ── saved as an image ──

    def test_a_container_that_runs_is_saved_as_an_image_that_says_whose_it_is(
        self, opened: Engine, spec: Specification, saved_as: str
    ) -> None:
        assert opened.saved_image(saved_as) is None
        of_nobody = opened.saved_image(spec.image)
        assert of_nobody is not None
        assert (of_nobody.owner, of_nobody.save) == ("", "")
        opened.create(spec)
        opened.put_files(spec.name, FILES)
        opened.start(spec.name)
        opened.put_files(spec.name, certificate_file(None, NOW))
        for save in ("one", "two"):
            opened.check_savable(spec.name)
            for _ in opened.commit(spec.name, saved_as, {SAVED: "a sid", SAVED_BY: "ab", SAVED_AT: save}):
                pass
            saved = opened.saved_image(saved_as)
            assert saved is not None
            assert (saved.owner, saved.save) == ("ab", save)
            assert saved.size > 0
            assert opened.inspect(spec.name) == RUNNING
        opened.put_files(spec.name, certificate_file(LEAF, NOW))

    def test_what_is_not_ours_or_not_there_is_not_saved(
        self, opened: Engine, spec: Specification, saved_as: str
    ) -> None:
        labels = {SAVED: "a sid", SAVED_BY: "ab", SAVED_AT: "one"}
        calls = (opened.check_savable, lambda name: list(opened.commit(name, saved_as, labels)))
        for call in calls:
            with pytest.raises(ContainerMissing):
                call(spec.name)
        opened.create(replace(spec, labels={**spec.labels, f"{LABEL}hub": "another"}))
        for call in calls:
            with pytest.raises(ContainerConflict):
                call(spec.name)
        assert opened.saved_image(saved_as) is None

    def test_what_an_earlier_version_launched_is_not_saved(self, opened: Engine, spec: Specification) -> None:
        """Its server reads the key at every connection."""
        opened.create(replace(spec, labels={name: value for name, value in spec.labels.items() if name != SAVABLE}))
        with pytest.raises(ContainerNotSavable):
            opened.check_savable(spec.name)

    # ── its volume ──

    def test_a_volume_outlives_its_container_until_it_is_removed(self, opened: Engine, spec: Specification) -> None:
        sid, owner = spec.labels[f"{LABEL}session"], spec.labels[f"{LABEL}owner"]
        opened.remove_volume(sid, owner)
        opened.create(spec)
        with pytest.raises(VolumeInUse):
            opened.remove_volume(sid, owner)
        opened.remove(spec.name)
        for _ in range(2):
            opened.remove_volume(sid, owner)

    def test_a_container_without_its_image_is_not_created(self, opened: Engine, spec: Specification) -> None:
        with pytest.raises(ImageNotFound):
            opened.create(replace(spec, image=ABSENT))
        assert opened.inspect(spec.name) == MISSING

    def test_what_does_not_run_is_published_nowhere_or_where_it_will_be(
        self, opened: Engine, spec: Specification
    ) -> None:
        opened.create(spec)
        targets = set()
        with suppress(EndpointFailed):  # Podman has chosen one already
            targets.add(opened.published(spec.name))
        opened.put_files(spec.name, FILES)
        opened.start(spec.name)
        targets.add(opened.published(spec.name))
        assert len(targets) == 1

    def test_a_container_that_ended_says_how(self, opened: Engine, spec: Specification) -> None:
        self.let_it_end(opened, spec, 3, "boom")
        ended = ContainerStatus(status="exited", running=False, exit_code=3, oom=False)
        assert opened.inspect(spec.name) == ended
        assert opened.log_tail(spec.name) == "boom"
        opened.remove(spec.name)
        assert opened.inspect(spec.name) == MISSING

    def test_what_is_not_there_is_missing(self, opened: Engine, spec: Specification) -> None:
        assert opened.inspect(spec.name) == MISSING
        assert opened.log_tail(spec.name) == ""
        for call in (opened.start, opened.published, lambda name: opened.put_files(name, FILES)):
            with pytest.raises(ContainerMissing):
                call(spec.name)

    # ── helpers ──

    def test_an_engine_says_how_its_socket_is_known(self, opened: Engine) -> None:
        identity = opened.identity()
        assert identity.known
        assert identity.socket.startswith("/")
        assert opened.identity() == identity

    def test_everything_in_a_helpers_life_may_happen_twice(self, opened: Engine, helper: HelperSpecification) -> None:
        assert opened.helper(helper.name) == NO_HELPER
        assert opened.helper_log(helper.name, 10) == ""
        for _ in range(2):
            opened.start_helper(helper, PROGRAM_FILE)
        ended = self._ended(opened, helper.name)
        assert (ended.exit_code, ended.sid, ended.label) == (0, helper.labels[f"{LABEL}session"], LAUNCH)
        opened.start_helper(helper, PROGRAM_FILE)
        assert opened.helper(helper.name) == ended, "what has ended is not started again"
        assert report_of(opened.helper_log(helper.name, 10)).end is not None
        assert not opened.remove_helper(helper.name, "another's0")
        assert opened.helper(helper.name) == ended
        for was_there in (True, False):
            assert opened.remove_helper(helper.name, LAUNCH) is was_there
            assert opened.helper(helper.name) == NO_HELPER

    def test_helpers_are_told_beside_the_launches_of_their_owner(
        self, opened: Engine, helper: HelperSpecification
    ) -> None:
        opened.start_helper(helper, PROGRAM_FILE)
        (found,) = opened.launches(helper.labels[f"{LABEL}owner"])
        assert (found.helper, found.label, found.sid) == (helper.name, LAUNCH, helper.labels[f"{LABEL}session"])
        opened.remove_helper(helper.name, LAUNCH)
        assert opened.launches(helper.labels[f"{LABEL}owner"]) == []

    def test_what_has_a_helpers_name_and_is_not_this_hubs_is_never_touched(
        self, opened: Engine, helper: HelperSpecification
    ) -> None:
        theirs = replace(helper, labels={**helper.labels, f"{LABEL}hub": "another hub"})
        with suppress(ContainerConflict):
            opened.start_helper(theirs, PROGRAM_FILE)
        for touch in (
            lambda: opened.helper(helper.name),
            lambda: opened.start_helper(helper, PROGRAM_FILE),
            lambda: opened.remove_helper(helper.name, LAUNCH),
        ):
            with pytest.raises(ContainerConflict):
                touch()

    def test_only_an_image_with_our_labels_counts_as_built_here(self, opened: Engine, spec: Specification) -> None:
        assert opened.built_image(spec.image) is None
        assert opened.built_image(ABSENT) is None

    # ── images of repositories ──

    def test_images_that_this_hub_had_built_are_listed_and_removed_and_no_others(
        self, opened: Engine, spec: Specification, built_as: str
    ) -> None:
        hub = spec.labels[f"{LABEL}hub"]
        opened.create(spec)
        opened.put_files(spec.name, FILES)
        opened.start(spec.name)
        opened.put_files(spec.name, certificate_file(None, NOW))
        for labels in ({f"{LABEL}hub": "another"}, {f"{LABEL}hub": hub, BUILT: "another"}, {f"{LABEL}hub": hub}):
            saved = {SAVED_BY: "ab", SAVED_AT: "one"}
            for _ in opened.commit(spec.name, built_as, {BUILT: built_as} | saved | labels):
                pass
            is_ours = labels == {f"{LABEL}hub": hub}
            assert (opened.built_image(built_as) is not None) is is_ours
            assert (built_as in opened.built_images()) is is_ours
            assert opened.remove_built(built_as) is is_ours
            assert opened.image_present(built_as) is not is_ours
        assert not opened.remove_built(built_as)
        assert not opened.remove_built(spec.image)
        assert opened.image_present(spec.image)

    def test_an_image_that_a_container_uses_is_not_removed_whether_it_runs_or_not(
        self, opened: Engine, spec: Specification, built_as: str
    ) -> None:
        labels = {f"{LABEL}hub": spec.labels[f"{LABEL}hub"], BUILT: built_as, SAVED_BY: "ab", SAVED_AT: "one"}
        opened.create(spec)
        opened.put_files(spec.name, FILES)
        opened.start(spec.name)
        opened.put_files(spec.name, certificate_file(None, NOW))
        for _ in opened.commit(spec.name, built_as, labels):
            pass
        opened.remove(spec.name)
        opened.create(replace(spec, image=built_as))
        with pytest.raises(ImageInUse):
            opened.remove_built(built_as)
        opened.put_files(spec.name, FILES)
        opened.start(spec.name)
        with pytest.raises(ImageInUse):
            opened.remove_built(built_as)
        assert opened.built_images() == [built_as]
        opened.remove(spec.name)
        assert opened.remove_built(built_as)
        assert opened.built_images() == []

    def _ended(self, opened: Engine, name: str) -> HelperThere:
        for _ in range(600):
            there = opened.helper(name)
            if there.exit_code is not None:
                return there
            sleep(0.05)
        raise AssertionError(f"still {there.status}")
