"""The blocking client. A thread of its own holds the socket, so pings go out whatever the program does, and any number of
threads may use one client."""
from __future__ import annotations

import json
import queue
import threading
import time
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Callable, Optional, Union

import zmq

from . import link
from .session import Event, Session
from .types import Info, Lost, Parameters, Piece, Result, TroupeError, Unavailable

if TYPE_CHECKING:
    from typing_extensions import Unpack

Prompt = Union[str, list[int]]


class Client:
    """company: a name (`troupe serve --name`) or an endpoint. Waits up to connect_seconds for it to answer; silence of
    lost_seconds ends what is open with Lost. Use it in a with statement, or close() it: open requests are aborted."""

    def __init__(self, company: str = "default", *, name: str = "python", connect_seconds: float = 5.0,
                 lost_seconds: float = 30.0):
        self._calls: queue.SimpleQueue[Callable[[], None]] = queue.SimpleQueue()
        self._inbox: dict[int, queue.SimpleQueue[Event]] = {}
        self._welcome: queue.SimpleQueue[Union[Info, TroupeError]] = queue.SimpleQueue()
        self._context, self._closing = zmq.Context(), False
        try:
            self._socket = link.open_socket(self._context, link.endpoint_of(company))
        except BaseException:
            self._context.term()
            raise
        self._wake_in, self._wake_out = self._pair()
        self._wake_lock = threading.Lock()  # a socket belongs to one thread at a time
        self._session = Session(time.monotonic(), name, lost_seconds)
        self._thread = threading.Thread(target=self._run, name="troupe-client", daemon=True)
        self._thread.start()
        try:
            welcome = self._welcome.get(timeout=connect_seconds)
        except queue.Empty:
            welcome = Unavailable("nobody answers at %s" % company)
        if isinstance(welcome, TroupeError):
            self.close()
            raise welcome
        self.info: Info = welcome

    # ---- requests

    def stream(self, prompt: Prompt, **parameters: Unpack[Parameters]) -> Iterator[Piece]:
        """Pieces of the output as they come, of all samples; each sample's last one has finish and figures. Raises Failed
        or Lost. An iterator that is closed or dropped before its end aborts the request. Parameters: session.PARAMETERS."""
        box: queue.SimpleQueue[Event] = queue.SimpleQueue()
        id = self._call(lambda: self._open(box, self._session.add(prompt, parameters)))
        return self._pieces(id, box)

    def _pieces(self, id: int, box: queue.SimpleQueue[Event]) -> Iterator[Piece]:
        last = False
        try:
            while not last:
                event = box.get()
                last = event.last
                if isinstance(event.what, TroupeError):
                    raise event.what
                yield event.what  # type: ignore[misc]
        finally:
            if not last and not self._closing:
                self._inbox.pop(id, None)
                self._post(lambda: self._session.abort(id))  # this may run in any thread, also in ours: never wait

    def generate(self, prompt: Prompt, **parameters: Unpack[Parameters]) -> Result:
        """The whole text of one sample."""
        if (parameters.get("n") or 1) != 1:
            raise ValueError("generate gives one text: use samples() for n > 1")
        return self.samples(prompt, **parameters)[0]

    def samples(self, prompt: Prompt, **parameters: Unpack[Parameters]) -> list[Result]:
        """The n texts of one prompt, in order of their samples."""
        return collect(list(self.stream(prompt, **parameters)))

    # ---- the company

    def status(self) -> dict[str, Any]:
        """What `troupe status --json` prints."""
        box: queue.SimpleQueue[Event] = queue.SimpleQueue()
        self._call(lambda: self._open(box, self._session.status()))
        what = box.get().what
        if isinstance(what, TroupeError):
            raise what
        return json.loads(what)  # type: ignore[arg-type]

    def drain(self, stop: bool = False) -> None:
        """The company takes nothing new; stop: and ends when its last stream has ended."""
        self._call(lambda: self._session.drain(stop))

    def close(self) -> None:
        """Idempotent."""
        if self._closing:
            return
        self._closing = True
        self._wake()
        self._thread.join()
        for s in (self._wake_in, self._wake_out):
            s.close(0)
        self._context.term()

    def __enter__(self) -> "Client":
        return self

    def __exit__(self, *ignored: Any) -> None:
        self.close()

    # ---- the thread

    def _pair(self) -> tuple[zmq.Socket, zmq.Socket]:
        a, b = self._context.socket(zmq.PAIR), self._context.socket(zmq.PAIR)
        a.bind("inproc://wake")
        b.connect("inproc://wake")
        return a, b

    def _wake(self) -> None:
        with self._wake_lock:
            try:
                self._wake_out.send(b"", zmq.DONTWAIT)
            except zmq.Again:
                pass  # enough wake-ups are on their way

    def _post(self, what: Callable[[], Any]) -> None:
        self._calls.put(what)
        self._wake()

    def _call(self, what: Callable[[], Any]) -> Any:
        """Run it in the thread; its result or exception."""
        if self._closing:
            raise Unavailable("the client is closed")
        answer: queue.SimpleQueue[tuple[Any, Optional[BaseException]]] = queue.SimpleQueue()

        def call() -> None:
            try:
                answer.put((what(), None))
            except Exception as e:
                answer.put((None, e))

        self._post(call)
        value, error = answer.get()
        if error:
            raise error
        return value

    def _open(self, box: queue.SimpleQueue[Event], id: int) -> int:
        self._inbox[id] = box
        return id

    def _deliver(self, events: list[Event]) -> None:
        for e in events:
            if isinstance(e.what, Info) or (e.id == 0 and isinstance(e.what, TroupeError)):
                self._welcome.put(e.what)
                continue
            box = self._inbox.pop(e.id, None) if e.last else self._inbox.get(e.id)
            if box:
                box.put(e)

    def _turn(self, poller: zmq.Poller) -> None:
        link.flush(self._socket, self._session.out)
        pause = 0.02 if self._session.out else max(0.0, self._session.next_tick() - time.monotonic())
        ready = dict(poller.poll(int(pause * 1000) + 1))
        if self._wake_in in ready:
            for _ in link.receive_all(self._wake_in):
                pass
        while not self._calls.empty():
            self._calls.get()()
        now = time.monotonic()
        for frames in link.receive_all(self._socket):
            self._deliver(self._session.receive(frames, now))
        self._deliver(self._session.tick(now))

    def _run(self) -> None:
        poller = zmq.Poller()
        poller.register(self._socket, zmq.POLLIN)
        poller.register(self._wake_in, zmq.POLLIN)
        while not self._closing:
            self._turn(poller)
        for id in list(self._session.requests):
            self._session.abort(id)
        link.flush(self._socket, self._session.out)
        self._deliver(self._session.fail_all(Lost("the client was closed")))
        while not self._calls.empty():
            self._calls.get()()
        self._deliver(self._session.fail_all(Lost("the client was closed")))
        self._socket.close()


def collect(pieces: list[Piece]) -> list[Result]:
    """Samples from their pieces, which lie in order."""
    results = []
    for sample in sorted({p.sample for p in pieces}):
        own = [p for p in pieces if p.sample == sample]
        end = own[-1]
        assert end.finish is not None and end.figures is not None
        told = [lp for p in own for lp in p.logprobs or []] if end.logprobs is not None else None
        results.append(Result("".join(p.text for p in own), [t for p in own for t in p.tokens], end.finish, end.figures, sample,
                              told))
    return results
