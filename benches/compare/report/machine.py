"""What was measured on, and with which versions of everything."""

import datetime
import json
import os
import platform
import re
import subprocess
import time
from pathlib import Path

COMPARE = Path(__file__).resolve().parent.parent
ROOT = COMPARE.parent.parent
# Limits of the kernel that a server meets, as `/proc/sys` has them.
KERNEL_LIMITS = (
    "fs.nr_open",
    "net.core.somaxconn",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_mem",
    "net.ipv4.tcp_wmem",
    "net.netfilter.nf_conntrack_max",
)


def describe(pins):
    return {
        "date": datetime.datetime.now(datetime.timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
        "commit": said("git", "-C", str(ROOT), "describe", "--always", "--dirty"),
        "cpu": processor(),
        "cores": os.cpu_count(),
        "memory_gib": round(memory_kib() / 1024**2, 1),
        "kernel": f"{platform.system()} {platform.release()} {platform.machine()}",
        # What else ran: the figures have its company in them.
        "busy_at_start": round(cores_busy(), 2),
        "pins": pins,
        "versions": versions(),
    }


def kernel_limits():
    """Each limit by name, as the numbers it has. What this kernel does not have is left out."""
    found = {}
    for name in KERNEL_LIMITS:
        path = Path("/proc/sys") / name.replace(".", "/")
        try:
            found[name] = [int(number) for number in path.read_text().split()]
        except (OSError, ValueError):
            continue
    return found


def cores_busy(seconds=2):
    """How many cores had something to do, on an average over so long."""

    def ticks():
        fields = [int(field) for field in Path("/proc/stat").read_text().split("\n")[0].split()[1:9]]
        idle = fields[3] + fields[4]
        return sum(fields), idle

    (total, idle), _ = ticks(), time.sleep(seconds)
    later_total, later_idle = ticks()
    passed = later_total - total
    return os.cpu_count() * (1 - (later_idle - idle) / passed) if passed else 0.0


def said(*command):
    """The first line a command prints, or None when it cannot be run."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip().split("\n")[0] or None


def processor():
    text = Path("/proc/cpuinfo").read_text()
    fields = dict(re.findall(r"^([^\t:]+)\s*: (.*)$", text, re.MULTILINE))
    name = fields.get("model name", platform.processor() or "unknown")
    family = [fields.get(key) for key in ("cpu family", "model")]
    if all(family):
        name += f" (family {family[0]}, model {family[1]})"
    return name + (", a virtual machine" if "hypervisor" in fields.get("flags", "") else "")


def memory_kib():
    return int(re.search(r"MemTotal:\s+(\d+)", Path("/proc/meminfo").read_text())[1])


def versions():
    found = {"rustc": (said("rustc", "--version") or "").removeprefix("rustc ") or None}
    ours = locked(ROOT / "Cargo.lock")
    theirs = locked(COMPARE / "Cargo.lock")
    found["rusty_socks"] = ours.get("rusty_socks")
    for name in ("tungstenite", "mio"):
        found[f"{name} (in rusty_socks)"] = ours.get(name)
    for name in ("tokio", "tokio-tungstenite", "fastwebsockets", "hyper", "axum", "mio"):
        found[name] = theirs.get(name)
    found["node"] = said("node", "--version")
    for name in ("ws", "uwebsockets"):
        package = COMPARE / "npm" / "node_modules" / name / "package.json"
        found[f"{name} (npm)"] = json.loads(package.read_text())["version"] if package.exists() else None
    return {name: version for name, version in found.items() if version}


def locked(path):
    """The versions in a Cargo.lock; all of them, where a crate is there more than once."""
    found = {}
    for name, version in re.findall(r'name = "([^"]+)"\nversion = "([^"]+)"', path.read_text()):
        found[name] = f"{version} and {found[name]}" if name in found else version
    return found
