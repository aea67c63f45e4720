"""The client for asyncio. Belongs to the event loop that it was opened in."""
from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING, Any, Optional, Union

import zmq
import zmq.asyncio

from . import link
from .client import Prompt, collect
from .session import Event, Session
from .types import Info, Lost, Parameters, Piece, Result, TroupeError, Unavailable

if TYPE_CHECKING:
    from typing_extensions import Unpack


class AsyncClient:
    """As Client; `async with AsyncClient() as client`, or connect() and aclose()."""

    info: Info

    def __init__(self, company: str = "default", *, name: str = "python", connect_seconds: float = 5.0,
                 lost_seconds: float = 30.0):
        self._company, self._name = company, name
        self._connect_seconds, self._lost_seconds = connect_seconds, lost_seconds
        self._inbox: dict[int, asyncio.Queue[Event]] = {}
        self._task: Optional[asyncio.Task[None]] = None

    async def connect(self) -> "AsyncClient":
        """Errors: Unavailable."""
        self._context = zmq.asyncio.Context()
        try:
            self._socket = link.open_socket(self._context, link.endpoint_of(self._company))
        except BaseException:
            self._context.term()
            raise
        self._welcome: asyncio.Future[Info] = asyncio.get_running_loop().create_future()
        self._session = Session(time.monotonic(), self._name, self._lost_seconds)
        self._work = asyncio.Event()
        self._task = asyncio.create_task(self._run())
        try:
            self.info = await asyncio.wait_for(asyncio.shield(self._welcome), self._connect_seconds)
        except asyncio.TimeoutError:
            await self.aclose()
            raise Unavailable("nobody answers at %s" % self._company) from None
        except TroupeError:
            await self.aclose()
            raise
        return self

    # ---- requests

    async def stream(self, prompt: Prompt, **parameters: Unpack[Parameters]) -> AsyncIterator[Piece]:
        """As Client.stream; a task that is cancelled in it aborts the request."""
        box = self._box(id := self._running().add(prompt, parameters))
        self._work.set()
        last = False
        try:
            while not last:
                event = await box.get()
                last = event.last
                if isinstance(event.what, TroupeError):
                    raise event.what
                yield event.what  # type: ignore[misc]
        finally:
            if not last and self._task:
                self._session.abort(id)
                self._inbox.pop(id, None)
                self._work.set()

    async def generate(self, prompt: Prompt, **parameters: Unpack[Parameters]) -> Result:
        """The whole text of one sample."""
        if (parameters.get("n") or 1) != 1:
            raise ValueError("generate gives one text: use samples() for n > 1")
        return (await self.samples(prompt, **parameters))[0]

    async def samples(self, prompt: Prompt, **parameters: Unpack[Parameters]) -> list[Result]:
        """The n texts of one prompt, in order of their samples."""
        return collect([p async for p in self.stream(prompt, **parameters)])

    # ---- the company

    async def status(self) -> dict[str, Any]:
        """What `troupe status --json` prints."""
        box = self._box(self._running().status())
        self._work.set()
        what = (await box.get()).what
        if isinstance(what, TroupeError):
            raise what
        return json.loads(what)  # type: ignore[arg-type]

    async def drain(self, stop: bool = False) -> None:
        """The company takes nothing new; stop: and ends when its last stream has ended."""
        self._running().drain(stop)
        self._work.set()

    async def aclose(self) -> None:
        """Idempotent."""
        task, self._task = self._task, None
        if task is None:
            return
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        for id in list(self._session.requests):
            self._session.abort(id)
        self._flush()
        self._deliver(self._session.fail_all(Lost("the client was closed")))
        self._socket.close()
        self._context.term()

    async def __aenter__(self) -> "AsyncClient":
        return await self.connect()

    async def __aexit__(self, *ignored: Any) -> None:
        await self.aclose()

    # ---- the task

    def _running(self) -> Session:
        if self._task is None:
            raise Unavailable("the client is not connected")
        return self._session

    def _box(self, id: int) -> asyncio.Queue[Event]:
        self._inbox[id] = asyncio.Queue()
        return self._inbox[id]

    def _flush(self) -> None:
        link.flush(zmq.Socket.shadow(self._socket.underlying), self._session.out)

    def _deliver(self, events: list[Event]) -> None:
        for e in events:
            if isinstance(e.what, Info) or (e.id == 0 and isinstance(e.what, TroupeError)):
                self._answer(e.what)
                continue
            box = self._inbox.pop(e.id, None) if e.last else self._inbox.get(e.id)
            if box:
                box.put_nowait(e)

    def _answer(self, what: Union[Info, TroupeError]) -> None:
        if self._welcome.done() or self._task is None:
            return
        if isinstance(what, Info):
            self._welcome.set_result(what)
        else:
            self._welcome.set_exception(what)

    async def _receive(self) -> list[bytes]:
        return await self._socket.recv_multipart()  # type: ignore[misc,no-any-return]

    async def _run(self) -> None:
        session, receiving = self._session, asyncio.ensure_future(self._receive())
        working = asyncio.ensure_future(self._work.wait())
        try:
            while True:
                self._flush()
                pause = 0.02 if session.out else max(0.0, session.next_tick() - time.monotonic())
                await asyncio.wait({receiving, working}, timeout=pause, return_when=asyncio.FIRST_COMPLETED)
                now = time.monotonic()
                if working.done():
                    self._work.clear()
                    working = asyncio.ensure_future(self._work.wait())
                if receiving.done():
                    self._deliver(session.receive(receiving.result(), now))
                    receiving = asyncio.ensure_future(self._receive())
                self._deliver(session.tick(now))
        finally:
            receiving.cancel()
            working.cancel()
