"""The operator's backend: it allows everything that hooks ask, and counts events."""

import collections
import hashlib
import hmac
import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

# How old a signed request may be.
AGE_S_MAX = 60


class Backend:
    """Serves for the length of a `with`. `counts` has what came, by name."""

    def __init__(self, secret):
        self.counts = collections.Counter()
        self.batches = set()
        self.lock = threading.Lock()
        self.secret = secret.encode()
        self.server = ThreadingHTTPServer(("127.0.0.1", 0), self._handler())
        self.server.daemon_threads = True
        self.thread = threading.Thread(target=self.server.serve_forever, daemon=True)

    def __enter__(self):
        self.thread.start()
        return self

    def __exit__(self, *_):
        self.server.shutdown()
        self.server.server_close()

    def url(self, path):
        return f"http://127.0.0.1:{self.server.server_address[1]}{path}"

    def is_signed(self, header, body):
        sent = dict(part.split("=", 1) for part in header.split(","))
        signed = hmac.new(self.secret, f"{sent['t']}.".encode() + body, hashlib.sha256)
        is_fresh = abs(time.time() - int(sent["t"])) < AGE_S_MAX
        return is_fresh and hmac.compare_digest(signed.hexdigest(), sent["v1"])

    def take(self, said):
        with self.lock:
            if "batch" not in said:
                self.counts[f"asked {said['event']}"] += 1
                return
            # One that was sent again is the same one.
            if said["batch"] in self.batches:
                self.counts["repeated batches"] += 1
                return
            self.batches.add(said["batch"])
            self.counts["dropped"] += said["dropped"]
            for event in said["events"]:
                self.counts[event["event"]] += 1

    def _handler(backend):
        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"
            # An answer is two writes.
            wbufsize = -1
            disable_nagle_algorithm = True

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                is_signed = backend.is_signed(self.headers["Rusty-Socks-Signature"], body)
                if is_signed:
                    backend.take(json.loads(body))
                else:
                    backend.counts["not signed"] += 1
                answer = b'{"allow":true}'
                self.send_response(200 if is_signed else 401)
                self.send_header("Content-Length", str(len(answer)))
                self.end_headers()
                self.wfile.write(answer)

            def log_message(self, *_):
                pass

        return Handler
