"""Content that the server passes on and others cannot take."""

import json
import re
import subprocess
import tempfile
import time
from pathlib import Path

from .. import wire
from . import attack

JS_CLIENT = Path(__file__).resolve().parents[3] / "clients/js/index.js"
# An application that takes its time, so that messages wait. With the usual bound of 64 MiB the
# same takes 16 MiB of poison; an error that nobody catches ends it.
JS_READER = """
const { Client } = await import(process.argv[1]);
const client = new Client(process.argv[2], { queueBytesMax: 256 * 1024 });
await client.ready;
console.log('ready');
for await (const message of client) {
  console.log('got ' + (message.content === 'last' ? 'last' : 'another'));
  if (message.content === 'last') process.exit(0);
  await new Promise((resolve) => setTimeout(resolve, 50));
}
"""
READ_S_MAX = 8
# How often the poison is said, before a harmless last word: one error more would close the stranger.
POISONS = 9


def listen(scene, kind):
    """Starts a client of the project's own; it ends when it has heard the content 'last'."""
    url, count = "ws://{}:{}/ws".format(*scene.address), str(POISONS + 1)
    run = {
        "javascript": ["node", "--input-type=module", "-e", JS_READER, str(JS_CLIENT), url],
        "rust": [scene.binary, "connect", "--json", "--count", count, "--wait", "6", url],
    }[kind]
    said = tempfile.TemporaryFile()
    process = subprocess.Popen(
        run, stdin=subprocess.DEVNULL, stdout=said, stderr=subprocess.STDOUT
    )
    return process, said


def publish_and_see(scene, poison):
    """Publishes the poison and then 'last'. Says of each kind of client what it made of them."""
    readers = {}
    for kind in ("javascript", "rust"):
        try:
            readers[kind] = listen(scene, kind)
        except OSError:
            scene.fact(kind, "not installed")
    python = scene.client(source="127.3.0.9")
    wait_for_members(scene, python, len(readers) + 1)
    with scene.measured():
        stranger = scene.stranger()
        for _ in range(POISONS):
            stranger.sendall(wire.frame(poison))
            time.sleep(0.02)
        stranger.sendall(wire.command(content="last"))
        time.sleep(1)
        passed, outcome = python_reads(python)
        scene.fact("passed_on", passed)
        scene.fact("python", outcome)
        for kind, (process, said) in readers.items():
            try:
                process.wait(READ_S_MAX)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
            said.seek(0)
            scene.fact(kind, judged(said.read().decode(errors="replace"), passed))


def judged(said, passed):
    """Whether a client has read everything that the server passed on, and lived."""
    lines = [line for line in said.splitlines() if line.startswith(("got ", "{"))]
    if len(lines) >= passed and any("last" in line for line in lines):
        return "well"
    errors = [line[:80] for line in said.splitlines() if re.match(r"\w*Error: ", line)]
    return f"{len(lines)} of {passed} read" + "".join(f"; {error}" for error in errors[:1])


def wait_for_members(scene, client, count):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if client.ask(type="presence", room="lobby")["count"] >= count:
            return
        time.sleep(0.1)


def python_reads(client):
    """How many messages came, and whether Python's `json` reads each and can write it again."""
    passed, errors, last = 0, set(), False
    client.sock.settimeout(1)
    try:
        while not last:
            for payload in client.read():
                passed += b'"type":"message"' in payload
                last |= b'"content":"last"' in payload
                try:
                    json.dumps(json.loads(payload), ensure_ascii=False).encode()
                except (RecursionError, ValueError) as error:
                    errors.add(type(error).__name__)
    except (OSError, wire.Closed) as error:
        errors.add(type(error).__name__)
    return passed, ", ".join(sorted(errors)) or "well"


@attack("deep-json", "content nested 30,000 deep")
def deep_json(scene):
    publish_and_see(scene, b'{"content":' + b"[" * 30_000 + b"]" * 30_000 + b"}")


@attack("surrogate", "(no attack) a message whose `sender` is a lone surrogate")
def surrogate(scene):
    publish_and_see(scene, b'{"sender":"\\ud800","content":"hello"}')
