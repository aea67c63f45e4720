"""Where a company is found, and the socket to it."""
from __future__ import annotations

import fcntl
import os

import zmq

from .session import MAX_MESSAGE
from .types import Unavailable


def runtime_root() -> str:
    """As the command line has it: below XDG_RUNTIME_DIR, else the user's own folder in TMPDIR."""
    xdg, tmp = os.environ.get("XDG_RUNTIME_DIR", ""), os.environ.get("TMPDIR", "")
    if os.path.isabs(xdg) and os.path.isdir(xdg):
        return os.path.join(xdg, "troupe")
    return os.path.join(tmp if os.path.isabs(tmp) else "/tmp", "troupe-%d" % os.geteuid())


def endpoint_of(company: str) -> str:
    """An endpoint (it has ://) as it is, or that of the running company of this name: its lock is held and names it."""
    if "://" in company:
        return company
    path = os.path.join(runtime_root(), company, "lock")
    try:
        with open(path, encoding="utf-8") as f:
            lines = f.read().split("\n")
            try:
                fcntl.flock(f, fcntl.LOCK_SH | fcntl.LOCK_NB)
                running = False
            except BlockingIOError:
                running = len(lines) > 1
    except OSError:
        running = False
    if not running:
        raise Unavailable("no company named %s runs: start one with `troupe serve MODEL --name %s`" % (company, company))
    return lines[1]


def open_socket(context: zmq.Context, endpoint: str) -> zmq.Socket:
    """One connection of one client: its routing id is what its requests belong to, also after a reconnect."""
    socket = context.socket(zmq.DEALER)
    socket.setsockopt(zmq.ROUTING_ID, b"\x01" + os.urandom(15))
    socket.setsockopt(zmq.LINGER, 250)
    socket.setsockopt(zmq.IMMEDIATE, 1)  # nothing is queued for a connection that is not there
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_MESSAGE)
    socket.setsockopt(zmq.RECONNECT_IVL, 20)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 500)
    try:
        socket.connect(endpoint)
    except zmq.ZMQError as e:
        socket.close(0)
        raise Unavailable("endpoint %s: %s" % (endpoint, e)) from None
    return socket


def flush(socket: zmq.Socket, out) -> None:
    """Send what can be sent now."""
    while out:
        try:
            socket.send(out[0], zmq.DONTWAIT)
        except zmq.Again:
            return
        out.popleft()


def receive_all(socket: zmq.Socket):
    """Every message that is there, as its frames."""
    while True:
        try:
            yield socket.recv_multipart(zmq.DONTWAIT)
        except zmq.Again:
            return
