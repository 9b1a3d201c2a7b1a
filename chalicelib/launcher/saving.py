"""Saving a notebook as an image (docs/adr/0018)."""

from __future__ import annotations

from collections.abc import Callable, Generator
from contextlib import closing, suppress
from typing import Final

from chalicelib.aws.errors import StoreUnavailable
from chalicelib.engine.errors import (
    ContainerMissing,
    EndpointError,
    EndpointForbidden,
    EndpointTimeout,
    ImageNameTaken,
    ImageNotWritten,
    NoSpace,
    RequestRejected,
    SaveUnderWay,
)
from chalicelib.engine.saving import SAVED, SAVED_AT, SAVED_BY, ImageThere
from chalicelib.launcher.ended import not_running
from chalicelib.launcher.outside import Engine, Images
from chalicelib.launcher.visit import Visit, own_container
from chalicelib.notebook.certificates import Leaf
from chalicelib.notebook.container import certificate_file
from chalicelib.session import events as e
from chalicelib.session.events import Event
from chalicelib.session.values import SavedImage, Session

COMMITS: Final = 2  # that are sent for one image: an answer that is missing may have been the only thing that was
_FINAL_ANSWERS: Final = (ContainerMissing, EndpointForbidden, NoSpace, RequestRejected)  # an engine's own


class Saving:
    """The effect of SAVING, in one tick."""

    def __init__(
        self, visit: Visit, *, images: Images, clock: Callable[[], float], leaf: Callable[[Session], Leaf]
    ) -> None:
        self._visit = visit
        self._images = images
        self._clock = clock
        self._leaf = leaf

    def save(self, session: Session) -> Generator[Event, None, None]:
        """Have the image written, unless it is there already: the answer to an earlier attempt may have been lost."""
        with self._visit.endpoint(session) as endpoint:
            sent = session.commits
            if (there := self._written(endpoint, session)) is None:
                self._raise_unless_savable(endpoint, session)
                endpoint.put_files(own_container(session), certificate_file(None, self._clock()))
                yield e.CommitSent()
                sent += 1
                yield from self._commit(endpoint, session, sent)
                there = self._written(endpoint, session)
            if there is None:
                raise ImageNotWritten("The endpoint said that it had written the image, and it is not there")
            yield e.SaveProgressed()  # if another tick holds the session by now, this one must not bring the key back
            self._put_certificate_back(endpoint, session, sent)
            with self._visit.asking(False):
                self._images.put(
                    SavedImage(
                        owner=session.owner,
                        name=session.saving,
                        endpoint=session.endpoint,
                        notebook=session.name,
                        saved_at=self._clock(),
                        size=there.size,
                    )
                )
            yield e.ImageSaved(there.size)

    def _written(self, endpoint: Engine, session: Session) -> ImageThere | None:
        """The image, if this save has written it; raises ImageNameTaken when its name is somebody else's."""
        there = endpoint.saved_image(session.saving)
        if there is None or (there.owner, there.save) == (session.owner, _save_of(session)):
            return there
        if there.owner != session.owner:
            raise ImageNameTaken(
                f"The endpoint has an image called {session.saving} that was not saved with your key, and it is not "
                "replaced. Choose another name"
            )
        return None

    def _raise_unless_savable(self, endpoint: Engine, session: Session) -> None:
        """See that the container runs, is not being written at the moment, and that it was not tried in vain."""
        name = own_container(session)
        status = endpoint.inspect(name)
        if status.status == "paused":  # as an engine has it while it writes
            raise SaveUnderWay(
                "The endpoint is still writing the image, or the container was paused there. If it stays so, resume "
                f"it with: docker unpause {name}"
            )
        if not status.running:
            raise not_running(endpoint, name, status, self._visit.masked)
        endpoint.check_savable(name)
        if session.commits >= COMMITS:
            why = f" {session.last_problem.message}" if session.last_problem else ""
            raise ImageNotWritten(
                f"The endpoint did not write the image in {COMMITS} attempts. Write it there yourself, with docker "
                f"commit, or save less.{why}"
            )

    def _commit(self, endpoint: Engine, session: Session, sent: int) -> Generator[Event, None, None]:
        """Send it, and wait for the answer as long as there is time."""
        labels = {SAVED: session.sid, SAVED_BY: session.owner, SAVED_AT: _save_of(session)}
        try:
            with closing(endpoint.commit(own_container(session), session.saving, labels)) as waiting:
                for _ in waiting:
                    yield e.SaveProgressed()
        except _FINAL_ANSWERS:
            self._put_certificate_back(endpoint, session, sent)
            raise
        except EndpointTimeout as error:
            raise SaveUnderWay("The endpoint has not written the image yet. The hub goes on looking for it") from error

    def _put_certificate_back(self, endpoint: Engine, session: Session, sent: int) -> None:
        """Give the container a certificate again, for a start by hand; the server that runs does without.

        Not if one of several commits may still be going on: its image would hold the key.
        """
        if sent == 1:
            with suppress(EndpointError, StoreUnavailable):
                endpoint.put_files(own_container(session), certificate_file(self._leaf(session), self._clock()))


def _save_of(session: Session) -> str:
    """What tells this save from all others of its owner: when it began."""
    return f"{session.sid}-{session.entered_at:.3f}"
