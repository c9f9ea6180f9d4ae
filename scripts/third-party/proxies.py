"""Proxies that nobody here wrote in front of the real binary: nginx, HAProxy and Caddy, with the files of deploy/.

    proxies.py --binary PATH

Prints a line for each check and `N passed, N failed` at the end; exits 1 if any failed. A proxy that is not
there is told in a line with `!!!`. Run by scripts/test.sh, which installs them. Every check has a server and a
proxy of its own on free ports of the loopback, and ends only what it has started.
"""

import argparse
import contextlib
import http.client
import itertools
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import sys
import tempfile
from functools import partial
from pathlib import Path

from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from checks import certificate, equal, free_port, over_tls, run_checks
from server import DEADLINE_S, Server, wait_for

DEPLOY = Path(__file__).resolve().parent.parent.parent / "deploy"

# Whom the server believes. Clients come from others.
PROXY_IP = "127.0.0.1"
TRUSTING = {"trusted_proxies": PROXY_IP, "log": "debug", "max_conn_per_ip": 1, "limited_addresses": "all"}


def example(path, replacements):
    """The text of an example, with what its user would change. Each of that must be there."""
    text = (DEPLOY / path).read_text()
    for old, new in replacements.items():
        assert old in text, f"{path} has no {old!r}"
        text = text.replace(old, new)
    return text


class Scene:
    """A directory with a certificate; what it starts ends with it."""

    def __enter__(self):
        self.kept = contextlib.ExitStack()
        self.dir = Path(self.kept.enter_context(tempfile.TemporaryDirectory()))
        self.cert, self.key = certificate(self.dir)
        self.tls = ssl.create_default_context(cafile=self.cert)
        return self

    def __exit__(self, *_):
        self.kept.close()

    def server(self, args, *, has_tls=False, **settings):
        files = {"tls_cert": self.cert, "tls_key": self.key} if has_tls else {}
        return self.kept.enter_context(Server(args.binary, **{**TRUSTING, **files, **settings}))

    def start(self, *command, port, **env):
        log = self.kept.enter_context(tempfile.TemporaryFile("w+"))
        environment = os.environ | env
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.dir, env=environment
        )

        def end():
            process.terminate()
            process.wait(timeout=DEADLINE_S)

        self.kept.callback(end)

        def listens():
            if process.poll() is not None:
                log.seek(0)
                raise AssertionError(f"{command[0]} ended with {process.returncode}: {log.read()}")
            with contextlib.suppress(ConnectionRefusedError), socket.create_connection((PROXY_IP, port)):
                return True

        wait_for(f"{command[0]} on its port", listens)

    def nginx(self, config, port):
        """Runs nginx as one process, so that it stays who started it."""
        modules = Path(shutil.which("nginx")).parent.parent / "lib" / "nginx" / "modules"
        module = modules / "ngx_stream_module.so"
        main = [f"load_module {module};"] if module.exists() else []
        main += ["daemon off; master_process off;", f"pid {self.dir}/pid;", "error_log stderr;", "events {}"]
        (self.dir / "nginx.conf").write_text("\n".join([*main, config]))
        self.start("nginx", "-e", "stderr", "-p", str(self.dir), "-c", str(self.dir / "nginx.conf"), port=port)

    def nginx_http(self, upstream):
        """nginx with rusty_socks.conf. Returns its ports, without TLS and with it."""
        plain, secure = free_port(), free_port()
        site = example(
            "nginx/rusty_socks.conf",
            {
                "server 127.0.0.1:3030;": f"server {upstream};",
                "listen 80;": f"listen {PROXY_IP}:{plain};",
                "listen 443 ssl;": f"listen {PROXY_IP}:{secure} ssl;",
                "/etc/ssl/certs/chat.example.org.pem": str(self.cert),
                "/etc/ssl/private/chat.example.org.key": str(self.key),
            },
        )
        self.nginx_site(site, secure)
        return plain, secure

    def nginx_site(self, site, port):
        scratch = [
            f"{what}_temp_path {self.dir}/{what};" for what in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
        ]
        self.nginx("\n".join(["http {", "access_log off;", *scratch, site, "}"]), port)

    def nginx_without_upgrade(self, upstream, more=""):
        """An nginx that drops each Upgrade, as it does if it is told nothing of WebSockets. Returns its port."""
        port = free_port()
        location = f"location / {{ proxy_pass http://{upstream}; {more} }}"
        self.nginx_site(f"server {{ listen {PROXY_IP}:{port}; {location} }}", port)
        return port

    def nginx_stream(self, upstream):
        port = free_port()
        listens = {"listen 443;": f"listen {PROXY_IP}:{port};", "127.0.0.1:3030": upstream}
        self.nginx(example("nginx/stream.conf", listens), port)
        return port

    def caddy(self, upstream):
        """Caddy with its Caddyfile. Returns its port, with TLS."""
        port = free_port()
        changes = {
            "chat.example.org {": f"https://{PROXY_IP}:{port} {{\nbind {PROXY_IP}\ntls {self.cert} {self.key}",
            "127.0.0.1:3030": upstream,
        }
        version = subprocess.run(["caddy", "version"], capture_output=True, text=True, check=True).stdout
        if tuple(map(int, re.findall(r"\d+", version)[:2])) < (2, 7):
            changes["stream_close_delay"] = "# stream_close_delay"
        # No port for an operator, and no certificate of its own making.
        options = "{\nadmin off\nauto_https off\n}\n"
        (self.dir / "Caddyfile").write_text(options + example("caddy/Caddyfile", changes))
        command = ["caddy", "run", "--adapter", "caddyfile", "--config", "Caddyfile"]
        self.start(*command, port=port, XDG_CONFIG_HOME=str(self.dir))
        return port

    def haproxy(self, path, port, replacements):
        # Where few files may be open, HAProxy does not start with more connections.
        config = self.dir / "haproxy.cfg"
        config.write_text(example(path, {"maxconn 20000": "maxconn 100", **replacements}))
        self.start("haproxy", "-db", "-f", str(config), port=port)


# What a client may say of itself without being believed.
FORGED = {"X-Forwarded-For": "127.0.0.8"}


class Way:
    """A way to the server through a proxy; with `tls`, its client's TLS."""

    def __init__(self, scene, server, port, tls=None):
        self.scene, self.server, self.port, self.tls = scene, server, port, tls
        self.strangers = itertools.cycle(range(1, 250))

    def socket(self, ip):
        return socket.create_connection((PROXY_IP, self.port), timeout=DEADLINE_S, source_address=(ip, 0))

    def connect(self, ip, **how):
        """A client at `ip`, and the address that the server's log has for it."""
        url = f"{'wss' if self.tls else 'ws'}://{PROXY_IP}:{self.port}/ws"

        def opens():
            return connect(url, sock=self.socket(ip), ssl=self.tls, open_timeout=DEADLINE_S, **how)

        client = self.scene.kept.enter_context(over_tls(opens) if self.tls else opens())
        welcome = json.loads(client.recv(timeout=DEADLINE_S))
        end = f" {welcome['client_id']}: open"
        line = wait_for("line in the log", lambda: re.search(rf"(\S+){end}", self.server.log_text()))
        return client, line[1].rsplit(":", 1)[0]

    def http(self, ip):
        """A connection of a client at `ip`, for one request."""
        plain = self.socket(ip)
        asks = http.client.HTTPConnection(PROXY_IP, self.port)
        asks.sock = self.tls.wrap_socket(plain, server_hostname=PROXY_IP) if self.tls else plain
        return asks

    def ask(self, ip, path, headers):
        """Status, headers and JSON of the answer that a client at `ip` gets."""
        with contextlib.closing(self.http(ip)) as asks:
            asks.request("GET", path, headers=headers)
            answer = asks.getresponse()
            return answer.status, answer.headers, json.load(answer)

    def stranger(self):
        """Another address. HAProxy may keep its connection for the same client, who then has no other."""
        return f"127.0.1.{next(self.strangers)}"

    def get(self, path):
        """The JSON at `path`."""
        return self.ask(self.stranger(), path, {"Connection": "close"})[2]

    def wait_until_up(self):
        """Waits until the proxy has found the server."""

        def is_up():
            with contextlib.suppress(OSError, ValueError, http.client.HTTPException):
                return self.get("/health")["status"] == "ok"

        wait_for("way through the proxy", is_up)

    def refusal(self, ip):
        """What an upgrade by a client at `ip` is refused with: an error of the server, or one of TLS."""
        upgrade = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Version": "13"}
        upgrade |= {"Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ==", **FORGED}
        try:
            status, headers, body = self.ask(ip, "/ws", upgrade)
        except ssl.SSLError as error:
            return error.reason
        equal(status, 503, "the status")
        assert int(headers["Retry-After"]) >= 1
        return body["error"]

    def check(self, refusal="per_ip"):
        """Chat, addresses, limits and a shutdown, through the proxy."""
        self.wait_until_up()
        anna, address = self.connect("127.0.0.2", additional_headers=FORGED)
        equal(address, "127.0.0.2", "the address of the first")
        ben, address = self.connect("127.0.0.3")
        equal(address, "127.0.0.3", "the address of the second")
        said = ("hello", "x" * 60_000)
        for content in said:
            anna.send(json.dumps({"content": content}))
            equal(json.loads(ben.recv(timeout=DEADLINE_S))["content"], content)
        self.check_stream(anna, said)
        equal(self.refusal("127.0.0.2"), refusal, "the refusal")
        equal(self.get("/stats")["rejected"]["per_ip"], 1, "the count of refusals by address")
        anna.close()
        wait_for("end of the first", lambda: self.get("/stats")["active_connections"] == 1)
        self.connect("127.0.0.2")
        self.server.terminate()
        try:
            while True:
                ben.recv(timeout=DEADLINE_S)
        except ConnectionClosed as closed:
            equal(closed.rcvd and closed.rcvd.code, 1001, "the close code")
        equal(self.server.exit_code(), 0, "the exit code")

    def check_stream(self, anna, said):
        """An event stream, which gets what was said before and talks with a client that has a WebSocket."""
        carl = EventStream(lambda: self.http(self.stranger()))
        equal(carl.event()[1]["type"], "welcome", "the first message")
        equal([carl.event()[1]["content"] for _ in said], [*said], "what was said before")
        for nth in range(3):
            anna.send(json.dumps({"content": nth}))
            equal(carl.event()[1]["content"], nth, "what came down the stream")
            carl.say({"content": nth})
            equal(json.loads(anna.recv(timeout=DEADLINE_S))["content"], nth, "what went up in a post")
        carl.say(close={"code": 1000, "reason": "bye"})
        equal(carl.event(), ("closed", {"code": 1000, "reason": "bye"}), "the last event")


def nginx_forwards(scene, args, is_secure):
    server = scene.server(args)
    plain, secure = scene.nginx_http(server.address)
    Way(scene, server, *((secure, scene.tls) if is_secure else (plain,))).check()


def nginx_forwards_to_a_unix_socket(scene, args):
    path = scene.dir / "server.sock"
    # Nobody need be trusted by address, though the client's own word still is not believed.
    server = scene.server(args, host=f"unix:{path}", trusted_proxies="")
    _, secure = scene.nginx_http(f"unix:{path}")
    Way(scene, server, secure, scene.tls).check()
    assert not path.exists(), "the file of the socket is still there"


def caddy_forwards(scene, args):
    server = scene.server(args)
    Way(scene, server, scene.caddy(server.address), scene.tls).check()


def nginx_passes_on(scene, args, has_tls):
    server = scene.server(args, proxy_protocol="true", has_tls=has_tls)
    port = scene.nginx_stream(server.address)
    pass_on(scene, server, port, has_tls)


def haproxy_ends_tls(scene, args, is_secure):
    server = scene.server(args, proxy_protocol="true")
    both = scene.dir / "both.pem"
    both.write_text(scene.cert.read_text() + scene.key.read_text())
    plain, secure = free_port(), free_port()
    changes = {
        ":80\n": f"{PROXY_IP}:{plain}\n",
        ":443 ": f"{PROXY_IP}:{secure} ",
        "/etc/haproxy/chat.example.org.pem": str(both),
        "127.0.0.1:3030": server.address,
    }
    scene.haproxy("haproxy/haproxy.cfg", secure, changes)
    Way(scene, server, *((secure, scene.tls) if is_secure else (plain,))).check()


def haproxy_passes_on(scene, args, has_tls):
    server = scene.server(args, proxy_protocol="true", has_tls=has_tls)
    port = free_port()
    changes = {":443\n": f"{PROXY_IP}:{port}\n", "127.0.0.1:3030": server.address}
    if not has_tls:
        changes["check-ssl verify none "] = ""
    scene.haproxy("haproxy/passthrough.cfg", port, changes)
    pass_on(scene, server, port, has_tls)


def pass_on(scene, server, port, has_tls):
    """Through a proxy that does not look inside; before its handshake a client can only be refused by an alert."""
    if has_tls:
        Way(scene, server, port, scene.tls).check(refusal="TLSV1_ALERT_INTERNAL_ERROR")
    else:
        Way(scene, server, port).check()


class EventStream:
    """A client without a WebSocket. `http` opens a connection for a request, through a proxy."""

    def __init__(self, http, accept="text/event-stream"):
        self.http = http
        self.posts = 0
        self.connection = http()
        self.connection.request("GET", "/ws", headers={"Accept": accept})
        self.answer = self.connection.getresponse()
        equal(self.answer.status, 200, "the status")
        name, data = self.event()
        equal(name, "connection", "the first event")
        self.key = data["connection"]

    def event(self):
        name, data = "", []
        while True:
            read = self.answer.readline().decode()
            assert read, "the stream ended"
            line = read.rstrip("\n")
            if not line and name == "ping":
                name, data = "", []
            elif not line and data:
                return name, json.loads("\n".join(data))
            what, _, value = line.partition(": ")
            if what == "event":
                name = value
            elif what == "data":
                data.append(value)

    def say(self, *messages, **close):
        self.posts += 1
        opening = {"connection": self.key, "post": self.posts, **close}
        body = "\n".join(map(json.dumps, [opening, *messages]))
        with contextlib.closing(self.http()) as poster:
            headers = {"Content-Type": "text/plain", "Connection": "close"}
            poster.request("POST", "/ws", body=body, headers=headers)
            equal(poster.getresponse().status, 204, "the status of a post")


def nginx_without_websockets(scene, args, buffers):
    """No WebSocket comes through, but events do as they happen, and posts."""
    server = scene.server(args, limited_addresses="none")
    more = "proxy_buffering on; proxy_ignore_headers X-Accel-Buffering;" if buffers else ""
    port = scene.nginx_without_upgrade(server.address, more)
    with contextlib.suppress(InvalidStatus):
        connect(f"ws://{PROXY_IP}:{port}/ws", open_timeout=DEADLINE_S)
        raise AssertionError("a WebSocket came through")
    script = Path(__file__).with_name("fallback.mjs")
    command = ["node", script, f"ws://{PROXY_IP}:{port}/ws"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=4 * DEADLINE_S)
    equal((found.returncode, found.stderr), (0, ""), "the JavaScript client")
    way = Way(scene, server, port)
    accept = "text/event-stream; padding=8192" if buffers else "text/event-stream"
    anna, ben = (EventStream(partial(way.http, PROXY_IP), accept) for _ in "ab")
    for client in (anna, ben):
        equal(client.event()[1]["type"], "welcome", "the first message")
    for nth in range(10):
        anna.say({"content": nth, "ref": nth}, {"content": "x" * 30_000})
        equal(anna.event()[1]["ref"], nth, "the answer")
        equal([ben.event()[1]["content"] for _ in "ab"], [nth, "x" * 30_000], "what was said")
    anna.say(close={"code": 1000, "reason": "bye"})
    equal(anna.event(), ("closed", {"code": 1000, "reason": "bye"}), "the last event")
    server.terminate()
    equal(ben.event()[1]["type"], "closing", "what comes before the end")
    equal(ben.event()[1]["code"], 1001, "the close code")
    equal(server.exit_code(), 0, "the exit code")


CHECKS = {
    "nginx": [
        ("X-Forwarded-For, in the clear", nginx_forwards, {"is_secure": False}),
        ("X-Forwarded-For, behind TLS", nginx_forwards, {"is_secure": True}),
        ("X-Forwarded-For, to a Unix socket", nginx_forwards_to_a_unix_socket, {}),
        ("no WebSocket", nginx_without_websockets, {"buffers": False}),
        ("no WebSocket, and buffers", nginx_without_websockets, {"buffers": True}),
        ("PROXY version 1", nginx_passes_on, {"has_tls": False}),
        ("PROXY version 1, before TLS", nginx_passes_on, {"has_tls": True}),
    ],
    "haproxy": [
        ("PROXY version 2, in the clear", haproxy_ends_tls, {"is_secure": False}),
        ("PROXY version 2, behind TLS", haproxy_ends_tls, {"is_secure": True}),
        ("PROXY version 2, passed on", haproxy_passes_on, {"has_tls": False}),
        ("PROXY version 2, before TLS", haproxy_passes_on, {"has_tls": True}),
    ],
    "caddy": [("X-Forwarded-For, behind TLS", caddy_forwards, {})],
}


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--binary", required=True, help="the server to start")
    args = parser.parse_args()
    checks = []
    for program, of_program in CHECKS.items():
        if not shutil.which(program):
            print(f"!!! NOTHING WAS CHECKED BEHIND {program}: it is not installed", flush=True)
            continue
        checks += [(f"{program}: {name}", partial(on_scene, run, args, **how)) for name, run, how in of_program]
    return run_checks(checks)


def on_scene(run, args, **how):
    with Scene() as scene:
        run(scene, args, **how)


if __name__ == "__main__":
    sys.exit(main())
