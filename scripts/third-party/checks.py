"""What programs with servers share: a certificate and a port for them, and how checks are run and told of."""

import socket
import subprocess
import time
import traceback


def certificate(directory):
    """Makes a certificate for this machine that holds for two days. Returns the paths of it and of its key."""
    cert, key = directory / "cert.pem", directory / "key.pem"
    make = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=localhost"
    make = [*make.split(), "-addext", "subjectAltName=IP:127.0.0.1,DNS:localhost"]
    subprocess.run([*make, "-keyout", key, "-out", cert], check=True, capture_output=True)
    return cert, key


def free_port():
    """Finds a port of the loopback that nobody has. Somebody else may have it a moment later."""
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return taken.getsockname()[1]


def equal(got, wanted, what="value"):
    assert got == wanted, f"{what} is {got!r}, not {wanted!r}"


def run_checks(checks):
    """Runs pairs of a name and a function, with a line for each and `N passed, N failed` at the end. Returns
    the exit code."""
    passed = failed = 0
    for name, run in checks:
        began = time.monotonic()
        try:
            run()
            passed += 1
            verdict = "ok    "
        except Exception:
            failed += 1
            verdict = "FAILED"
            traceback.print_exc()
        print(f"   {verdict} {name} ({time.monotonic() - began:.1f} s)", flush=True)
    print(f"{passed} passed, {failed} failed", flush=True)
    return 1 if failed else 0


# How often a client of `websockets.sync` tries over TLS.
TRIES = 3


def over_tls(connect):
    """What `connect` returns. Such a client reads in one thread and writes in another, which the `ssl` of older
    Pythons does not bear in the first moment: one request in a thousand is lost, with any server, and the server
    says 408 to who asks nothing."""
    for tries_left in reversed(range(TRIES)):
        try:
            return connect()
        except TimeoutError:
            if not tries_left:
                raise
        except Exception as error:
            response = getattr(error, "response", None)
            if not tries_left or getattr(response, "status_code", None) != 408:
                raise
    return None
