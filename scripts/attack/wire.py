"""Sockets to the loopback, and WebSocket frames by hand: fast to make, as wrong as one likes."""

import ipaddress
import json
import socket
import struct

# A mask of zeros is a legal mask, and leaves the payload as it is.
MASK = b"\0\0\0\0"
TEXT, CLOSE, PING, PONG = 1, 8, 9, 10
UPGRADE = (
    "GET /ws HTTP/1.1\r\nHost: attack\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\nSec-WebSocket-Version: 13\r\n{extra}\r\n"
)
DEFLATE = "Sec-WebSocket-Extensions: permessage-deflate\r\n"
# The port is chosen when the address is complete, so that many addresses share the ports.
IP_BIND_ADDRESS_NO_PORT = 24
# Of Linux: what is received is thrown away in the kernel, which costs a reader next to nothing.
DISCARD = socket.MSG_TRUNC
HEAD_BYTES_MAX = 16 << 10
# The one address of all that a stranger does.
STRANGER = "127.6.6.6"


class Closed(Exception):
    """The server ended the connection, or refused it; `status` is that of the refusal."""

    def __init__(self, what, status=None):
        super().__init__(what)
        self.status = status


def member_address(nth):
    """The address of the `nth` member of a crowd: honest clients come from many."""
    return f"127.1.{nth // 250 % 250}.{nth % 250 + 1}"


def check_loopback(host):
    """Refuses every target that is not this machine."""
    if not ipaddress.ip_address(host).is_loopback:
        raise ValueError(f"{host} is no loopback address (127.0.0.0/8 or ::1): it is not attacked")


def dial(server, source=STRANGER, timeout=10.0, receive_bytes=None):
    """Connects to `server`, a pair of host and port, from the loopback address `source`."""
    check_loopback(server[0])
    family = socket.AF_INET6 if ":" in server[0] else socket.AF_INET
    sock = socket.socket(family, socket.SOCK_STREAM)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if receive_bytes:
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        if family == socket.AF_INET:
            sock.setsockopt(socket.IPPROTO_IP, IP_BIND_ADDRESS_NO_PORT, 1)
            sock.bind((source, 0))
        sock.settimeout(timeout)
        sock.connect(server)
    except OSError:
        sock.close()
        raise
    return sock


def upgrade(server, source=STRANGER, timeout=10.0, extra="", receive_bytes=None):
    """Opens a WebSocket. Returns the socket and what came behind the answer's head."""
    sock = dial(server, source, timeout, receive_bytes)
    try:
        sock.sendall(UPGRADE.format(extra=extra).encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            part = sock.recv(4096)
            if not part or len(answer) > HEAD_BYTES_MAX:
                raise Closed("no answer to the upgrade")
            answer += part
        head, rest = answer.split(b"\r\n\r\n", 1)
        status = int(head.split(b" ", 2)[1])
        if status != 101:
            raise Closed(f"the upgrade was answered {status}", status)
    except (OSError, Closed):
        sock.close()
        raise
    return sock, rest


def frame(payload, opcode=TEXT, first=0x80):
    """One masked frame; `first` has the final bit, and others that are asked for."""
    size = len(payload)
    if size < 126:
        head = struct.pack(">BB", first | opcode, 0x80 | size)
    elif size < 1 << 16:
        head = struct.pack(">BBH", first | opcode, 0x80 | 126, size)
    else:
        head = struct.pack(">BBQ", first | opcode, 0x80 | 127, size)
    return head + MASK + payload


def command(**fields):
    """One command as a frame."""
    return frame(json.dumps(fields, separators=(",", ":")).encode())


class Frames:
    """Takes a server's frames off a stream of bytes."""

    def __init__(self, rest=b""):
        self.buffer = bytearray(rest)

    def feed(self, data):
        self.buffer += data

    def take(self):
        """Yields each whole frame as its opcode and payload."""
        buffer, at = self.buffer, 0
        while len(buffer) - at >= 2:
            size, body = buffer[at + 1] & 127, at + 2
            if size == 126:
                if len(buffer) < body + 2:
                    break
                size, body = struct.unpack_from(">H", buffer, body)[0], body + 2
            elif size == 127:
                if len(buffer) < body + 8:
                    break
                size, body = struct.unpack_from(">Q", buffer, body)[0], body + 8
            if len(buffer) < body + size:
                break
            yield buffer[at] & 15, bytes(buffer[body : body + size])
            at = body + size
        del buffer[:at]


class Client:
    """A client that waits for its answers. For what must be looked at, not for speed."""

    def __init__(self, server, source=STRANGER, timeout=10.0, extra=""):
        self.sock, rest = upgrade(server, source, timeout, extra)
        self.frames = Frames(rest)
        self.queued, self.closed = [], None

    def send(self, **fields):
        self.sock.sendall(command(**fields))

    def payloads(self):
        """The next text frames, raw. Raises `Closed` where a close frame comes next."""
        for opcode, payload in self.frames.take():
            if opcode == TEXT:
                self.queued.append(payload)
            elif opcode == PING:
                self.sock.sendall(frame(payload, PONG))
            elif opcode == CLOSE:
                self.closed = struct.unpack(">H", payload[:2])[0] if payload else 1005
        if self.closed and not self.queued:
            raise Closed(f"closed {self.closed}", self.closed)
        taken, self.queued = self.queued, []
        return taken

    def read(self):
        """Waits for text frames. Raises `Closed`, or `TimeoutError`."""
        while not (payloads := self.payloads()):
            data = self.sock.recv(1 << 16)
            if not data:
                raise Closed("lost", 1006)
            self.frames.feed(data)
        return payloads

    def wait_for(self, **fields):
        """Waits for a frame with these fields, and returns it. What comes before is dropped."""
        while True:
            payloads = self.read()
            for nth, payload in enumerate(payloads):
                said = json.loads(payload)
                if all(said.get(key) == value for key, value in fields.items()):
                    self.queued = payloads[nth + 1 :]
                    return said

    def ask(self, **fields):
        """Sends a command with a `ref` and returns its answer."""
        self.send(ref="asked", **fields)
        return self.wait_for(ref="asked")

    def close(self):
        self.sock.close()

    def reset(self):
        """Ends the connection as a crash does."""
        reset(self.sock)


def reset(sock):
    """Closes with a RST instead of a FIN."""
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    sock.close()
