"""Launching repositories: finding out their version, building them, cloning them (docs/adr/0020).

A helper, which is a container on the endpoint, does the work, and outlives the function that started it. An effect here
has it at work, looks how far it is, and reads in its log how it ended.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from contextlib import suppress
from typing import Final

from chalicelib.aws.slots import repository_pool
from chalicelib.config import Config
from chalicelib.engine.endpoint import IMAGES_LENGTH, EngineIdentity, HelperThere
from chalicelib.engine.errors import ContainerConflict, ImageInUse
from chalicelib.engine.messages import quoted
from chalicelib.launcher.helped import (
    BROKEN,
    HelperFailed,
    NoRoomToBuild,
    RepositoryBusy,
    RepositoryMoved,
    SocketUnreachable,
    helper_error,
)
from chalicelib.launcher.outside import BuildLogs, Engine, Images, Slots
from chalicelib.launcher.visit import Visit, own_container
from chalicelib.notebook.helpers import (
    HelperSpecification,
    build_helper,
    clone_helper,
    program_file,
    resolve_helper,
)
from chalicelib.repository.address import content_folder, moved, shown
from chalicelib.repository.allowed import is_allowed
from chalicelib.repository.answers import CLONED, Report, report_of
from chalicelib.repository.source import Source
from chalicelib.repository.tag import image_name
from chalicelib.session import events as e
from chalicelib.session.admission import Slot
from chalicelib.session.errors import IllegalTransition
from chalicelib.session.events import Event
from chalicelib.session.options import shown_size
from chalicelib.session.values import ALL_IMAGES, BuiltImage, Phase, Session, State

ADDRESS_LENGTH: Final = 160  # characters of an address that is quoted
HELPED_SECONDS: Final = 6.0  # the first waiting for a helper that needs little time
LOOK_LINES: Final = 100  # of a helper's log, to see how far it is, or how it ended
HELPER_LOOK: Final = 0.2  # seconds between two looks at it then


class Repositories:
    """The effects of RESOLVING, BUILDING, CLONING and TIDYING, in one tick."""

    def __init__(
        self,
        visit: Visit,
        *,
        config: Config,
        slots: Slots,
        images: Images,
        build_logs: BuildLogs,
        find_session: Callable[[str], Session | None],
        clock: Callable[[], float],
        sleep: Callable[[float], None],
        program: bytes,
    ) -> None:
        self._visit = visit
        self._config = config
        self._slots = slots
        self._images = images
        self._build_logs = build_logs
        self._find_session = find_session
        self._clock = clock
        self._sleep = sleep
        self._program = program_file(program, 0.0)

    def take_places(self, session: Session) -> Source | None:
        """Count the launch among those of its repositories until it ends; gives one that has as many as are allowed."""
        quota = self._config.repository_quota
        if quota is None:
            return None
        slot = Slot(owner="", endpoint="", source="", until=session.expires_at)
        for source in session.sources:
            if self._slots.take(repository_pool(source), session.sid, slot, quota):
                return source
        return None

    def give_places_back(self, session: Session) -> None:
        if self._config.repository_quota:
            for source in session.sources:
                self._slots.give_back(repository_pool(source), session.sid)

    def resolve_versions(self, session: Session) -> Generator[Event, None, None]:
        if (busy := self.take_places(session)) is not None:
            raise RepositoryBusy(
                f"{shown(busy)} has {self._config.repository_limit} notebooks on this hub, the most that it allows at "
                "once. Launch it again when others have stopped"
            )
        hub, where = self._visit.hub_of(session), bool(self._config.repositories or self._config.banned_repositories)
        with self._visit.endpoint(session) as endpoint:
            if session.repository is None:
                helper = resolve_helper(session, hub_name=hub, engine={}, socket="", where=where)
            else:
                engine = endpoint.identity()
                socket = self._socket(engine)
                helper = resolve_helper(session, hub_name=hub, engine=engine.known, socket=socket, where=where)
            report = yield from self._helped(endpoint, session, helper)
            if report is None:
                return
            versions = report.versions(len(session.sources))
            if versions is None:
                raise HelperFailed(f"The repository's version is not known. {BROKEN}")
            self._check_addresses(session, report)
            if session.repository is None:
                yield e.ContentResolved(versions)
                return
            image = image_name(session.repository, versions[0], session.builder)
            free, least = report.free_disk, self._config.build_disk
            if free is not None and free < least and endpoint.built_image(image) is None:
                raise NoRoomToBuild(
                    f"The endpoint has {shown_size(free)} of disk left, and this hub builds with {shown_size(least)} "
                    "at least. Remove what is not needed there, for instance with docker system prune"
                )
            yield e.VersionsResolved(versions, image)

    def _check_addresses(self, session: Session, report: Report) -> None:
        """Refuse what the operator does not allow at the address where it is by now; raises RepositoryMoved."""
        for source, address in zip(session.sources, report.addresses(len(session.sources)), strict=False):
            if address != source.address and not self._is_allowed(moved(source, address)):
                raise RepositoryMoved(
                    f"{shown(source)} has moved to {quoted(address, ADDRESS_LENGTH)}, which this hub does not allow"
                )

    def _is_allowed(self, source: Source) -> bool:
        return is_allowed(source, self._config.repositories, self._config.banned_repositories)

    def _socket(self, engine: EngineIdentity) -> str:
        """Where the engine's socket is on its host; raises SocketUnreachable for an engine that has none there."""
        if self._config.engine_socket:
            return self._config.engine_socket
        if engine.rootless:
            raise SocketUnreachable(
                "The endpoint's engine is rootless and keeps its socket in a folder of its user's, which the hub does "
                "not know. Launch an image, with the repository as the files for its work folder, which needs no socket"
            )
        return engine.socket

    def build_image(self, session: Session) -> Generator[Event, None, None]:
        with self._visit.endpoint(session) as endpoint:
            at_work = session.helps and endpoint.helper(session.helper).status != "missing"
            if not at_work and (size := endpoint.built_image(session.image)) is not None:
                endpoint.remove_helper(session.helper, session.label)
                self._note_built(session, size, is_new=False)
                yield e.ImageBuilt(built=False)
                return
            helper = build_helper(
                session,
                hub_name=self._visit.hub_of(session),
                socket=self._socket(endpoint.identity()),
                seconds=self._config.build_longest,
                most=self._config.most_image,
            )
            if (yield from self._helped(endpoint, session, helper)) is None:
                return
            if (size := endpoint.built_image(session.image)) is None:
                raise HelperFailed(f"The build ended well, and its image is not there. {BROKEN}")
            self._note_built(session, size, is_new=True)
            yield e.ImageBuilt(built=True)

    def _note_built(self, session: Session, size: int, *, is_new: bool) -> None:
        """Write down for the owner that the image of the launch's repository is on its endpoint."""
        if session.repository is None:
            raise IllegalTransition("a session without a repository cannot be in this state")
        now = self._clock()
        image = BuiltImage(
            owner=session.owner,
            name=session.image,
            endpoint=session.endpoint,
            repository=session.repository,
            version=session.versions[0],
            size=size,
            built_at=now,
            used_at=now,
        )
        with self._visit.asking(False):
            self._images.put_built(image, is_new=is_new)

    def clone_files(self, session: Session) -> Generator[Event, None, None]:
        if session.content is None:
            raise IllegalTransition("a session without content cannot be in this state")
        with self._visit.endpoint(session) as endpoint:
            user = endpoint.user_number(own_container(session), endpoint.image_config(session.image).user)
            number = user.partition(":")[0]
            helper = clone_helper(
                session,
                hub_name=self._visit.hub_of(session),
                name=content_folder(session.content),
                user=number if number.isdigit() else "",
            )
            report = yield from self._helped(endpoint, session, helper)
            if report is not None:
                yield e.FilesCloned(report.cloned or CLONED["new"])

    def _helped(
        self, endpoint: Engine, session: Session, helper: HelperSpecification
    ) -> Generator[Event, None, Report | None]:
        """Have the helper at work, and look how far it is; its report once it has ended well, and is removed.

        None while it is at work: it will be looked at again. One that another launch made is waited for. Raises
        HelperFailed and the like, and leaves the helper until the launch has ended: its log can be read until then.
        """
        there = endpoint.helper(helper.name)
        if there.exit_code is not None and self._is_stale(session, there):
            endpoint.remove_helper(helper.name, there.label)
            there = endpoint.helper(helper.name)
        if there.status in ("missing", "created"):
            endpoint.start_helper(helper, self._program)
            there = endpoint.helper(helper.name)
        if not session.helps:
            yield e.HelperStarted()
        ends_at = self._clock() + (0.0 if session.helps or session.state is State.BUILDING else HELPED_SECONDS)
        while there.exit_code is None and there.status != "missing" and self._clock() < ends_at:
            with self._visit.asking(False):
                self._sleep(HELPER_LOOK)
            there = endpoint.helper(helper.name)
        is_built = there.exit_code is not None and session.state is State.BUILDING
        log = endpoint.helper_log(helper.name, None if is_built else LOOK_LINES) if there.status != "missing" else ""
        if there.exit_code is not None and not log:  # another launch may have removed what they share a moment ago
            there = endpoint.helper(helper.name)
        if there.status == "missing":  # the next look finds what was built, or makes it anew
            yield e.HelperProgressed(None, "")
            return None
        report = report_of(log)
        if there.exit_code is None:
            yield e.HelperProgressed(report.fraction, self._visit.masked(report.line))
            return None
        if is_built:
            with self._visit.asking(False):
                self._build_logs.put(session.sid, session.generation, log)
        if there.exit_code != 0 or report.end is None or any(report.failure):
            raise helper_error(session.state, there.exit_code, report, log)
        endpoint.remove_helper(helper.name, session.label)
        return report

    def _is_stale(self, session: Session, there: HelperThere) -> bool:
        """Say whether a helper that has ended was of a launch that is over: its end says nothing of this one."""
        if there.label == session.label:
            return False
        with self._visit.asking(False):
            found = self._find_session(there.sid)
        return found is None or found.label != there.label or found.phase in (Phase.LEAVING, Phase.STOPPED)

    def remove_helpers(self, endpoint: Engine, session: Session) -> bool:
        """Remove the helpers of the launch, and say whether there were any; another launch's stay.

        Two ticks may have been at work at once, by clocks that differ: then one's helper may be made when the other's
        has done its work and is gone.
        """
        names = {launch.helper for launch in endpoint.launches(session.owner) if launch.label == session.label}
        removed = False
        for name in sorted((names | {session.helper}) - {""}):
            with suppress(ContainerConflict):  # somebody else's
                removed |= endpoint.remove_helper(name, session.label)
        return removed

    # ── the images that were built there ──

    def remove_images(self, session: Session) -> Generator[Event, None, None]:
        """Remove the image that is named, or all that the endpoint has; what is gone is listed no longer."""
        with self._visit.asking(False):
            known = {image.name: image for image in self._images.built_of(session.owner)}
        listed = [name for name, image in known.items() if image.endpoint == session.endpoint]
        with self._visit.endpoint(session) as endpoint:
            wanted = endpoint.built_images() if session.tidying == ALL_IMAGES else [session.tidying]
            if session.tidying == ALL_IMAGES and len(wanted) < IMAGES_LENGTH:
                self._unlist(session, [name for name in listed if name not in wanted])
            in_use = []
            for name in wanted:
                try:
                    was_there = endpoint.remove_built(name)
                except ImageInUse:
                    in_use.append(name)
                    continue
                self._unlist(session, [name])
                if was_there:
                    yield e.ImageRemoved(f"{_called(name, known)} is removed")
            yield e.ImagesRemoved(_how_removed(session, wanted, in_use, known))

    def _unlist(self, session: Session, names: Sequence[str]) -> None:
        with self._visit.asking(False):
            self._images.remove_built(session.owner, session.endpoint, names)


def _called(name: str, known: Mapping[str, BuiltImage]) -> str:
    """The image of a repository as its owner knows it."""
    image = known.get(name)
    return f"The image of {shown(image.repository)} at {image.version}" if image else f"The image {name}"


def _how_removed(
    session: Session, wanted: Sequence[str], in_use: Sequence[str], known: Mapping[str, BuiltImage]
) -> str:
    """What is told when all has been removed that can be."""
    if session.tidying != ALL_IMAGES:
        how = "is in use by a container, so it stays. Stop that one first" if in_use else "is on the endpoint no longer"
        return f"{_called(session.tidying, known)} {how}"
    more = ". There may be more: remove all once more" if len(wanted) >= IMAGES_LENGTH else ""
    if in_use:
        one = len(in_use) == 1
        stays = "is in use by a container, so it stays" if one else "are in use by containers, so they stay"
        return f"{len(in_use)} of {len(wanted)} image{'s' if len(wanted) > 1 else ''} {stays}{more}"
    if more:
        return f"{len(wanted)} images are removed{more}"
    return "No image that was built here is left on the endpoint"
