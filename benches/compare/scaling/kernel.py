"""The limits of this machine's kernel, as they are when the measurement begins."""

from pathlib import Path

NAMES = [
    "fs.nr_open",
    "fs.file-max",
    "fs.epoll.max_user_watches",
    "net.core.somaxconn",
    "net.ipv4.ip_local_port_range",
    "net.ipv4.tcp_max_syn_backlog",
    "net.ipv4.tcp_mem",
    "net.ipv4.tcp_rmem",
    "net.ipv4.tcp_wmem",
    "net.netfilter.nf_conntrack_max",
    "kernel.threads-max",
]


def limits():
    """Each by name, as the numbers it has. What this kernel does not have is left out."""
    found = {}
    for name in NAMES:
        path = Path("/proc/sys") / name.replace(".", "/")
        try:
            found[name] = [int(number) for number in path.read_text().split()]
        except (OSError, ValueError):
            continue
    return found
