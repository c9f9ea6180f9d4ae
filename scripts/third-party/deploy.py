"""What deploy/ gives an operator, under the tools that read it: Prometheus and promtool, systemd-analyze, kubectl
and helm, the schemas of Kubernetes and of Compose; and the server itself, with the settings that stand there.

    deploy.py --binary PATH [--prometheus PATH] [--promtool PATH] [--kubectl PATH] [--helm PATH]

Ends with `N passed, N failed`; exits 1 if any failed. A tool that is not there is told of loudly. Run by
scripts/test.sh, which installs the tools; needs PyYAML, kubernetes-validate, compose-spec and websockets.
"""

import argparse
import contextlib
import json
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import tempfile
import tomllib
import urllib.error
import urllib.parse
import urllib.request
import uuid
from functools import partial
from pathlib import Path

import kubernetes_validate
import yaml
from checks import certificate, equal, free_port, over_tls, run_checks
from compose_spec import PyCompose
from server import DEADLINE_S, Server, bare_environment, wait_for
from websockets.sync.client import connect

ROOT = Path(__file__).resolve().parent.parent.parent
DEPLOY = ROOT / "deploy"
OPERATIONS = ROOT / "docs" / "operations.md"
KEY = "0123456789abcdef-third-party"
ADMIN = re.compile(r"admin listener is on (\S+:\d+)")

# The schemas of the oldest and of a late version that the chart is for.
KUBERNETES = ("1.25", "1.34")

# What systemd-analyze gives a unit that may do all is 9.6, and what it calls OK ends at 4.
EXPOSURE_MAX = 1.5

# What there may be nothing to show of on a server that is well.
QUIET = re.compile(r"> 0$|jwks_failures|ALERTS")


# --- What is shared.


def run(*command, **options):
    """Runs a tool to its end. Returns what it has printed; its errors are in the error."""
    options |= {"capture_output": True, "text": True, "timeout": 120, "stdin": subprocess.DEVNULL}
    done = subprocess.run([str(part) for part in command], **options)
    assert done.returncode == 0, f"{command[0]} exits with {done.returncode}:\n{done.stdout}{done.stderr}"
    return done.stdout + done.stderr


def load_yaml(path):
    return yaml.safe_load(path.read_text())


def rules():
    for group in load_yaml(DEPLOY / "prometheus" / "rules.yml")["groups"]:
        yield from group["rules"]


def dashboard():
    return json.loads((DEPLOY / "grafana" / "dashboard.json").read_text())


def dashboard_queries():
    """Yields the title of each panel with each of its queries, and the queries of annotations."""
    for annotation in dashboard()["annotations"]["list"]:
        yield annotation["name"], annotation["expr"]
    for panel in dashboard()["panels"]:
        for target in panel.get("targets", []):
            yield panel["title"], target["expr"]


def check_config(binary, env):
    """Lets the server judge settings. Returns them by name."""
    lines = run(binary, "check-config", env={**bare_environment(), **env}).splitlines()
    return {words[0]: words[1] for words in map(str.split, lines) if len(words) > 1}


def get(url, key=None):
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {key}"} if key else {})
    with urllib.request.urlopen(request, timeout=DEADLINE_S) as answer:
        return answer.read().decode()


def seconds(text):
    """A time of systemd or Compose in seconds: 45s, 1min, 1m30s."""
    parts = re.findall(r"(\d+)(ms|s|min|m|h)?", str(text))
    return sum(int(number) * {"ms": 0.001, "min": 60, "m": 60, "h": 3600}.get(unit, 1) for number, unit in parts)


# --- Prometheus and Grafana.


@contextlib.contextmanager
def busy_server(binary):
    """A server with everything on that has figures of its own, and a few clients that talk. Yields the address of its
    admin listener."""
    with tempfile.TemporaryDirectory() as scratch:
        cert, key = certificate(Path(scratch))
        settings = {"admin_port": 0, "api_key": KEY, "tls_cert": cert, "tls_key": key, "buffer": 4}
        # Nobody listens there: port 9 is for what is thrown away.
        settings |= {"events_url": "http://127.0.0.1:9/", "identity": "optional", "token_hmac_secret": KEY * 2}
        with Server(binary, **settings) as server:
            address = wait_for("admin address in the log", lambda: ADMIN.search(server.log_text())).group(1)
            trust = ssl.create_default_context(cafile=cert)
            connects = partial(connect, server.wss(), ssl=trust, compression=None)
            clients = [server.keep(over_tls(connects)) for _ in range(3)]
            for client in clients:
                client.send('{"content":"hello","echo":true}')
            clients.pop().close()
            yield address
            assert server.process.poll() is None, server.log_text()


def metrics_are_those_of_the_server(address):
    text = get(f"http://{address}/metrics", KEY)
    there = set(re.findall(r"^# TYPE (\S+)", text, re.M)) | set(re.findall(r"^([a-z_]+)", text, re.M))
    tests = load_yaml(DEPLOY / "prometheus" / "rules_test.yml")["tests"]
    used = [(rule["alert"], rule["expr"]) for rule in rules()]
    used += [(test["name"], series["series"]) for test in tests for series in test["input_series"]]
    used += dashboard_queries()
    used += [("variable", v["definition"]) for v in dashboard()["templating"]["list"] if v["type"] == "query"]
    wrong = {
        f"{where}: {name}"
        for where, expr in used
        for name in re.findall(r"\b(?:rusty_socks|process)_[a-z0-9_]+", expr.replace('job="rusty_socks"', ""))
        if name not in there
    }
    assert not wrong, "no such metric:\n" + "\n".join(sorted(wrong))


def alerts_are_explained_and_tested():
    headings = set(re.findall(r"^#+ (.+)$", OPERATIONS.read_text(), re.M))
    told = {rule["alert"]: rule["annotations"]["runbook"] for rule in rules()}
    for alert, runbook in told.items():
        equal(runbook, f"docs/operations.md#{alert.lower()}", f"the runbook of {alert}")
        assert alert in headings, f"docs/operations.md does not say what to do about {alert}"
    cases = [c for t in load_yaml(DEPLOY / "prometheus" / "rules_test.yml")["tests"] for c in t["alert_rule_test"]]
    fired = {case["alertname"] for case in cases if case["exp_alerts"]}
    equal(fired, set(told), "alerts that a test lets fire")


def promtool(program):
    run(program, "check", "rules", DEPLOY / "prometheus" / "rules.yml")
    run(program, "test", "rules", "rules_test.yml", cwd=DEPLOY / "prometheus")


def prometheus(program, address):
    """A Prometheus with the rules and the configuration of deploy/compose: it reads the server, finds each rule good,
    and answers each query of the dashboard."""
    config = load_yaml(DEPLOY / "compose" / "prometheus.yml")
    config["global"] = {"scrape_interval": "1s", "evaluation_interval": "1s"}
    [job] = config["scrape_configs"]
    job["static_configs"] = [{"targets": [address]}]
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        (home / "key").write_text(KEY)
        job["authorization"]["credentials_file"] = str(home / "key")
        equal(config["rule_files"], ["/etc/prometheus/rules.yml"])
        config["rule_files"] = [str(DEPLOY / "prometheus" / "rules.yml")]
        (home / "prometheus.yml").write_text(yaml.safe_dump(config))
        listen = f"127.0.0.1:{free_port()}"
        command = [program, f"--config.file={home / 'prometheus.yml'}", f"--storage.tsdb.path={home / 'data'}"]
        command += [f"--web.listen-address={listen}"]
        with open(home / "log", "w+") as log:
            process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=home)
            try:
                check_prometheus(listen)
            except BaseException:
                print((home / "log").read_text()[-4000:], flush=True)
                raise
            finally:
                process.terminate()
                process.wait(timeout=DEADLINE_S)


def check_prometheus(listen):
    def ask(path, **query):
        answer = json.loads(get(f"http://{listen}/api/v1/{path}?{urllib.parse.urlencode(query)}"))
        equal(answer["status"], "success")
        return answer["data"]

    def query(expr):
        return ask("query", query=expr)["result"]

    def samples():
        with contextlib.suppress(OSError):
            found = query('count_over_time(rusty_socks_build_info{job="rusty_socks"}[1m])')
            return found and int(found[0]["value"][1]) >= 4

    wait_for("samples of the server", samples)
    equal([series["value"][1] for series in query('up{job="rusty_socks"}')], ["1"])

    def judged():
        found = [rule for group in ask("rules")["groups"] for rule in group["rules"]]
        return found if all(rule["health"] != "unknown" for rule in found) else None

    found = wait_for("rules that were evaluated", judged)
    equal({rule["name"] for rule in found}, {rule["alert"] for rule in rules()})
    assert all(rule["health"] == "ok" for rule in found), found
    # Nothing is wrong with the server but its certificate, which holds for two days.
    firing = {alert["labels"]["alertname"] for alert in ask("alerts")["alerts"] if alert["state"] == "firing"}
    equal(firing, {"RustySocksCertificateExpires"}, "alerts that fire")
    empty = []
    for title, expr in dashboard_queries():
        expr = expr.replace("$__rate_interval", "1m").replace("$instance", ".*")
        assert "$" not in expr, f"{title}: {expr}"
        if not query(expr) and not QUIET.search(expr):
            empty.append(f"{title}: {expr}")
    assert not empty, "nothing to show:\n" + "\n".join(empty)


def dashboard_is_whole():
    board = dashboard()
    ids = [panel["id"] for panel in board["panels"]]
    equal(len(ids), len(set(ids)), "numbers of panels")
    taken = set()
    for panel in board["panels"]:
        pos = panel["gridPos"]
        cells = {(x, y) for x in range(pos["x"], pos["x"] + pos["w"]) for y in range(pos["y"], pos["y"] + pos["h"])}
        assert pos["x"] + pos["w"] <= 24 and not cells & taken, f"{panel['title']} lies over another panel"
        taken |= cells
        for target in panel.get("targets", []):
            equal(target["datasource"]["uid"], "${datasource}", f"the source of {panel['title']}")
        assert panel["type"] == "row" or panel.get("description"), f"{panel['title']} has no description"


# --- systemd.


def unit(path):
    """The settings of a unit, each with all its values."""
    found = {}
    for line in path.read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            name, value = line.split("=", 1)
            found.setdefault(name, []).append(value)
    return found


def systemd_units(binary):
    service = unit(DEPLOY / "systemd" / "rusty-socks.service")
    config = DEPLOY / "systemd" / "server.toml"
    settings = tomllib.loads(config.read_text())
    check_config(binary, {"RUSTY_SOCKS_CONFIG": str(config)})
    drain = settings["drain_delay"] + settings["drain_timeout"]
    assert seconds(service["TimeoutStopSec"][0]) >= drain + 5, "TimeoutStopSec ends the drain"
    assert int(service["LimitNOFILE"][0]) > settings["max_conn"] * 2
    [start] = service["ExecStart"]
    equal(start, "/usr/local/bin/rusty_socks --config /etc/rusty_socks/server.toml")
    run(binary, "check-config", *start.replace("/etc/rusty_socks", str(config.parent)).split()[1:])


def systemd_analyze(binary):
    """The units as systemd reads them, with the server where they say that it is."""
    with tempfile.TemporaryDirectory() as scratch:
        for name in ("rusty-socks.service", "rusty-socks.socket"):
            text = (DEPLOY / "systemd" / name).read_text()
            (Path(scratch) / name).write_text(text.replace("/usr/local/bin/rusty_socks", binary))
        units = [Path(scratch) / name for name in ("rusty-socks.service", "rusty-socks.socket")]
        told = run("systemd-analyze", "verify", "--man=no", *units)
        assert scratch not in told and "rusty-socks" not in told, told
        told = run("systemd-analyze", "security", "--no-pager", "--offline=yes", units[0])
        exposure = float(re.search(r"exposure level for \S+: (\d+\.\d+)", told).group(1))
        print(f"   exposure of rusty-socks.service: {exposure} of 10", flush=True)
        assert exposure <= EXPOSURE_MAX, told


@contextlib.contextmanager
def notified(binary, **env):
    """A server that has a service manager. Yields it and a function that gives what the manager was told until now."""
    with tempfile.TemporaryDirectory() as scratch, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as manager:
        manager.bind(f"{scratch}/notify")
        manager.setblocking(False)
        told = []

        def read():
            with contextlib.suppress(BlockingIOError):
                while True:
                    told.extend(manager.recv(4096).decode().split())
            return told

        server = Server(binary)
        server.env |= {"NOTIFY_SOCKET": f"{scratch}/notify", **env}
        with server:
            yield server, read


def systemd_is_told(binary):
    """What the unit says of the server: that it tells when it is ready, feeds a watchdog, survives a reload and stops
    within the time."""
    service = unit(DEPLOY / "systemd" / "rusty-socks.service")
    equal(service["Type"], ["notify"])
    watchdog = {"WATCHDOG_USEC": "1000000"} if "WatchdogSec" in service else {}
    with notified(binary, **watchdog) as (server, told):
        wait_for("READY=1", lambda: "READY=1" in told())
        if watchdog:
            wait_for("three WATCHDOG=1", lambda: told().count("WATCHDOG=1") >= 3)
        if "ExecReload" in service:
            equal(service["ExecReload"][-1], "/bin/kill -HUP $MAINPID")
            server.process.send_signal(signal.SIGHUP)
            wait_for("a second READY=1", lambda: told().count("READY=1") == 2)
            assert any(line.startswith("RELOADING=1") for line in told()), told()
            equal(server.get("/health")[0], 200)
        server.terminate()
        equal(server.exit_code(), 0)
        wait_for("STOPPING=1", lambda: "STOPPING=1" in told())


def system_calls(filters):
    """The calls that SystemCallFilter lets through."""
    sets, name = {}, None
    for line in run("systemd-analyze", "syscall-filter", "--no-pager").splitlines():
        if line.startswith("@"):
            name = line.strip()
            sets[name] = []
        elif line.startswith("    ") and "#" not in line:
            sets[name].append(line.strip())

    def members(name):
        return set().union(*(members(call) if call.startswith("@") else {call} for call in sets[name]))

    allowed = set()
    for line in filters:
        if line.startswith("~"):
            allowed -= set().union(*map(members, line[1:].split()))
        else:
            allowed |= set().union(*map(members, line.split()))
    return allowed


def systemd_lets_the_server_run(strace, binary):
    """The calls of a server from its start to its end, against the filter of the unit."""
    allowed = system_calls(unit(DEPLOY / "systemd" / "rusty-socks.service")["SystemCallFilter"])
    with tempfile.TemporaryDirectory() as scratch:
        home = Path(scratch)
        # -D: the server, and not strace, is the process that gets the signals.
        traced = home / "traced"
        traced.write_text(f'#!/bin/sh\nexec "{strace}" -D -f -qq -o "{home}/calls" "{binary}" "$@"\n')
        traced.chmod(0o700)
        cert, key = certificate(home)
        settings = {"admin_host": f"unix:{home}/admin.sock", "tls_cert": cert, "tls_key": key}
        with Server(traced, **settings) as server:
            trust = ssl.create_default_context(cafile=cert)
            with over_tls(partial(connect, server.wss(), ssl=trust)) as client:
                client.send('{"content":"hello","ref":1}')
                client.recv(timeout=DEADLINE_S)
            server.terminate()
            equal(server.exit_code(), 0)
        used = set(re.findall(r"^\d+ +(\w+)\(", (home / "calls").read_text(), re.M))
    assert {"accept4", "epoll_wait", "prlimit64"} & used, used
    assert used <= allowed, f"the unit forbids {sorted(used - allowed)}"


# --- Containers.


def dockerfile_env():
    return dict(re.findall(r"^ENV (\w+)=(\S+)", (ROOT / "Dockerfile").read_text(), re.M))


def read_compose(path):
    """The services of a Compose file, which must be whole."""
    spec = load_yaml(path)
    # The library does not know what the merge key of YAML is.
    PyCompose.from_yaml(json.dumps(spec)).validate()
    for name, service in spec["services"].items():
        for volume in service.get("volumes", []):
            source = volume.split(":")[0]
            there = (path.parent / source).exists() if source.startswith(".") else source in spec["volumes"]
            assert there, f"{name} mounts {source}, which is not there"
        for secret in service.get("secrets", []):
            assert secret in spec["secrets"], f"{name} has a secret {secret} that is not there"
        assert not service["image"].endswith(":latest") and ":" in service["image"], f"{name} names no version"
    return spec["services"]


def compose_settings(binary, service, config):
    """The settings of a server in a Compose file, which must have the time to drain."""
    env = {**dockerfile_env(), **service["environment"], "RUSTY_SOCKS_CONFIG": str(config)}
    settings = check_config(binary, env)
    drain = float(settings["drain_delay"]) + float(settings["drain_timeout"])
    assert seconds(service["stop_grace_period"]) >= drain + 5, "stop_grace_period ends the drain"
    return settings


def compose(binary):
    path = DEPLOY / "compose" / "compose.yaml"
    server = read_compose(path)["server"]
    with tempfile.TemporaryDirectory() as scratch:
        key = Path(scratch) / "metrics_key"
        key.write_text(KEY)
        config = Path(scratch) / "server.toml"
        config.write_text((path.parent / "server.toml").read_text().replace("/run/secrets", scratch))
        settings = compose_settings(binary, server, config)
        [job] = load_yaml(path.parent / "prometheus.yml")["scrape_configs"]
        equal(job["static_configs"][0]["targets"], [f"server:{settings['admin_port']}"])
        read_with_key(binary, config)


# --- Several servers with Compose, under the Redis, the Sentinel and the HAProxy of this machine.


class Cluster:
    """What deploy/compose/cluster describes, with each name and port of its network on the loopback."""

    def __init__(self, binary, scratch, kept):
        self.binary, self.home, self.kept = binary, Path(scratch), kept
        self.path = DEPLOY / "compose" / "cluster"
        self.services = read_compose(self.path / "compose.yaml")
        self.ports = {name: free_port() for name in self.services}
        (self.home / "metrics_key").write_text(KEY)
        (self.home / "redis_password").write_text(KEY)
        # The address that the file tells its reader to write down.
        [url] = re.findall(r"printf '(\S+)'", (self.path / "compose.yaml").read_text())
        (self.home / "redis_url").write_text(self.moved(url % KEY))

    def moved(self, text):
        """A text of the directory, as it must be here."""
        # The home is below /tmp itself.
        text = text.replace("/tmp/", f"{self.home}/").replace("dir /data", f"dir {self.home}/$name")
        text = text.replace("/run/secrets", str(self.home)).replace("/etc/redis", str(self.path))
        text = text.replace("sentinel:26379", f"127.0.0.1:{self.ports['sentinel']}")
        for name, port in self.ports.items():
            text = text.replace(f"{name}:3030", f"127.0.0.1:{port}").replace(f"{name} 6379", f"127.0.0.1 {port}")
        return text

    def start(self, name, command):
        (self.home / name).mkdir()
        log = self.kept.enter_context(open(self.home / f"{name}.log", "w+"))
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.home / name)

        def stop():
            process.kill()
            process.wait(timeout=DEADLINE_S)

        self.kept.callback(stop)
        return process

    def start_redis(self, name):
        """Starts what the file starts under this name."""
        shell, script, *arguments = self.services[name]["command"]
        [mounted] = [volume for volume in self.services[name]["volumes"] if f":{script}:" in volume]
        text = self.moved((self.path / mounted.split(":")[0]).read_text())
        port = self.ports[name]
        # Here they have no names of their own.
        text = text.replace("replica-announce-ip $name", f"port {port}\nbind 127.0.0.1")
        text = text.replace("sentinel resolve-hostnames", f"port {port}\nbind 127.0.0.1\nsentinel resolve-hostnames")
        local = self.home / f"{name}.sh"
        local.write_text(text)
        arguments = self.moved(" ".join(arguments)).split()
        process = self.start(name, [shell, str(local), *arguments])
        wait_for(f"{name} on its port", lambda: is_open(port))
        return process

    def start_node(self, name):
        """Starts a server with the file; its admin listener is on a port of its own."""
        config = self.home / f"{name}.toml"
        text = self.moved((self.path / "server.toml").read_text())
        config.write_text(text.replace("172.30.30.0/24", "127.0.0.1"))
        compose_settings(self.binary, self.services[name], config)
        settings = {"config": config, "host": "127.0.0.1", "port": self.ports[name], "admin_host": "127.0.0.1"}
        server = self.kept.enter_context(Server(self.binary, **settings, admin_port=0))
        admin = wait_for("admin address in the log", lambda: ADMIN.search(server.log_text())).group(1)
        wait_for(f"{name} ready", lambda: is_ready(admin))
        return server, admin

    def start_proxy(self, admins):
        text = self.moved((self.path / "haproxy.cfg").read_text())
        text = text.replace("bind :3030", f"bind 127.0.0.1:{self.ports['proxy']}").replace("maxconn 20000", "maxconn 100")
        # Their admin listeners have one port in two containers, and two here.
        text = text.replace("check port 3031 ", "check ")
        for name, admin in admins.items():
            place = f"server {name} 127.0.0.1:{self.ports[name]}"
            assert place in text, f"{name} is not behind the proxy"
            text = text.replace(place, f"{place} port {admin.rpartition(':')[2]}")
        config = self.home / "haproxy.cfg"
        config.write_text(text)
        run("haproxy", "-c", "-f", config)
        self.start("proxy", ["haproxy", "-db", "-f", config])
        wait_for("the proxy on its port", lambda: is_open(self.ports["proxy"]))


def is_open(port):
    with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
        return True
    return False


def is_ready(admin):
    with contextlib.suppress(OSError):
        return bool(get(f"http://{admin}/ready"))
    return False


def compose_cluster(binary):
    """Two clients on two nodes behind the proxy hear each other, also after Redis was killed."""
    with tempfile.TemporaryDirectory() as scratch, contextlib.ExitStack() as kept:
        cluster = Cluster(binary, scratch, kept)
        redis = {name: cluster.start_redis(name) for name in ("redis-a", "redis-b", "sentinel")}
        settings = tomllib.loads((cluster.path / "server.toml").read_text())
        assert f"check port {settings['admin_port']} " in (cluster.path / "haproxy.cfg").read_text()
        nodes = {name: cluster.start_node(name) for name in ("node-a", "node-b")}
        cluster.start_proxy({name: admin for name, (_, admin) in nodes.items()})
        url = f"ws://127.0.0.1:{cluster.ports['proxy']}/ws"
        one, other = (kept.enter_context(connect(url, open_timeout=DEADLINE_S)) for _ in range(2))
        at = [json.loads(get(f"http://{admin}/stats"))["active_connections"] for _, admin in nodes.values()]
        equal(at, [1, 1])

        def say(text):
            """Says it in the lobby until that is taken, and waits until the other has heard it."""
            said = str(uuid.uuid4())

            def is_taken():
                one.send(json.dumps({"type": "publish", "content": text, "id": said, "ref": text}))
                while (answer := json.loads(one.recv(timeout=DEADLINE_S))).get("ref") != text:
                    pass
                return answer["type"] == "ok"

            wait_for("a publish that is taken", is_taken)
            while json.loads(other.recv(timeout=DEADLINE_S)).get("content") != text:
                pass

        say("before")
        # The Sentinel must have heard of the replica, and the replica have all there is.
        wait_for("a replica", lambda: "+slave slave" in (cluster.home / "sentinel.log").read_text())
        redis["redis-a"].kill()
        say("after")


def read_with_key(binary, config):
    """Starts the server with a file of deploy/ and reads /metrics as Prometheus does."""
    settings = {"config": config, "admin_host": "127.0.0.1", "admin_port": 0, "host": "127.0.0.1"}
    with Server(binary, **settings) as server:
        address = wait_for("admin address in the log", lambda: ADMIN.search(server.log_text())).group(1)
        for path in ("/health", "/ready"):
            get(f"http://{address}{path}")
        assert "rusty_socks_build_info" in get(f"http://{address}/metrics", KEY)


def kubectl(program, binary):
    docs = list(yaml.safe_load_all(run(program, "kustomize", DEPLOY / "kubernetes")))
    equal(sorted(doc["kind"] for doc in docs), ["ConfigMap", "Deployment", "PodDisruptionBudget", "Service", "Service"])
    check_kubernetes(docs, binary)
    monitor = load_yaml(DEPLOY / "kubernetes" / "servicemonitor.yaml")
    check_monitor(monitor, docs)


def helm(program, binary):
    chart = DEPLOY / "helm" / "rusty-socks"
    run(program, "lint", "--strict", chart)

    def render(*values):
        return list(yaml.safe_load_all(run(program, "template", "chat", chart, *values)))

    docs = [doc for doc in render() if doc]
    equal(sorted(doc["kind"] for doc in docs), ["ConfigMap", "Deployment", "PodDisruptionBudget", "Service", "Service"])
    check_kubernetes(docs, binary)
    everything = {
        "tls": {"secretName": "tls"},
        "env": {"RUSTY_SOCKS_MAX_CONN": 1000000, "RUSTY_SOCKS_PING": 2.5, "RUSTY_SOCKS_ALLOWED_ORIGINS": "*"},
        "secrets": [{"setting": "api_key", "secretName": "keys", "key": "api"}],
        "ingress": {"enabled": True, "host": "chat.example.org", "className": "nginx", "tlsSecretName": "web"},
        "serviceMonitor": {"enabled": True, "labels": {"release": "prometheus"}},
        "drain": {"delay": 30, "timeout": 120},
        "replicas": 2,
        "podLabels": {"team": "chat"},
        "podAnnotations": {"note": "yes"},
        "nodeSelector": {"disk": "ssd"},
        "tolerations": [{"operator": "Exists"}],
        "affinity": {"podAntiAffinity": {}},
        "topologySpreadConstraints": [
            {"maxSkew": 1, "topologyKey": "kubernetes.io/hostname", "whenUnsatisfiable": "ScheduleAnyway"}
        ],
        "priorityClassName": "high",
        "imagePullSecrets": [{"name": "registry"}],
        "service": {"type": "LoadBalancer", "annotations": {"of": "a cloud"}},
    }
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as values:
        yaml.safe_dump(everything, values)
        values.flush()
        docs = [doc for doc in render("--values", values.name) if doc]
    kinds = sorted(doc["kind"] for doc in docs if doc["kind"] not in ("Service", "ConfigMap"))
    equal(kinds, ["Deployment", "Ingress", "PodDisruptionBudget", "ServiceMonitor"])
    settings = check_kubernetes(docs, binary)
    wanted = {"max_conn": "1000000", "ping": "2.5", "drain_timeout": "120", "api_key": "(set)"}
    equal({name: settings[name] for name in wanted}, wanted)
    [monitor] = [doc for doc in docs if doc["kind"] == "ServiceMonitor"]
    check_monitor(monitor, docs)
    refused = {"drian.delay=1": "drian", "env.MAX_CONN=1": "MAX_CONN", "ingress.enabled=true": "ingress.host"}
    for wrong, told in refused.items():
        try:
            run(program, "template", "chat", chart, "--set", wrong)
        except AssertionError as error:
            assert told in str(error), error
        else:
            raise AssertionError(f"{wrong} is accepted")


def check_monitor(monitor, docs):
    """Whether a ServiceMonitor, whose schema is the operator's, finds the admin listener and its key."""
    wanted = monitor["spec"]["selector"]["matchLabels"].items()
    services = [doc for doc in docs if doc["kind"] == "Service" and wanted <= doc["metadata"]["labels"].items()]
    equal(len(services), 1, "services that the monitor finds")
    [endpoint] = monitor["spec"]["endpoints"]
    equal([port["name"] for port in services[0]["spec"]["ports"]], [endpoint["port"]])
    [deployment] = [doc for doc in docs if doc["kind"] == "Deployment"]
    volumes = json.dumps(deployment["spec"]["template"]["spec"]["volumes"])
    assert endpoint["authorization"]["credentials"]["name"] in volumes
    assert {"targetLabel": "job", "replacement": "rusty_socks"} in endpoint["relabelings"]


def check_kubernetes(docs, binary):
    """Holds manifests against the schemas of Kubernetes, and a pod against what the server does. Returns the settings
    that the server would have."""
    for doc in docs:
        if doc["apiVersion"].startswith("monitoring.coreos.com/"):
            continue
        for version in KUBERNETES:
            kubernetes_validate.validate(doc, version, strict=True)
    [deployment] = [doc for doc in docs if doc["kind"] == "Deployment"]
    [configmap] = [doc for doc in docs if doc["kind"] == "ConfigMap"]
    spec = deployment["spec"]["template"]["spec"]
    labels = deployment["spec"]["template"]["metadata"]["labels"].items()
    [server] = spec["containers"]
    equal(spec["enableServiceLinks"], False)

    # What finds the pod.
    ports = {port["name"]: port["containerPort"] for port in server["ports"]}
    selectors = [deployment["spec"]["selector"]["matchLabels"]]
    for doc in docs:
        if doc["kind"] == "Service":
            selectors.append(doc["spec"]["selector"])
            assert all(port["targetPort"] in ports for port in doc["spec"]["ports"]), doc
        if doc["kind"] == "PodDisruptionBudget":
            selectors.append(doc["spec"]["selector"]["matchLabels"])
    assert all(selector.items() <= labels for selector in selectors), selectors

    # The level `restricted` of the pod security standards.
    pod, own = spec["securityContext"], server["securityContext"]
    equal([pod["runAsNonRoot"], pod["seccompProfile"], own["allowPrivilegeEscalation"], own["capabilities"]],
          [True, {"type": "RuntimeDefault"}, False, {"drop": ["ALL"]}])
    equal([pod["runAsUser"], own["readOnlyRootFilesystem"]], [10001, True])

    # The settings, with the files where the server of this check can read them.
    volumes = {volume["name"]: volume for volume in spec["volumes"]}
    with tempfile.TemporaryDirectory() as scratch:
        for mount in server["volumeMounts"]:
            inside = Path(scratch + mount["mountPath"])
            inside.mkdir(parents=True)
            fill(inside, volumes[mount["name"]], configmap, scratch)
        env = {var["name"]: var["value"].replace("/etc/", f"{scratch}/etc/") for var in server["env"]}
        settings = check_config(binary, {**dockerfile_env(), **env})
        read_with_key(binary, env["RUSTY_SOCKS_CONFIG"])
    equal([settings["port"], settings["admin_port"]], [str(ports["ws"]), str(ports["admin"])])
    equal(settings["admin_host"], "0.0.0.0", "the address that the probes reach")

    # Nobody kills a drain.
    drain = float(settings["drain_delay"]) + float(settings["drain_timeout"])
    assert spec["terminationGracePeriodSeconds"] >= drain + 5, "the pod is killed in its drain"
    live, ready = server["livenessProbe"], server["readinessProbe"]
    assert live["periodSeconds"] * live["failureThreshold"] > drain, "liveness fails in a drain"
    assert ready["periodSeconds"] * ready["failureThreshold"] <= float(settings["drain_delay"]), "ready for too long"
    equal(live["httpGet"], {"path": "/health", "port": "admin"})
    equal(ready["httpGet"], {"path": "/ready", "port": "admin"})
    assert server["resources"]["limits"]["memory"] == server["resources"]["requests"]["memory"]
    return settings


def fill(directory, volume, configmap, scratch):
    """Writes what a volume of the cluster would hold."""
    if "configMap" in volume:
        equal(volume["configMap"]["name"], configmap["metadata"]["name"], "the ConfigMap that is mounted")
        for name, text in configmap["data"].items():
            (directory / name).write_text(text.replace("/etc/", f"{scratch}/etc/"))
    elif "projected" in volume:
        for source in volume["projected"]["sources"]:
            for item in source["secret"]["items"]:
                # No two keys of the API may be the same.
                (directory / item["path"]).write_text(KEY if item["path"] == "metrics" else KEY + item["path"])
    elif volume["name"] == "tls":
        cert, key = certificate(directory)
        shutil.move(cert, directory / "tls.crt")
        shutil.move(key, directory / "tls.key")
    else:
        (directory / "metrics.key").write_text(KEY)


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--binary", required=True)
    for tool in ("prometheus", "promtool", "kubectl", "helm"):
        parser.add_argument(f"--{tool}")
    args = parser.parse_args()
    # Some run in a directory of their own.
    for name, path in vars(args).items():
        setattr(args, name, path and str(Path(path).resolve()))
    checks = [
        ("alerts are explained and tested", alerts_are_explained_and_tested),
        ("the dashboard is whole", dashboard_is_whole),
        ("systemd: what the units say of the server", partial(systemd_units, args.binary)),
        ("systemd: what the server tells it", partial(systemd_is_told, args.binary)),
        ("compose", partial(compose, args.binary)),
    ]

    def with_tool(program, what, name, check):
        if program:
            checks.append((name, check))
        else:
            print(f"!!! {what} WAS NOT CHECKED: there is no {name}", flush=True)

    has_all = all(map(shutil.which, ("redis-server", "haproxy")))
    with_tool(has_all, "deploy/compose/cluster", "redis-server, or no haproxy", partial(compose_cluster, args.binary))
    with_tool(args.promtool, "deploy/prometheus", "promtool", partial(promtool, args.promtool))
    analyze = shutil.which("systemd-analyze")
    with_tool(analyze, "deploy/systemd", "systemd-analyze", partial(systemd_analyze, args.binary))
    strace = analyze and shutil.which("strace")
    check = partial(systemd_lets_the_server_run, strace, args.binary)
    with_tool(strace, "SystemCallFilter", "strace", check)
    with_tool(args.kubectl, "deploy/kubernetes", "kubectl", partial(kubectl, args.kubectl, args.binary))
    with_tool(args.helm, "deploy/helm", "helm", partial(helm, args.helm, args.binary))
    with busy_server(args.binary) as address:
        checks.append(("metrics are those of the server", partial(metrics_are_those_of_the_server, address)))
        with_tool(args.prometheus, "the dashboard", "prometheus", partial(prometheus, args.prometheus, address))
        return run_checks(checks)


if __name__ == "__main__":
    sys.exit(main())
