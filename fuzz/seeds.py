#!/usr/bin/env python3
"""Writes the seed corpora, fuzz/seeds/<target>/: a few inputs that are already deep inside each parser.

The same bytes every time, so that a seed changes only when this file does.
"""

import pathlib
import struct
import zlib

HERE = pathlib.Path(__file__).parent / "seeds"


def seed(target, name, data):
    path = HERE / target / name
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data if isinstance(data, bytes) else data.encode())


def frame(first, payload, mask=b"\x37\xfa\x21\x3d"):
    """A client's frame (RFC 6455, 5.2)."""
    head = bytes([first])
    if len(payload) < 126:
        head += bytes([0x80 | len(payload)])
    elif len(payload) < 1 << 16:
        head += bytes([0x80 | 126]) + struct.pack("!H", len(payload))
    else:
        head += bytes([0x80 | 127]) + struct.pack("!Q", len(payload))
    return head + mask + bytes(byte ^ mask[at % 4] for at, byte in enumerate(payload))


def close(code, reason=b""):
    return frame(0x88, struct.pack("!H", code) + reason)


def deflated(*messages, takeover=False):
    """Messages compressed as RFC 7692, 7.2.1 has it."""
    squeeze = zlib.compressobj(wbits=-15)
    for message in messages:
        if not takeover:
            squeeze = zlib.compressobj(wbits=-15)
        yield (squeeze.compress(message) + squeeze.flush(zlib.Z_SYNC_FLUSH))[:-4]


# The first byte of a frame stream chooses who reads and the agreement, the next two how it is cut.
PLAIN, SHARED, DEDICATED = b"\x00\x03\x02", b"\x02\x03\x02", b"\x03\x03\x02"
CLIENT = b"\x04\x03\x02"
hello = bytes.fromhex("f248cdc9c90700")
text = "grüße an alle, ".encode() * 20

seed("frames", "hello", PLAIN + frame(0x81, b"Hello") + close(1000, b"bye"))
seed("frames", "fragments", PLAIN + frame(0x01, b"Hel") + frame(0x89, b"ping") + frame(0x80, b"lo"))
seed("frames", "control", PLAIN + frame(0x89, b"Hello") + frame(0x8A, b"") + frame(0x88, b""))
seed("frames", "lengths", PLAIN + frame(0x82, bytes(125)) + frame(0x82, bytes(126)) + frame(0x82, bytes(990)))
seed("frames", "split-text", PLAIN + frame(0x01, text[:3]) + frame(0x00, text[3:150]) + frame(0x80, text[150:]))
seed("frames", "bad-text", PLAIN + frame(0x81, b"\xce\xba\xe1\xbd\xb9\xf4\x90\x80\x80and more of it"))
seed("frames", "too-big", PLAIN + frame(0x02, bytes(900)) + frame(0x80, bytes(200)))
seed("frames", "huge", PLAIN + b"\x82\xff\x7f" + b"\xff" * 7 + bytes(4))
seed("frames", "unmasked", PLAIN + b"\x81\x05Hello")
seed("frames", "client", CLIENT + b"\x81\x05Hello\x01\x03Hel\x89\x04ping\x80\x02lo\x88\x02\x03\xe8")
seed("frames", "client-masked", CLIENT + b"\x81\x02ok" + frame(0x81, b"Hello"))
seed("frames", "reserved", PLAIN + frame(0x81, b"ok") + frame(0xB3, b"no"))
# Found by the differential test: what follows the message once reached another connection.
seed("frames", "stray", b"\x00\xff\xff" + frame(0x82, b"") + frame(0x00, b"stray"))
seed("frames", "open-ping", b"\x00\xff\xff" + frame(0x82, b"") + frame(0x09, b"open"))
# Two rules broken at once: the code must not depend on the cut.
seed("frames", "twice", PLAIN + b"\x81\x10\xff" + bytes(15))
seed("frames", "rfc7692", SHARED + frame(0xC1, hello) + frame(0x41, hello[:3]) + frame(0x80, hello[3:]))
seed("frames", "rfc7692-stored", SHARED + frame(0xC1, bytes.fromhex("000500faff48656c6c6f00")))
seed("frames", "rfc7692-final", SHARED + frame(0xC1, bytes.fromhex("f348cdc9c9070000")))
seed("frames", "rfc7692-blocks", SHARED + frame(0xC1, bytes.fromhex("f24805000000ffffcac9c90700")))
seed("frames", "rfc7692-window", DEDICATED + frame(0xC1, hello) + frame(0xC1, bytes.fromhex("f200110000")))
seed("frames", "shared", SHARED + b"".join(frame(0xC1, part) for part in deflated(text, b"", b"{}")))
seed(
    "frames",
    "dedicated",
    DEDICATED + b"".join(frame(0xC2, part) for part in deflated(text, text, b"x", takeover=True)) + close(1001),
)
seed("frames", "bomb", SHARED + b"".join(frame(0xC2, part) for part in deflated(bytes(100_000))))
seed("frames", "limit", SHARED + b"".join(frame(0xC2, part) for part in deflated(bytes(1000), bytes(1001))))
(one,) = deflated(text)
seed("frames", "between", DEDICATED + frame(0x41, one[:5]) + frame(0x89, b"?") + frame(0x80, one[5:]) + frame(0x81, b"x"))

upgrade = (
    "GET /ws HTTP/1.1\r\nHost: localhost:3030\r\nConnection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\n"
)
deflate = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits\r\n"
cuts = "\x20\x80\xf0".encode("latin-1")
for name, lines in {
    "upgrade": upgrade,
    "deflate": upgrade + deflate + "Sec-WebSocket-Protocol: rusty-socks.v1\r\nOrigin: http://a\r\n",
    "health": "GET /health?x=1 HTTP/1.1\r\nHost: a\r\nConnection: close\r\n",
    "old": "HEAD /stats HTTP/1.0\r\nConnection: keep-alive\r\n",
    "absolute": upgrade.replace("GET /ws", "GET http://localhost:3030/ws?a=b#c"),
    "body": "POST /echo HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n",
    "folded": "OPTIONS * HTTP/1.1\r\nHost: a\r\nX: a\r\n b\r\n",
}.items():
    seed("head", name, cuts + lines.encode() + b"\r\nmore")

message = '{"room":"lobby","content":"x"}'
for name, choice, body in (
    ("sized", "\x02", message),
    ("batch", "\x03", f"{message}\nno JSON\n{message}"),
    ("chunked", "\x00", f"5\r\n{message[:5]}\r\n18;a=b\r\n{message[5:]}\r\n0\r\nA: b\r\n\r\nmore"),
    ("large", "\x01", "400\r\n" + "x" * 1024 + "\r\n1\r\n"),
):
    seed("bodies", name, (choice + "\x20\x80" + body).encode())

for name, headers in {
    "plain": "permessage-deflate",
    "chrome": "permessage-deflate; client_max_window_bits",
    "all": "permessage-deflate; server_no_context_takeover; client_no_context_takeover;"
    " server_max_window_bits=10; client_max_window_bits=12",
    "quoted": 'permessage-deflate; server_max_window_bits="10"',
    "fallback": "permessage-deflate; server_max_window_bits=8, permessage-deflate; client_max_window_bits=9,"
    "\npermessage-deflate",
    "other": 'x-webkit-deflate-frame; no_context_takeover, foo; bar="b,a;z"\npermessage-bzip2',
    "twice": "permessage-deflate; client_max_window_bits=9; client_max_window_bits=9, permessage-deflate",
}.items():
    seed("extensions", name, headers)

for name, lines in {
    "seed": '{"id":"00000000-0000-0000-0000-000000000000","sender":"test_user","content":"Hello",'
    '"timestamp":"2025-03-15T12:00:00Z"}',
    "rooms": '{"type":"join","room":"a b","ref":1}\n{"type":"publish","room":"a b","content":{"x":[1,2.50,"\\u00e9"]},'
    '"echo":true,"ref":"r"}\n{"type":"history","room":"a b","limit":2,"before":9}\n{"type":"leave","room":"a b"}',
    "recover": '{"type":"join","room":"r","since":{"epoch":"00000000000000ff","seq":3},"ref":-7}\n{"type":"ping"}',
    "escapes": '{"type":"pub\\u006cish","content":null,"room":"\\u006cobby","sender":"\\"","ref":"\\ud83d\\ude00"}',
    "faults": '{"content":\n[1]\n{"type":"dance","ref":1e5}\n{"content":1,"content":2}\n\xff\n{"ref":[],"content":1}',
    "session": '{"type":"resume","session":"' + "0f" * 48 + '","rooms":[{"room":"a.b","epoch":"ff","seq":3}],"direct":2}\n'
    '{"type":"join","room":"a.b","presence":true}\n{"type":"presence","room":"a.b","watch":false}',
    "several": '{"type":"join","room":"a.*"}\n{"type":"join","room":"a.b"}\n{"type":"publish","rooms":["lobby","a.b"],"content":1}\n'
    '{"type":"direct","to":"67e55044-10b1-426f-9247-bb680e5fe0c8","content":1}\n{"type":"broadcast","content":1}\n'
    '{"type":"leave","room":"a.*"}',
    "id": '{"content":[[[]]],"id":"67E55044-10B1-426F-9247-BB680E5FE0C8","echo":false}',
}.items():
    seed("chat", name, lines.encode("latin-1"))

for name, text in {
    "types": "host = '::1'\nport = 0\ntimeout = 1.5\nping = 0\nmax_message_bytes = '1KiB'\nbuffer_bytes = 4096\n"
    "echo = true\nlog_format = 'json'\ndefault_room = ''\nallowed_origins = ['https://a.example']\n"
    "%%\nPORT=1\n--max-conn=7\nCOMPRESSION=shared\n--log=warn,rusty_socks=debug\n",
    "sizes": "mailbox_bytes = '1GiB'\nmax_message_bytes = '64MiB'\nbuffer_bytes = '128MiB'\nhistory_bytes = 0\n",
    "slips": "prot = 1\nmax_con = 2\n%%\nPROT=1\n--prot=2\nBUFFER=many\nTIMEOUT=1e9\n",
    "conflict": "history = 5\nreplay = 6\nbuffer_bytes = 300\nallowed_origins = 'https://a, null'\n",
    "shapes": "[port]\nx = 1\n[[host]]\n",
    "broken": 'host = """a\nb"""\nlog = "\\u0007"\nport = 1979-05-27T07:32:00Z\n%%\nHOST=\n--host=[::1]\n',
    "flags": "%%\n--port=65536\n--ping=0.5\n--close_timeout=0.0001\nRATE_BYTES=1GiB\nCOMPRESSION_LEVEL=10\n",
}.items():
    seed("config", name, text)

# The first byte says whether there is a PROXY header, the next two how the input is cut.
V2 = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c" + bytes([1, 2, 3, 4, 5, 6, 7, 8, 0, 80, 1, 187])
seed("proxies", "version-1", b"\x01\x40\x80PROXY TCP4 1.2.3.4 5.6.7.8 80 443\r\n\xff")
seed("proxies", "version-2", b"\x01\x40\x80" + V2 + b"\xff9.9.9.9, 1.2.3.4")
seed("proxies", "forwarded", b"\0\x40\x80\xff6.6.6.6, [2001:db8::9]:55, 127.0.0.1")

# The first three bytes say which byte is changed and how, the others are lengths of pieces.
seed("records", "whole", b"\0\0\0\xff")
seed("records", "bytes", b"\0\0\0\0\x10\x80")
seed("records", "changed", b"\x09\x70\x20\xc0\x05")
