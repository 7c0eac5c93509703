"""Hosts on this machine: network namespaces, or two addresses where those can't be made."""

import os
import signal
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

INSIDE = "TUTELAGE_INSIDE"  # this process has namespaces of its own
OWN = {
    "TUTELAGE_SILENCE": "5",
    "TORCH_DISABLE_SHARE_RDZV_TCP_STORE": "1",  # without which torch 2.15 waits in vain for who
}  # joins later: the first host doesn't say again where it is
PATIENCE = ["keep_alive_interval=1", "keep_alive_max_attempt=3", "last_call_timeout=2"]


@dataclass
class Host:
    """A network namespace, or an address, with a torchrun."""

    name: str
    address: str
    device: str
    apart: bool  # whether it is a namespace
    logs: Path
    torchrun: "subprocess.Popen[bytes] | None" = None
    starts: int = 0

    def begin(self, endpoint: str, words: list[str]) -> None:
        """Begin torchrun."""
        self.starts += 1
        keeps = endpoint.startswith(self.address)  # the store through which they meet
        within = ["ip", "netns", "exec", self.name] if self.apart else []
        launch = [
            "--nnodes=1:2", "--nproc-per-node=1", "--max-restarts=5", "--rdzv-backend=c10d",
            f"--rdzv-endpoint={endpoint}", f"--local-addr={self.address}", "--rdzv-id=hosts",
            f"--rdzv-conf={','.join([*PATIENCE, f'is_host={int(keeps)}'])}",
            "--monitor-interval=0.2",
        ]  # fmt: skip
        with (self.logs / f"{self.name}{self.starts}.log").open("wb") as log:
            self.torchrun = subprocess.Popen(
                [*within, sys.executable, "-m", "torch.distributed.run", *launch, "-m", "tutelage",
                 *words],
                stdout=log, stderr=log,
                env=os.environ | OWN | {"GLOO_SOCKET_IFNAME": self.device},
            )  # fmt: skip

    def workers(self) -> list[int]:
        """The numbers of its training processes."""
        assert self.torchrun is not None
        rows = Path("/proc").glob("[0-9]*/stat")
        return [int(row.parent.name) for row in rows if _parent(row) == self.torchrun.pid]

    def kill(self) -> None:
        """kill -9 of all its processes."""
        if self.torchrun is None:
            return
        for one in self.workers():
            os.kill(one, signal.SIGKILL)
        self.torchrun.kill()
        self.torchrun.wait()

    def fall_silent(self) -> None:
        """Without a word to anybody."""
        if self.apart:
            subprocess.run(["ip", "link", "set", f"to-{self.name}", "down"], check=True)
        elif self.torchrun is not None:
            for one in (*self.workers(), self.torchrun.pid):
                os.kill(one, signal.SIGSTOP)

    def come_back(self) -> None:
        """Its link is up."""
        if self.apart:
            subprocess.run(["ip", "link", "set", f"to-{self.name}", "up"], check=True)


def _parent(stat: Path) -> int:
    try:
        return int(stat.read_text().rpartition(")")[2].split()[1])
    except (OSError, IndexError):  # it has ended meanwhile
        return 0


def in_namespaces(program: str, arguments: list[str]) -> int | None:
    """A program's exit code in namespaces of its own; None where they can't be made."""
    wrap = ["unshare", "--user", "--map-root-user", "--net", "--mount", "--"]
    for prefix in ([wrap[0], *wrap[3:]], wrap):
        try:
            probe = [*prefix, "sh", "-c", "mount -t tmpfs tmpfs /run && ip netns add probe"]
            if subprocess.run(probe, capture_output=True).returncode == 0:
                command = [*prefix, sys.executable, "-m", program, *arguments]
                return subprocess.run(command, env=os.environ | {INSIDE: "1"}).returncode
        except FileNotFoundError:
            return None
    return None


def hosts(logs: Path) -> list[Host]:
    """The two of them; their namespaces end with this process."""
    if INSIDE not in os.environ:
        return [Host(name, f"127.0.0.{i}", "lo", False, logs) for name, i in (("a", 2), ("b", 3))]
    lines = ["mount -t tmpfs tmpfs /run", "ip link set lo up", "ip link add br0 type bridge",
             "ip link set br0 up"]  # fmt: skip
    found = []
    for name, address in (("a", "10.77.0.1"), ("b", "10.77.0.2")):
        lines += [
            f"ip netns add {name}",
            f"ip link add to-{name} type veth peer name eth0 netns {name}",
            f"ip link set to-{name} master br0 up",
            f"ip -n {name} addr add {address}/24 dev eth0",
            f"ip -n {name} link set eth0 up", f"ip -n {name} link set lo up",
        ]  # fmt: skip
        found.append(Host(name, address, "eth0", True, logs))
    for line in lines:
        subprocess.run(line.split(), check=True)
    return found


def is_asked_to_stop(process: int) -> bool:
    """Whether a SIGTERM waits for a stopped process."""
    rows = dict(line.split(":\t", 1) for line in
                Path(f"/proc/{process}/status").read_text().splitlines())  # fmt: skip
    return bool(int(rows["ShdPnd"], 16) >> (signal.SIGTERM - 1) & 1)
