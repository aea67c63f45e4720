"""The conversation with a company, without sockets, clocks and threads: frames in, frames out, events. Both clients drive
one of these. The rules are those of docs/protocol.md: hello, pings, a second welcome after a restart, repeats cut off.

States of the connection: silent until the first welcome; then open. A welcome that answers no hello of ours comes from a
frontend that does not know us any more (restarted): hello goes out, and after its welcome every open request again."""
from __future__ import annotations

import collections
import dataclasses
from typing import Any, Optional, Union

import msgpack  # type: ignore[import-untyped]

from .types import FINISH, Failed, Figures, Info, Logprobs, Lost, Parameters, Piece, TroupeError, Unavailable

MAJOR, MINOR = 1, 0
ALL_SAMPLES = 16  # an error with this sample ends all that are open
MAX_MESSAGE = 256 << 20  # of the company; with logits that is a lot
PING_SECONDS = HELLO_SECONDS = 1.0

# Of add, as types.Parameters has them; the company checks the values. The fields that are ours (id, prompt, tokens) are
# arguments of their own; frames of logits are for tools in C.
PARAMETERS = frozenset(Parameters.__annotations__)


@dataclasses.dataclass
class Sample:
    tokens: int = 0  # delivered
    bytes: int = 0
    open: bool = True


@dataclasses.dataclass
class Request:
    id: int
    frame: bytes
    samples: list[Sample]
    logprobs: int  # entries of each token
    sent: bool = False
    aborted: bool = False

    def open_samples(self) -> bool:
        return any(s.open for s in self.samples)


@dataclasses.dataclass(frozen=True)
class Event:
    """Of request id, or (id 0) of the connection. last: the request has ended. what: a piece of output, an error, the JSON
    text of a status, or the first welcome."""
    id: int
    what: Union[Piece, TroupeError, str, Info]
    last: bool = False


def figures(m: dict[str, Any], generated: int) -> Figures:
    def seconds(name: str) -> float:
        return m.get(name, 0) / 1e9

    return Figures(prompt_tokens=m.get("prompt_tokens", 0), cached_tokens=m.get("cached_tokens", 0), generated_tokens=generated,
                   queue=seconds("queue_ns"), first_token=seconds("ttft_ns"), total=seconds("total_ns"),
                   handoff=seconds("handoff_ns"), handoff_visible=seconds("visible_ns"),
                   handoff_bytes=m.get("handoff_bytes", 0), saved_bytes=m.get("saved_bytes", 0), note=m.get("note", ""))


def logprobs(m: dict[str, Any], per: int, tokens: int) -> list[Optional[Logprobs]]:
    """Of the last tokens of a message; those of the first ones may be lost with a restart."""
    pairs = list(zip(m.get("logprob_ids", []), m.get("logprobs", [])))
    known = [pairs[i:i + per] for i in range(0, len(pairs), per)][-tokens:] if tokens else []
    return [None] * (tokens - len(known)) + known  # type: ignore[operator]


class Session:
    """out holds frames to be sent, in order; a frame that could not go out stays there."""

    def __init__(self, now: float, name: str = "python", lost_seconds: float = 30.0):
        self.name, self.lost_seconds = name, lost_seconds
        self.out: collections.deque[bytes] = collections.deque()
        self.info: Union[Info, None] = None
        self.requests: dict[int, Request] = {}
        self.waiting_status: set[int] = set()
        self.next_id = 1
        self.heard, self.ping_at, self.silence_told = now, now + PING_SECONDS, False
        self.hello(now)

    def send(self, **message: Any) -> None:
        self.out.append(msgpack.packb(message))

    def hello(self, now: float) -> None:
        self.hello_waits, self.hello_at = True, now + HELLO_SECONDS
        self.send(type="hello", major=MAJOR, minor=MINOR, name=self.name)

    # ---- what the program asks for

    def add(self, prompt: Union[str, list[int]], parameters: Parameters) -> int:
        """id of the request. ValueError, TypeError: parameters that are none."""
        unknown = sorted(set(parameters) - PARAMETERS)
        if unknown:
            raise TypeError("no such parameter: %s; there are %s" % (", ".join(unknown), ", ".join(sorted(PARAMETERS))))
        n = parameters.get("n") or 1
        if not isinstance(n, int) or not 1 <= n <= ALL_SAMPLES:
            raise ValueError("n is %r, not 1 to %d" % (n, ALL_SAMPLES))
        what = {"prompt": prompt} if isinstance(prompt, str) else {"tokens": list(prompt)}
        given = {k: v for k, v in parameters.items() if v is not None}
        if isinstance(given.get("priority"), int):
            given["priority"] &= 0xffffffff  # signed, in an unsigned field
        r = Request(self.next_id, msgpack.packb({"type": "add", "id": self.next_id, "max_tokens": 64, **what, **given}),
                    [Sample() for _ in range(n)], parameters.get("logprobs") or 0)
        self.next_id += 1
        self.requests[r.id] = r
        self.send_request(r)
        return r.id

    def abort(self, id: int) -> None:
        """It goes on to its end, which comes soon; one that has ended is left alone."""
        r = self.requests.get(id)
        if r and not r.aborted:
            r.aborted = True
            if r.sent:
                self.send(type="abort", id=id)

    def status(self) -> int:
        self.waiting_status.add(self.next_id)
        self.send(type="status", id=self.next_id)
        self.next_id += 1
        return self.next_id - 1

    def drain(self, stop: bool) -> None:
        self.send(type="drain", stop=int(stop))

    # ---- time

    def next_tick(self) -> float:
        return min(self.ping_at, self.hello_at if self.hello_waits else self.ping_at)

    def tick(self, now: float) -> list[Event]:
        if self.hello_waits and now >= self.hello_at and not self.out:
            self.hello(now)
        if now >= self.ping_at:
            self.ping_at = now + PING_SECONDS
            if self.info and len(self.out) < 2:  # a connection that is down needs no pile of them
                self.send(type="ping", nonce=1)
        if self.silence_told or now - self.heard < self.lost_seconds:
            return []
        self.silence_told = True
        return self.fail_all(Lost("the company has not answered for %d s" % (now - self.heard)))

    # ---- what the company says

    def receive(self, frames: list[bytes], now: float) -> list[Event]:
        self.heard, self.silence_told = now, False
        try:
            m = msgpack.unpackb(frames[0])
        except (msgpack.UnpackException, ValueError):
            return []  # no message: says nothing
        handler = {"welcome": self.on_welcome, "text": self.on_text, "error": self.on_error,
                   "status_reply": self.on_status}.get(str(m.get("type")) if isinstance(m, dict) else "")
        return handler(m, now) if handler else []

    def on_welcome(self, m: dict[str, Any], now: float) -> list[Event]:
        if m.get("major") != MAJOR:
            return self.fail_all(Unavailable("the company speaks protocol %s.%s, this client %d.%d" %
                                             (m.get("major"), m.get("minor", 0), MAJOR, MINOR)))
        before = self.info
        self.info = Info(m.get("model", ""), m.get("vocab", 0), m.get("context", 0), bool(m.get("instruct")),
                         m.get("company", 0))
        events: list[Event] = [Event(0, self.info)] if before is None else []
        if before and before.company != self.info.company:
            events = self.fail_all(Lost("the company was started anew and lost the request: add it again"))
        if not self.hello_waits:
            self.hello(now)
            return events
        self.hello_waits = False
        for r in self.requests.values():
            self.send_request(r)
        return events

    def on_text(self, m: dict[str, Any], now: float) -> list[Event]:
        r, sample = self.requests.get(m.get("id", 0)), m.get("sample", 0)
        if r is None or sample >= len(r.samples) or not r.samples[sample].open:
            return []  # ended before: a repeat
        s, index, tokens = r.samples[sample], m.get("index", 0), m.get("tokens", [])
        offset, data = m.get("offset", 0), m.get("text", b"")
        if (tokens and index > s.tokens) or (data and offset > s.bytes):
            self.send(type="abort", id=r.id)
            del self.requests[r.id]
            return [Event(r.id, Failed(70, "the company left out a part of the output: add it again"), True)]
        new_tokens, new_data = tokens[s.tokens - index:] if tokens else [], data[s.bytes - offset:] if data else b""
        first = s.tokens
        s.tokens += len(new_tokens)
        s.bytes += len(new_data)
        finish = FINISH.get(m.get("finish", 0))
        if not (new_tokens or new_data or finish):
            return []
        text = new_data.decode("utf-8", "replace")  # whole code points by contract
        piece = Piece(text, new_tokens, first, sample, finish, figures(m, s.tokens) if finish else None,
                      logprobs(m, r.logprobs, len(new_tokens)) if r.logprobs else None)
        return [self.end(r, sample, piece) if finish else Event(r.id, piece)]

    def on_error(self, m: dict[str, Any], now: float) -> list[Event]:
        id, code, text = m.get("id", 0), m.get("code", 70), m.get("text", "")
        if id in self.waiting_status:
            self.waiting_status.discard(id)
            return [Event(id, Failed(code, text), True)]
        if id == 0:
            return [Event(0, Unavailable(text))]
        r, sample = self.requests.get(id), m.get("sample", 0)
        return [self.end(r, sample, Failed(code, text))] if r else []

    def on_status(self, m: dict[str, Any], now: float) -> list[Event]:
        id = m.get("id", 0)
        if id not in self.waiting_status:
            return []
        self.waiting_status.discard(id)
        return [Event(id, m.get("json", ""), True)]

    # ---- requests

    def send_request(self, r: Request) -> None:
        """Before the first welcome nothing goes out: it would be lost with a connection that never was."""
        r.sent = self.info is not None and not self.hello_waits
        if r.sent:
            self.out.append(r.frame)
            if r.aborted:
                self.send(type="abort", id=r.id)

    def end(self, r: Request, sample: int, what: Union[Piece, TroupeError]) -> Event:
        if sample >= len(r.samples) or isinstance(what, TroupeError) and len(r.samples) == 1:
            for s in r.samples:
                s.open = False
        else:
            r.samples[sample].open = False
        last = not r.open_samples()
        if last:
            del self.requests[r.id]
        return Event(r.id, what, last)

    def fail_all(self, error: TroupeError) -> list[Event]:
        ids = [*self.requests, *self.waiting_status]
        self.requests.clear()
        self.waiting_status.clear()
        return [Event(id, error, True) for id in ids] or [Event(0, error)]
