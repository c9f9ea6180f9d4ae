"""Clients that nobody here wrote, against the real binary: Python `websockets`, Node `ws`, `wscat`.

    clients.py --binary PATH --node-modules PATH

Prints a line for each check and `N passed, N failed` at the end; exits 1 if any failed. Run by
scripts/test.sh, which installs the clients. Each check has a server of its own on a free port, and
ends only what it has started.
"""

import argparse
import contextlib
import html
import json
import os
import ssl
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request
from functools import partial
from pathlib import Path

import jwt
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from checks import certificate, equal, over_tls, run_checks
from server import DEADLINE_S, Server, wait_for
from terminal import Terminal

HERE = Path(__file__).resolve().parent

# The message of the very first README. It must work as it stands, for ever.
SEED = (
    '{"id":"00000000-0000-0000-0000-000000000000","sender":"test_user",'
    '"content":"Hello from wscat!","timestamp":"2025-03-15T12:00:00Z"}'
)

checks = []


def check(name):
    """Lists a function as a check. It gets the command line's arguments."""

    def enlist(function):
        checks.append((name, function))
        return function

    return enlist


# Python `websockets`.


def hear(client):
    return json.loads(client.recv(timeout=DEADLINE_S))


def join_in(server, url=None, **how):
    """A client that has had its welcome, and that welcome."""
    connects = partial(connect, url or server.ws(), open_timeout=DEADLINE_S, **how)
    client = server.keep(over_tls(connects) if "ssl" in how else connects())
    welcome = hear(client)
    equal(welcome["type"], "welcome", "the first frame's type")
    return client, welcome


def close_code(client):
    """The code the server closed with, whatever it still sent before."""
    end = time.monotonic() + DEADLINE_S
    try:
        while time.monotonic() < end:
            client.recv(timeout=DEADLINE_S)
    except ConnectionClosed as closed:
        assert closed.rcvd, "the connection was lost without a Close frame"
        return closed.rcvd.code
    raise AssertionError("the connection was not closed")


def refusal(server):
    """The 503 that an upgrade gets: its headers and its body."""
    try:
        with connect(server.ws(), open_timeout=DEADLINE_S):
            pass
    except InvalidStatus as refused:
        response = refused.response
        equal(response.status_code, 503, "the status")
        body = json.loads(response.body)
        assert int(response.headers["Retry-After"]) >= 1
        equal(body["retry_after_s"], int(response.headers["Retry-After"]), "retry_after_s")
        return body
    raise AssertionError("the upgrade was not refused")


@check("websockets: two clients chat with the seed message")
def _(args):
    with Server(args.binary) as server:
        anna, welcome = join_in(server)
        ben, _ = join_in(server)
        anna.send(SEED)
        message = hear(ben)
        equal(message["type"], "message")
        equal(message["room"], "lobby")
        equal(message["seq"], 1)
        equal(message["sender"], "test_user")
        equal(message["content"], "Hello from wscat!")
        equal(message["timestamp"], "2025-03-15T12:00:00Z")
        equal(message["client_id"], welcome["client_id"])
        ben.send('{"type":"publish","content":{"any":["JSON"]},"ref":1}')
        equal(hear(ben)["type"], "ok")
        equal(hear(anna)["content"], {"any": ["JSON"]})
        for client in (anna, ben):
            client.close()
            equal(client.protocol.close_code, 1000, "the close code")
        server.wait_for_stats(active_connections=0, sessions=0)


@check("PyJWT: a token that it signs has a user, and a bad one is refused with 401")
def _(args):
    secret = "a secret for tests that has enough bytes"
    claims = {
        "sub": "anna",
        "name": "Anna",
        "aud": ["chat", "mail"],
        "iat": int(time.time()),
        "exp": int(time.time()) + 60,
        "rooms": [{"match": "lobby", "allow": ["join", "publish"]}],
    }
    settings = {"identity": "required", "token_hmac_secret": secret, "token_audience": "chat"}

    def header(key=secret, **more):
        token = jwt.encode({**claims, **more}, key, "HS256")
        return {"Authorization": f"Bearer {token}"}

    with Server(args.binary, **settings) as server:
        anna, welcome = join_in(server, additional_headers=header())
        equal(welcome["user"], "anna")
        ben, _ = join_in(server, additional_headers=header(sub="ben"))
        anna.send('{"content":"hi","sender":"somebody else"}')
        message = hear(ben)
        equal((message["user"], message["sender"]), ("anna", "Anna"))
        ben.send('{"type":"history","room":"lobby"}')
        equal(hear(ben)["code"], "forbidden")
        bad = [header(key="x" * 40), header(exp=1), header(aud="others")]
        for headers in bad:
            try:
                with connect(server.ws(), open_timeout=DEADLINE_S, additional_headers=headers):
                    raise AssertionError("the upgrade was not refused")
            except InvalidStatus as refused:
                equal(refused.response.status_code, 401, "the status")
        refused = server.stats()["tokens_refused"]
        equal(refused, {"signature": 1, "expired": 1, "audience": 1})


@contextlib.contextmanager
def tls_server(args, **settings):
    """A server with TLS, and the path of its certificate."""
    with tempfile.TemporaryDirectory() as directory:
        cert, key = certificate(Path(directory))
        with Server(args.binary, tls_cert=cert, tls_key=key, **settings) as server:
            yield server, cert


@check("websockets over TLS: chat with a token as subprotocol, a large message, a shutdown")
def _(args):
    secret = "a secret for tests that has enough bytes"
    settings = {"identity": "required", "token_hmac_secret": secret}
    with tls_server(args, **settings) as (server, cert):
        trust = ssl.create_default_context(cafile=cert)

        def enter(user):
            rooms = [{"match": "lobby", "allow": ["join", "publish"]}]
            claims = {"sub": user, "exp": int(time.time()) + 60, "rooms": rooms}
            token = jwt.encode(claims, secret, "HS256")
            offers = ["rusty-socks.v1", f"rusty-socks.token.{token}"]
            client, welcome = join_in(server, server.wss(), ssl=trust, subprotocols=offers)
            equal((welcome["user"], client.subprotocol), (user, "rusty-socks.v1"))
            return client

        anna, ben = enter("anna"), enter("ben")
        for content in ("hello", "x" * 60_000):
            anna.send(json.dumps({"content": content}))
            message = hear(ben)
            equal((message["content"], message["user"]), (content, "anna"))
        server.terminate()
        equal(close_code(ben), 1001, "the close code")
        equal(server.exit_code(), 0, "the exit code")


@check("websockets over TLS: a stranger's certificate is not believed, and the server serves on")
def _(args):
    with tls_server(args) as (server, cert):
        try:
            with connect(server.wss(), open_timeout=DEADLINE_S):
                raise AssertionError("the certificate was believed")
        except ssl.SSLCertVerificationError:
            pass
        join_in(server, server.wss(), ssl=ssl.create_default_context(cafile=cert))


@check("websockets: history, replay on connect, recovery on join")
def _(args):
    with Server(args.binary, replay=2) as server:
        anna, welcome = join_in(server)
        for number in range(3):
            anna.send(json.dumps({"content": number}))
        anna.send('{"type":"history","room":"lobby","limit":10,"ref":1}')
        page = hear(anna)
        equal([m["content"] for m in page["messages"]], [0, 1, 2])
        ben, _ = join_in(server)
        equal([hear(ben)["content"] for _ in range(2)], [1, 2], "the replay")
        ben.send('{"type":"leave","room":"lobby","ref":2}')
        equal(hear(ben)["type"], "ok")
        since = {"epoch": welcome["epoch"], "seq": 1}
        ben.send(json.dumps({"type": "join", "room": "lobby", "since": since}))
        joined = hear(ben)
        equal(joined["recovered"], True)
        equal([m["seq"] for m in joined["messages"]], [2, 3])
        ben.close()
        anna.close()


@check("websockets: ping and pong, in both forms")
def _(args):
    with Server(args.binary, ping=0.2, timeout=2) as server:
        client, _ = join_in(server)
        assert client.ping().wait(DEADLINE_S), "no pong to a control frame"
        client.send('{"type":"ping","ref":"p"}')
        equal(hear(client), {"type": "pong", "ref": "p"})
        # The library answers pings by itself, so silence outlives the timeout.
        time.sleep(2.5)
        client.send('{"type":"ping"}')
        equal(hear(client), {"type": "pong"})
        client.close()


@check("websockets: errors are told and the connection stays; ten in a row close it with 4008")
def _(args):
    with Server(args.binary) as server:
        client, _ = join_in(server)
        for sent, code in [
            ("not JSON", "invalid_json"),
            ('{"type":"dance","ref":3}', "unknown_type"),
            ('{"type":"publish","room":"elsewhere","content":1}', "not_member"),
            (b"binary", "bad_request"),
        ]:
            client.send(sent)
            told = hear(client)
            equal([told["type"], told["code"]], ["error", code], repr(sent))
        client.send('{"type":"ping"}')
        equal(hear(client)["type"], "pong")
        for _ in range(10):
            client.send("{")
        equal(close_code(client), 4008, "the close code")


@check("websockets: echo of 64 KiB, text and binary")
def _(args):
    with Server(args.binary, echo="true") as server:
        with connect(server.ws("/echo"), open_timeout=DEADLINE_S) as client:
            for message in ["ü" * 32 * 1024, bytes(i % 251 for i in range(64 * 1024))]:
                client.send(message)
                assert client.recv(timeout=DEADLINE_S) == message, "the echo differs"


@check("websockets: served, waiting, rejected; the line moves; a full server answers /health")
def _(args):
    with Server(args.binary, max_conn=2, max_queued_tasks=1, queue_timeout=2) as server:
        inside, _ = join_in(server)
        other, _ = join_in(server)
        outcome = []

        def wait_in_line():
            try:
                waiter, _ = join_in(server)
                outcome.append(waiter)
            except Exception as error:
                outcome.append(error)

        def start_waiting():
            outcome.clear()
            thread = threading.Thread(target=wait_in_line)
            thread.start()
            server.wait_for_stats(queued=1)
            return thread

        thread = start_waiting()
        equal(refusal(server)["error"], "full")
        equal(server.get("/health")[0], 200, "the status of /health")
        inside.close()
        thread.join()
        waiter = outcome[0]
        assert not isinstance(waiter, Exception), f"the waiter got {waiter!r}"
        assert int(waiter.response.headers["Queue-Wait-Ms"]) >= 0

        thread = start_waiting()
        thread.join()
        response = outcome[0].response
        equal(response.status_code, 503)
        equal(json.loads(response.body)["error"], "queue_timeout")
        rejected = server.stats()["rejected"]
        equal([rejected["full"], rejected["queue_timeout"]], [1, 1], "the counts in /stats")
        waiter.close()
        other.close()
        server.wait_for_stats(active_connections=0, queued=0)


@check("websockets: a message too big closes with 1009")
def _(args):
    with Server(args.binary) as server:
        client, _ = join_in(server)
        # The server may hang up while this is still being sent.
        with contextlib.suppress(ConnectionClosed):
            client.send("x" * (64 * 1024 + 1))
        equal(close_code(client), 1009, "the close code")


@check("websockets: SIGTERM closes with 1001 after a `closing` frame, and exits 0")
def _(args):
    with Server(args.binary) as server:
        client, _ = join_in(server)
        server.terminate()
        equal(hear(client)["type"], "closing")
        equal(close_code(client), 1001, "the close code")
        equal(server.exit_code(), 0, "the exit code")


@check("websockets: who does not read is closed with 4102, and nobody else notices")
def _(args):
    with Server(args.binary, buffer=64, buffer_bytes="256KiB", close_timeout=10) as server:
        # With a queue of one the library stops reading at once; then the kernel's buffers fill.
        slow, _ = join_in(server, max_queue=1)
        quick, _ = join_in(server)
        sender, _ = join_in(server)

        def is_closed():
            sender.send(json.dumps({"content": "x" * 60_000}))
            equal(hear(quick)["type"], "message")
            return server.stats()["closed"].get("4102")

        wait_for("close with 4102", is_closed)
        equal(close_code(slow), 4102, "the close code")
        for client in (quick, sender):
            client.send('{"type":"ping","ref":1}')
            equal(hear(client)["type"], "pong")
            client.close()


# Node `ws`.


def start_node(args, what, url, **environment):
    return subprocess.Popen(
        ["node", str(HERE / "node_client.cjs"), what, url],
        env={**args.environment, "NODE_PATH": args.node_modules, **environment},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def finish_node(process):
    """Waits for its end; what it printed tells why it failed."""
    try:
        printed, _ = process.communicate(timeout=DEADLINE_S + 5)
    finally:
        if process.poll() is None:
            process.kill()
            process.wait()
    equal(process.returncode, 0, f"the exit code of node, which printed:\n{printed}")


@check("ws: two clients chat with the seed message; history, ping and pong")
def _(args):
    with Server(args.binary) as server:
        finish_node(start_node(args, "chat", server.ws()))
        server.wait_for_stats(active_connections=0, sessions=0)


@check("ws: echo of 64 KiB, text and binary")
def _(args):
    with Server(args.binary, echo="true") as server:
        finish_node(start_node(args, "echo", server.ws("/echo")))


@check("ws over TLS: two clients chat; echo of 64 KiB")
def _(args):
    with tls_server(args, echo="true") as (server, cert):
        for what, path in [("chat", "/ws"), ("echo", "/echo")]:
            finish_node(start_node(args, what, server.wss(path), NODE_EXTRA_CA_CERTS=str(cert)))


@check("ws: rejected with 503, Retry-After and a JSON body")
def _(args):
    with Server(args.binary, max_conn=1, max_queued_tasks=0) as server:
        inside, _ = join_in(server)
        finish_node(start_node(args, "rejected", server.ws()))
        inside.close()


@check("ws: a message too big closes with 1009")
def _(args):
    with Server(args.binary) as server:
        finish_node(start_node(args, "too-big", server.ws()))


@check("ws: SIGTERM closes with 1001 after a `closing` frame")
def _(args):
    with Server(args.binary) as server:
        process = start_node(args, "shutdown", server.ws())
        try:
            server.wait_for_stats(active_connections=1)
            equal(process.stdout.readline(), "open\n")
            server.terminate()
        finally:
            finish_node(process)
        equal(server.exit_code(), 0, "the exit code")


# `wscat`, as a person would use it.


def wscat(args, server):
    return Terminal([str(Path(args.node_modules, ".bin", "wscat")), "-c", server.ws()])


@check("wscat: sends the seed message, sees what others say, is told of the shutdown")
def _(args):
    with Server(args.binary) as server, wscat(args, server) as person:
        person.read_until("Connected (press CTRL+C to quit)")
        person.read_until('< {"type":"welcome"')
        other, _ = join_in(server)
        person.type(SEED)
        equal(hear(other)["content"], "Hello from wscat!")
        other.send('{"sender":"other","content":"Hello, person"}')
        person.read_until('"sender":"other","content":"Hello, person"')
        server.terminate()
        person.read_until('< {"type":"closing"')
        person.read_until("Disconnected (code: 1001")


@check("wscat: rejected with 503")
def _(args):
    with Server(args.binary, max_conn=1, max_queued_tasks=0) as server:
        inside, _ = join_in(server)
        with wscat(args, server) as person:
            person.read_until("503")
        inside.close()


@check("the Python of the first page, as it is shown")
def _(args):
    with Server(args.binary) as server:
        with urllib.request.urlopen(f"http://{server.address}/", timeout=DEADLINE_S) as answer:
            page = html.unescape(answer.read().decode())
        snippet = page.split('<pre data-snippet="python">')[1].split("</pre>")[0]
        shown = "ws://localhost:3030/ws"
        assert shown in snippet
        command = [sys.executable, "-u", "-c", snippet.replace(shown, server.ws())]
        with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as program:
            try:
                watch = threading.Timer(DEADLINE_S, program.kill)
                watch.start()
                equal(program.stdout.readline(), "python hello from Python\n")
                watch.cancel()
            finally:
                program.kill()


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", required=True, help="the server to start")
    parser.add_argument("--node-modules", required=True, help="where ws and wscat are")
    args = parser.parse_args()
    args.environment = dict(os.environ)
    return run_checks([(name, partial(run, args)) for name, run in checks])


if __name__ == "__main__":
    sys.exit(main())
