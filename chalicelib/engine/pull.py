"""One pull, on a connection of its own: asked for, listened to, and cut when its caller lets go.

An engine keeps a pull's finished layers only as long as somebody is connected who asked for the image. So it matters
when a pull has *joined*: from the first layer that got beyond "Pulling fs layer" on, another pull of the same image
may be cut without loss (launcher/tick.py hands pulls over that way), and before that nothing is said here.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator
from typing import Final

import requests
from urllib3.response import HTTPResponse

from chalicelib.engine import errors
from chalicelib.engine.client import Client
from chalicelib.engine.messages import message_of, pull_error_for
from chalicelib.engine.pull_progress import PullProgress, PullStatus
from chalicelib.engine.transport import Channel

ANSWER_SECONDS: Final = 60.0  # for a pull's first layer: the engine asks the registry first, which may be slow
SILENCE_SECONDS: Final = 600.0  # of a pull without progress; a large layer on a slow disk says nothing for minutes
TICK_SECONDS: Final = 1.0  # between two statuses of a pull that changes
HEARTBEAT_SECONDS: Final = 2.0  # between two statuses of one that does not
TICK_BYTES: Final = 512 * 1024  # of progress lines read per tick; a hundred layers make 200 kB
LINE_BYTES: Final = 64 * 1024
CHUNK_BYTES: Final = 32 * 1024
QUEUE_CHUNKS: Final = 8


class Pull:
    """One pull; a thread reads it, so that the caller hears something while it is silent.

    At most QUEUE_CHUNKS chunks are in memory and TICK_BYTES read per tick: a flood only fills the network's buffers.
    """

    def __init__(self, channel: Channel, version: str, clock: Callable[[], float], answer_within: float) -> None:
        self._channel = channel
        self._docker = Client(channel)
        self._docker.use_version(version)
        self._clock = clock
        self._joins_by = clock() + answer_within
        self._chunks: queue.Queue[bytes | errors.EndpointError] = queue.Queue(QUEUE_CHUNKS)
        self._closed = threading.Event()
        self._response: requests.Response | None = None
        self._reader = threading.Thread(target=self._read, name="homeport-pull", daemon=True)
        self._progress = PullProgress()
        self._rest = b""

    def begin(self, repository: str, tag: str) -> None:
        """Ask for the pull and wait for the answer's head; raises an EndpointError."""
        self._response = self._docker.post(
            self._docker.url("/images/create"),
            params={"fromImage": repository, "tag": tag},
            stream=True,
        )
        if self._response.status_code >= 400:
            raise pull_error_for(self._response.status_code, message_of(self._response.content))
        self._channel.budget.stream(SILENCE_SECONDS)
        self._reader.start()

    def statuses(self) -> Iterator[PullStatus]:
        """Yield statuses until the pull ends; raises an EndpointError.

        Three clocks run here. Silence: a pull whose layers do not change at all is given up after ten minutes.
        Joining: it must have joined in time, or its caller would wait for a handover that never comes. Telling: what
        changed is said once a second, what did not every other second, so that the caller can save, renew its lease
        and let go.
        """
        said: PullStatus | None = None
        said_at = changed_at = self._clock()
        changes, begun, joined = -1, False, False
        while not self._listen(self._clock() + TICK_SECONDS):
            now = self._clock()
            status = self._progress.status(now)
            if self._progress.changes != changes:
                changes, changed_at = self._progress.changes, now
            if now - changed_at > SILENCE_SECONDS:
                raise errors.EndpointTimeout("The pull made no progress for ten minutes. The hub will start it again")
            if not joined:
                # The engine names a layer just before it joins that layer's download. So a layer that got further has
                # been joined for sure, and one that was named a whole tick ago has been in all likelihood.
                joined = self._progress.joined or begun
                begun = self._progress.begun
                if not joined and now > self._joins_by:
                    raise errors.EndpointTimeout("The endpoint did not begin the pull in time. The hub will try again")
            if joined and (status != said or now - said_at >= HEARTBEAT_SECONDS - TICK_SECONDS / 2):
                yield status
                said, said_at = status, self._clock()

    def close(self) -> None:
        """Cut the pull if it goes on, and end the thread."""
        self._closed.set()
        self._channel.hang_up()
        if self._reader.ident is not None:
            self._reader.join()
        self._docker.close()

    def _listen(self, until: float) -> bool:
        """Take in what comes until then; True when the pull has ended."""
        allowance = TICK_BYTES
        while (left := until - self._clock()) > 0:
            if allowance <= 0:  # a flood: leave it in the network's buffers for the rest of this tick
                self._closed.wait(left)
                continue
            try:
                chunk = self._chunks.get(timeout=left)
            except queue.Empty:
                return False
            if isinstance(chunk, errors.EndpointError):
                raise chunk
            allowance -= len(chunk)
            if not self._feed(chunk):
                return True
        return False

    def _feed(self, chunk: bytes) -> bool:
        *lines, self._rest = (self._rest + chunk).split(b"\n")
        for line in lines if chunk else (self._rest,):  # an empty chunk is the stream's end: the rest is a line, too
            self._progress.feed(line)
        if len(self._rest) > LINE_BYTES:
            raise errors.NotADockerEngine("The endpoint's report of the pull is not a Docker Engine's. Launch again")
        return bool(chunk)

    def _read(self) -> None:
        assert self._response is not None
        raw = self._response.raw
        assert isinstance(raw, HTTPResponse)
        try:
            with self._channel.failures():
                while chunk := raw.read1(CHUNK_BYTES):
                    self._put(chunk)
            self._put(b"")
        except errors.EndpointError as error:
            self._put(error)

    def _put(self, item: bytes | errors.EndpointError) -> None:
        while not self._closed.is_set():
            try:
                self._chunks.put(item, timeout=HEARTBEAT_SECONDS)
            except queue.Full:
                continue
            return
