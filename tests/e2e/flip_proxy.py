"""flip_proxy.py LISTEN CONNECT MODE COUNT: carries TCP connections to 127.0.0.1:CONNECT and flips one bit in some of the
frames that come back from there (transport/carrier.h). MODE tiles: in the last tile of every third KV record; all: in
that of every KV record; others: in a record of another link. COUNT flips at most. Prints one line when it listens."""
import socket
import struct
import sys
import threading

listen, connect, mode, count = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], int(sys.argv[4])
MAGIC, HEAD, KV = struct.pack("<I", 0x43505254), 32, 3
seen = 0


def damage(data):
    global seen, count
    at = data.find(MAGIC)
    while at >= 0 and at + HEAD + 4 <= len(data) and count > 0:
        _, session, link, size = struct.unpack_from("<IIII", data, at)
        kind, = struct.unpack_from("<I", data, at + HEAD)
        last = at + HEAD + size - 9
        record = session and link < 0xfffffff0
        if record and last < len(data) and (kind == KV) == (mode != "others"):
            seen += 1
            if mode != "tiles" or seen % 3 == 1:
                data[last] ^= 0x10
                count -= 1
        at = data.find(MAGIC, at + HEAD)
    return data


def carry(source, to, back):
    try:
        while True:
            data = bytearray(source.recv(1 << 20))
            if not data:
                break
            to.sendall(damage(data) if back else data)
    except OSError:
        pass
    for s in (source, to):
        try:
            s.shutdown(socket.SHUT_RDWR)
        except OSError:
            pass


server = socket.create_server(("127.0.0.1", listen))
print("ready", flush=True)
while True:
    inside, _ = server.accept()
    try:
        outside = socket.create_connection(("127.0.0.1", connect))
    except OSError:
        inside.close()
        continue
    for a, b, back in ((inside, outside, False), (outside, inside, True)):
        threading.Thread(target=carry, args=(a, b, back), daemon=True).start()
