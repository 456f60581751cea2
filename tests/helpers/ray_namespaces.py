"""A Ray cluster of several nodes on one machine, each in its own network namespace; needs root, `ip`, `unshare`.

All namespaces are connected to one bridge, which is in a namespace too: nothing outside is changed or reachable. Each
node has its own address, 10.77.0.2 and so on, and its own folder for Ray's sessions.
"""

from __future__ import annotations

import os
import secrets
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

MINIMAL = """
import sys
sys.modules["ray.dashboard.optional_deps"] = None  # as if ray[default] were not installed: fewer processes
"""
HEAD = """
import time, ray
address, folder, cpus = sys.argv[1:]
context = ray.init(address="local", _node_ip_address=address, _temp_dir=folder, num_cpus=int(cpus), num_gpus=0,
                   object_store_memory=100_000_000, include_dashboard=False, log_to_driver=False)
print("Ray runtime started at", context.address_info["gcs_address"], flush=True)
while True:
    time.sleep(60)
"""
SECONDS = 180.0
"""Time limit for the start or the stop of a node."""


def ran(*command: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(command, capture_output=True, text=True, check=False)


@cache
def refused() -> str:
    """Return why this machine allows no namespaces; "" if it allows them."""
    if os.geteuid() != 0:
        return "network namespaces need root"
    if not (shutil.which("ip") and shutil.which("unshare")):
        return "ip (iproute2) or unshare (util-linux) is not installed"
    for command in (["unshare", "-m", "-n", "true"], ["ip", "netns", "list"]):
        tried = ran(*command)
        if tried.returncode:
            return f"{' '.join(command)}: {tried.stderr.strip()[:200]}"
    name = f"probe-{secrets.token_hex(3)}"
    tried = ran("ip", "netns", "add", name)
    ran("ip", "netns", "del", name)
    return f"ip netns add: {tried.stderr.strip()[:200]}" if tried.returncode else ""


def ip(*arguments: str, inside: str = "") -> None:
    done = ran("ip", *(["-n", inside] if inside else []), *arguments)
    assert done.returncode == 0, f"ip {' '.join(arguments)}: {done.stderr}"


@dataclass
class Node:
    """A node: a namespace, and its process `ray start --block` once it is started."""

    namespace: str
    address: str
    folder: Path
    process: subprocess.Popen[bytes] | None = None

    def command(self, *arguments: str, hidden: Path | None = None) -> list[str]:
        """Return the command that runs inside the node; the folder `hidden` is empty for it."""
        inside = ["ip", "netns", "exec", self.namespace]
        if hidden:
            mounted = f'mount -t tmpfs none "{hidden}" && exec "$@"'
            return [*inside, "unshare", "-m", "sh", "-c", mounted, "sh", *arguments]
        return [*inside, *arguments]


@dataclass
class Namespaces:
    """The nodes, and the resources to remove at the end."""

    name: str
    folder: Path
    nodes: list[Node] = field(default_factory=list)
    address: str = ""

    def node(self) -> Node:
        """Create a namespace with an address, without Ray."""
        number = len(self.nodes) + 2
        made = Node(f"{self.name}-{number}", f"10.77.0.{number}", self.folder / str(number))
        made.folder.mkdir(parents=True)
        ip("netns", "add", made.namespace)
        self.nodes.append(made)
        ip(
            "link",
            "add",
            "eth0",
            "type",
            "veth",
            "peer",
            "name",
            f"port{number}",
            "netns",
            self.name,
            inside=made.namespace,
        )
        ip("link", "set", f"port{number}", "master", "bridge", "up", inside=self.name)
        ip("address", "add", f"{made.address}/24", "dev", "eth0", inside=made.namespace)
        for device in ("lo", "eth0"):
            ip("link", "set", device, "up", inside=made.namespace)
        return made

    def start(self, node: Node, cpus: int, *, hidden: Path | None = None) -> None:
        """Start Ray on `node`: the head on the first node, which the others join. Retry, since Ray may time out."""
        for attempt in range(4):
            if self._started(node, self._command(node, cpus), hidden):
                return
            self.kill(node)
            if attempt == 3:
                raise AssertionError((node.folder / "ray-start.txt").read_text(errors="replace"))

    def _command(self, node: Node, cpus: int) -> list[str]:
        if node is self.nodes[0]:  # lighter than `ray start --head`
            return [sys.executable, "-c", MINIMAL + HEAD, node.address, str(node.folder), str(cpus)]
        return [
            sys.executable, "-c", MINIMAL + "from ray.scripts.scripts import main; sys.exit(main())",
            "start", f"--address={self.address}", f"--node-ip-address={node.address}", f"--num-cpus={cpus}",
            "--num-gpus=0", f"--temp-dir={node.folder}", "--object-store-memory=100000000", "--block",
            "--disable-usage-stats",
        ]  # fmt: skip

    def _started(self, node: Node, command: list[str], hidden: Path | None) -> bool:
        output, until = node.folder / "ray-start.txt", time.monotonic() + SECONDS
        with output.open("wb") as log:
            node.process = subprocess.Popen(
                node.command(*command, hidden=hidden), stdout=log, stderr=subprocess.STDOUT, start_new_session=True
            )
        while time.monotonic() < until and node.process.poll() is None:
            text = output.read_text(errors="replace")
            if "Ray runtime started" in text:
                if node is self.nodes[0]:
                    self.address = next(line.split()[-1] for line in text.splitlines() if "runtime started" in line)
                return True
            time.sleep(0.1)
        return False

    def kill(self, node: Node) -> None:
        """Kill all processes of `node` at once, as in a power failure."""
        listed = ran("ip", "netns", "pids", node.namespace)
        for process in listed.stdout.split():
            try:
                os.kill(int(process), signal.SIGKILL)
            except ProcessLookupError:
                continue
        if node.process:
            node.process.wait(SECONDS)
            node.process = None


@contextmanager
def namespaces() -> Iterator[Namespaces]:
    """Create the bridge; remove all namespaces, their processes and folders at the end."""
    made = Namespaces(
        f"rt{secrets.token_hex(2)}", Path(tempfile.mkdtemp(prefix="rns"))
    )  # short: Ray makes sockets in it
    ip("netns", "add", made.name)
    try:
        ip("link", "add", "bridge", "type", "bridge", inside=made.name)
        ip("link", "set", "bridge", "up", inside=made.name)
        yield made
    finally:
        for node in reversed(made.nodes):
            made.kill(node)
            ran("ip", "netns", "del", node.namespace)
        ran("ip", "netns", "del", made.name)
        shutil.rmtree(made.folder, ignore_errors=True)
