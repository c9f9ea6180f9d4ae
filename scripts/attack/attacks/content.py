"""Content that the server passes on and others cannot take."""

import json
import subprocess
import time
from pathlib import Path

from .. import wire
from . import attack

JS_CLIENT = Path(__file__).resolve().parents[3] / "clients/js/index.js"
# Says a line for each message, as an application does; an error that nobody catches ends it.
JS_READER = """
const { Client } = await import(process.argv[1]);
const client = new Client(process.argv[2]);
await client.ready;
console.log('ready');
for await (const message of client) {
  console.log('got ' + JSON.stringify(message.content).length);
  if (message.content === 'last') process.exit(0);
}
"""
READ_S_MAX = 8


def listen(scene, kind):
    """Starts a client of the project's own; it ends when it has heard the content 'last'."""
    url = "ws://{}:{}/ws".format(*scene.address)
    run = {
        "javascript": ["node", "--input-type=module", "-e", JS_READER, str(JS_CLIENT), url],
        "rust": [scene.binary, "connect", "--json", "--count", "2", "--wait", "6", url],
    }[kind]
    return subprocess.Popen(
        run, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )


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
        stranger.sendall(wire.frame(poison) + wire.command(content="last"))
        time.sleep(1)
        scene.fact("python", python_reads(python))
        for kind, reader in readers.items():
            try:
                said, _ = reader.communicate(timeout=READ_S_MAX)
            except subprocess.TimeoutExpired:
                reader.kill()
                said = reader.communicate()[0] + "did not hear it"
            heard_all = '"last"' in said if kind == "rust" else "got 6" in said
            lines = [line for line in said.splitlines() if "got " in line or '"content"' in line]
            error = next((line.strip() for line in said.splitlines() if "Error" in line), "")
            scene.fact(kind, f"{len(lines)} of 2 read; {'well' if heard_all else error[:80] or 'ended'}")


def wait_for_members(scene, client, count):
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        if client.ask(type="presence", room="lobby")["count"] >= count:
            return
        time.sleep(0.1)


def python_reads(client):
    """How many of two messages Python's `json` reads, and whether what it read can be passed on."""
    read = 0
    client.sock.settimeout(1)
    try:
        while read < 2:
            for payload in client.read():
                said = json.loads(payload)
                json.dumps(said, ensure_ascii=False).encode()
                read += said["type"] == "message"
    except (RecursionError, ValueError, OSError) as error:
        return f"{read} of 2 read; {type(error).__name__}"
    return "2 of 2 read; well"


@attack("deep-json", "content nested 30,000 deep")
def deep_json(scene):
    publish_and_see(scene, b'{"content":' + b"[" * 30_000 + b"]" * 30_000 + b"}")


@attack("surrogate", "(no attack) a message whose `sender` is a lone surrogate")
def surrogate(scene):
    publish_and_see(scene, b'{"sender":"\\ud800","content":"hello"}')
