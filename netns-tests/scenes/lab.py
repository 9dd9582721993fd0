"""A small data centre of network namespaces: hosts, pods, and the calls a runtime would make.

Everything here is real: namespaces, links, executables, cnitool. It expects to run under tools/isolated,
so what a test leaves behind harms nobody; each test still proves that it leaves nothing.
"""

from __future__ import annotations

import hashlib
import itertools
import json
import os
import re
import sqlite3
import subprocess
import time
from collections.abc import Callable
from contextlib import closing
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from threading import current_thread, main_thread
from typing import Any, TypeVar

from warm import MODE, Nursery, Transcript, stop

ROOT = Path(__file__).resolve().parents[2]
BIN_DIR = Path(os.environ.get("CNI_BIN_DIR", ROOT / ".venv/cni-bin"))
AGENT_CNI = ROOT / ".venv/bin/agent-cni"
CNITOOL = ROOT / ".cache/bin/cnitool"
REFERENCE_DIR = Path("/usr/lib/cni")

#: What a busy machine may take for something that is expected, in seconds: a bound, never a wait.
PATIENCE = 60

N = TypeVar("N", bound="Namespace")


@cache
def nursery() -> Nursery:
    """Where the agents of this process's hosts come from."""
    return Nursery(ROOT / ".venv/bin/python3")


#: Where an installation finds what it needs without a network.
OFFLINE = os.environ | {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": str(ROOT / ".cache/wheels")}


def sh(*argv: object, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
    """Run a program; its output is in the error when it fails."""
    done = subprocess.run(
        list(map(str, argv)), capture_output=True, encoding="utf-8", errors="surrogateescape", check=False, **options
    )
    if check and done.returncode:
        raise AssertionError(f"{' '.join(map(str, argv))} -> {done.returncode}\n{done.stdout}{done.stderr}")
    return done


def everything(folder: Path) -> dict[str, tuple[int, bytes]]:
    """Each file, link and folder with its mode and content."""
    found = {}
    for item in folder.rglob("*"):
        content = bytes(item.readlink()) if item.is_symlink() else item.read_bytes() if item.is_file() else b""
        found[str(item.relative_to(folder))] = (item.lstat().st_mode, content)
    return found


#: Rows of a bridge that the kernel has by itself: of groups, and what it learned, which goes a second after a port is down.
_KERNELS = re.compile(r"33:33:|01:00:5e:|.* master \S+ *$")


def eventually(seen: Callable[[], Any], seconds: float = PATIENCE) -> Any:
    """Ask until the answer is true, with a bound, and less often the longer it takes: others wait for the processor; the last answer."""
    began = time.monotonic()
    while not (answer := seen()) and (waited := time.monotonic() - began) < seconds:
        time.sleep(min(0.005 + waited / 20, 0.1))
    return answer


def environment(verb: str, pod: Pod | None, container: str = "", ifname: str = "eth0") -> dict[str, str]:
    """The environment a runtime gives a plugin."""
    return {
        "CNI_COMMAND": verb,
        "CNI_CONTAINERID": container or (pod.container if pod else "unknown"),
        "CNI_NETNS": pod.path if pod else "",
        "CNI_IFNAME": ifname,
        "CNI_PATH": f"{BIN_DIR}:{REFERENCE_DIR}",
        "PATH": os.environ["PATH"],
    }


@dataclass
class Answer:
    """What a plugin said: exit code, the one JSON document on stdout, stderr."""

    code: int
    stdout: str
    stderr: str

    @property
    def json(self) -> dict[str, Any]:
        """Stdout must be exactly one JSON document."""
        return json.loads(self.stdout)

    def ok(self) -> dict[str, Any]:
        """The result; fails with the plugin's own words."""
        assert self.code == 0, f"{self.stdout}{self.stderr}"
        return self.json if self.stdout.strip() else {}

    def failed(self, code: int) -> str:
        """The message of an error that must have this CNI code."""
        assert self.code != 0, f"succeeded: {self.stdout}"
        assert self.json["code"] == code, self.stdout
        assert self.json["cniVersion"], self.stdout
        return self.json["msg"]


@dataclass
class Namespace:
    """A named network namespace."""

    name: str
    loopback = True

    @property
    def path(self) -> str:
        return f"/run/netns/{self.name}"

    def create(self) -> None:
        """Make it, with `lo` up unless it is to have no loopback."""
        sh("ip", "netns", "add", self.name)
        if self.loopback:
            sh("ip", "-n", self.name, "link", "set", "lo", "up")

    def delete(self) -> None:
        sh("ip", "netns", "del", self.name, check=False)  # a test may have done so

    def run(self, *argv: object, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        return sh("nsenter", f"--net={self.path}", *argv, check=check, **options)

    def start(self, *argv: object) -> subprocess.Popen[str]:
        """A program that goes on; used with `with`, which waits for its end."""
        command = ["nsenter", f"--net={self.path}", *map(str, argv)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def ip(self, *argv: object, family: int = 4) -> list[dict[str, Any]]:
        """`ip -j` in this namespace."""
        out = sh("ip", f"-{family}", "-n", self.name, "-d", "-j", *argv).stdout
        return [item for item in json.loads(out or "[]") if item]

    def link(self, name: str) -> dict[str, Any] | None:
        return next((item for item in self.ip("link", "show") if item["ifname"] == name), None)

    def addresses(self, link: str) -> set[str]:
        """Addresses with prefix that anybody may use: link-local ones and a proxy's (deprecated) are left out."""
        return self.all_addresses("dev", link).get(link, set())

    def all_addresses(self, *which: str) -> dict[str, set[str]]:
        """The same of every link, or of some (ip-address(8))."""
        out = sh("ip", "-n", self.name, "-j", "addr", "show", *which, check=False).stdout
        return {
            item["ifname"]: {
                f"{info['local']}/{info['prefixlen']}"
                for info in item.get("addr_info", [])
                if (info["family"], info["scope"]) != ("inet6", "link") and not info.get("deprecated")
            }
            for item in json.loads(out or "[]")
            if item
        }

    def routes(self, family: int = 4, table: str = "main") -> list[dict[str, Any]]:
        return self.ip("route", "show", "table", table, family=family)

    def pings(self, address: str, seconds: int = PATIENCE) -> bool:
        """Whether an answer comes within `seconds`, which says who expects none."""
        return self.run("ping", "-c", "1", "-W", seconds, "-n", address, check=False).returncode == 0


@dataclass
class Host(Namespace):
    """A node: its own network namespace and its own /run/agent-cni and /run/agent-cni-names."""

    transcript: Transcript | None = None
    agent: int = 0
    #: Its mounts, as a descriptor of their namespace.
    mounts: int = -1

    @property
    def folder(self) -> Path:
        return Path("/run/hosts") / self.name

    @property
    def names(self) -> Path:
        """Its /run/agent-cni-names."""
        return Path("/run/hosts-names") / self.name

    def create(self) -> None:
        super().create()
        for folder, place in ((self.folder, "/run/agent-cni"), (self.names, "/run/agent-cni-names")):
            folder.mkdir(parents=True, exist_ok=True)
            Path(place).mkdir(exist_ok=True)  # where it is mounted for what runs on this host
        self.mounts = self._mounted()
        self.agent = nursery().start(self.path, self.folder, self.names) if MODE == "warm" else 0

    def delete(self) -> None:
        if self.agent:
            stop(self.agent)
        os.close(self.mounts)
        super().delete()

    def run(self, *argv: object, check: bool = True, **options: Any) -> subprocess.CompletedProcess[str]:
        return sh(*self.within(), *argv, check=check, **options)

    def within(self) -> list[str]:
        """What a command line begins with to run on this host. To make and to end mounts for a call takes the kernel longer than many a call."""
        return [
            "nsenter",
            f"--net={self.path}",
            f"--mount=/proc/{os.getpid()}/fd/{self.mounts}",
            f"--wdns={Path.cwd()}",
        ]

    def _mounted(self) -> int:
        """Mounts of its own, in which it sees what is mounted here from now on; they live as long as the descriptor."""
        bind = f'mount --bind "$0" /run/agent-cni && mount --bind {self.names} /run/agent-cni-names && echo && read end'
        command = ["unshare", "--mount", "--propagation", "slave", "sh", "-c", bind, str(self.folder)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE) as first:
            assert first.stdout
            assert first.stdout.read(1), "it could not mount its folders"
            return os.open(f"/proc/{first.pid}/ns/mnt", os.O_RDONLY)

    def prefix(self) -> list[str]:
        """The same with mounts of its own, for what makes others, or goes on."""
        bind = f'mount --bind "$0" /run/agent-cni && mount --bind {self.names} /run/agent-cni-names && exec "$@"'
        return ["nsenter", f"--net={self.path}", "unshare", "--mount", "sh", "-c", bind, str(self.folder)]

    def cni(
        self, verb: str, conf: dict[str, Any] | str, pod: Pod | None = None, *,
        container: str = "", ifname: str = "eth0", plugin: str = "", bin_dir: Path = BIN_DIR, **env: str,
    ) -> Answer:  # fmt: skip
        """One call of an executable, as a runtime makes it. `env` overrides; an empty value unsets."""
        text = conf if isinstance(conf, str) else json.dumps(conf)
        name = plugin or (conf["type"] if isinstance(conf, dict) else "bridge-vxlan")
        environ = environment(verb, pod, container, ifname) | env
        done = self.run(bin_dir / name, input=text, env={k: v for k, v in environ.items() if v}, check=False)
        # Parallel calls end in another order each time: only those a test makes one by one can be compared.
        if self.transcript and current_thread() is main_thread() and bin_dir == BIN_DIR:
            self.transcript.add(verb, name, done.returncode, done.stdout, done.stderr)
        return Answer(done.returncode, done.stdout, done.stderr)

    def started(self, conf: dict[str, Any], pod: Pod, *, bin_dir: Path = BIN_DIR, **env: str) -> subprocess.Popen[str]:
        """An ADD that has its configuration and runs."""
        if self.transcript:
            self.transcript.drop()
        command, pipes = [*self.within(), str(bin_dir / conf["type"])], dict.fromkeys(("stdin", "stdout", "stderr"), -1)
        process = subprocess.Popen(command, env=environment("ADD", pod) | env, text=True, **pipes)
        assert process.stdin
        process.stdin.write(json.dumps(conf))
        process.stdin.close()
        process.stdin = None
        return process

    def add(self, conf: dict[str, Any], pod: Pod, **options: Any) -> dict[str, Any]:
        """ADD that must succeed."""
        return self.cni("ADD", conf, pod, **options).ok()

    def delete_pod(self, conf: dict[str, Any], pod: Pod, **options: Any) -> None:
        """DEL that must succeed."""
        self.cni("DEL", conf, pod, **options).ok()

    def check(self, conf: dict[str, Any], pod: Pod, result: dict[str, Any], **options: Any) -> Answer:
        """CHECK with the result of the ADD."""
        return self.cni("CHECK", conf | {"prevResult": result}, pod, **options)

    def bury(self, pod: Pod) -> None:
        """Delete a pod's namespace, and wait until the kernel has taken its veths away from here: they tell of it until then."""
        theirs = {item["link_index"] for item in pod.ip("link", "show", "type", "veth")}
        pod.delete()
        assert eventually(
            lambda: theirs.isdisjoint(item["ifindex"] for item in self.ip("link", "show", "type", "veth"))
        )

    def state(self) -> dict[str, list[Any]]:
        """The attachments and leases the node remembers, as `agent-cni show --json` says them."""
        shown = json.loads(self.run(AGENT_CNI, "show", "--json").stdout)
        return {area: shown[area] for area in ("attachments", "leases")}

    def snapshot(self) -> dict[str, Any]:
        """Everything a call could leave behind: links, addresses, routes, FDB, rules, records and leases.

        Left out is what the kernel adds and ages by itself: counters, link-local and multicast entries.
        """
        fdb = sh("bridge", "-n", self.name, "fdb", "show").stdout.splitlines()
        return {
            "links": {(item["ifname"], item["address"], item["mtu"]) for item in self.ip("link", "show")},
            "addresses": self.all_addresses(),
            "routes": {
                (route["dst"], route.get("dev"), route["table"], route.get("gateway"))
                for family in (4, 6)
                for route in self.routes(family, "all")
                if not route["dst"].startswith(("fe80:", "ff00:"))
            },
            "fdb": {entry for entry in fdb if not _KERNELS.match(entry)},
            "rules": self.run("nft", "list", "ruleset").stdout,
            "state": self.kept(),
            "names": sorted(map(str, self.names.rglob("*"))),
        }

    def lose_state(self) -> None:
        """Have nothing remembered, as on a tmpfs that was unmounted."""
        for file in self.folder.glob("state.db*"):
            file.unlink()

    def kept(self) -> dict[str, list[Any]]:
        """Whose records and leases are in the node's state, as SQLite reads them."""
        columns = {"attachment": "network, container, ifname, plugin, complete", "lease": "*"}
        if not (file := self.folder / "state.db").exists():
            return {table: [] for table in columns}
        with closing(sqlite3.connect(f"file:{file}?mode=ro", uri=True, timeout=PATIENCE)) as state:
            made = {
                name for (name,) in state.execute("SELECT name FROM sqlite_master")
            }  # nothing, where its maker was killed
            return {
                table: sorted(state.execute(f"SELECT {some} FROM {table}")) if table in made else []
                for table, some in columns.items()
            }


@dataclass
class Pod(Namespace):
    """A pod's namespace and container id."""

    @property
    def container(self) -> str:
        return f"container-{self.name}"


@dataclass
class Site:
    """A node and another machine on one physical network, and the switch (.1) between them."""

    host: Host
    outside: Host
    switch: Namespace

    def hairpin(self, on: bool) -> None:
        """Whether the switch sends frames back to the node's port, as vepa needs."""
        sh("bridge", "-n", self.switch.name, "link", "set", "dev", "port11", "hairpin", "on" if on else "off")


@dataclass
class Lab:
    """Hosts and pods made for one test, named after it: they are called the same in every run."""

    test: str = "lab"
    transcript: Transcript | None = None
    made: list[Namespace] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._mark = hashlib.sha256(self.test.encode()).hexdigest()[:6]
        self._numbers = itertools.count(1)

    def name(self, kind: str) -> str:
        return f"{kind}-{self._mark}-{next(self._numbers)}"

    def host(self) -> Host:
        return self.add(Host(self.name("host"), self.transcript))

    def pod(self) -> Pod:
        return self.add(Pod(self.name("pod")))

    def underlay(self, *hosts: Namespace, mtu: int = 1500, subnet: str = "192.0.2", first: int = 11) -> Namespace:
        """Join hosts by a switch: each gets `eth0` with .11, .12, … and a default route to .1."""
        switch = Namespace(self.name("switch"))
        self.add(switch)
        sh("ip", "-n", switch.name, "link", "add", "sw0", "mtu", mtu, "type", "bridge")
        sh("ip", "-n", switch.name, "addr", "add", f"{subnet}.1/24", "dev", "sw0")
        sh("ip", "-n", switch.name, "link", "set", "sw0", "up")
        for number, host in enumerate(hosts, first):
            self.wire(switch, host, number, subnet, mtu)
        return switch

    def site(self) -> Site:
        """A node (.11) and an outsider (.12) on one wire, with IPv6, once traffic passes."""
        host, outside = self.host(), self.host()
        switch = self.underlay(host, outside)
        sh("ip", "-n", switch.name, "addr", "add", "fd00:2::1/64", "dev", "sw0", "nodad")
        for number, member in enumerate((host, outside), 11):
            sh("ip", "-n", member.name, "addr", "add", f"fd00:2::{number}/64", "dev", "eth0", "nodad")
        assert eventually(lambda: outside.pings("192.0.2.11", 1) and outside.pings("fd00:2::11", 1))
        return Site(host, outside, switch)

    def close(self) -> None:
        if self.transcript:
            self.transcript.write()
        for namespace in reversed(self.made):
            namespace.delete()

    def wire(self, switch: Namespace, host: Namespace, number: int, subnet: str = "192.0.2", mtu: int = 1500) -> None:
        """Join one more to a switch, as `underlay` does."""
        port = f"port{number}"
        peer = ("peer", "name", "eth0", "netns", host.name, "mtu", mtu)
        sh("ip", "-n", switch.name, "link", "add", port, "mtu", mtu, "master", "sw0", "type", "veth", *peer)
        sh("ip", "-n", switch.name, "link", "set", port, "up")
        sh("ip", "-n", host.name, "addr", "add", f"{subnet}.{number}/24", "dev", "eth0")
        sh("ip", "-n", host.name, "link", "set", "eth0", "up")
        sh("ip", "-n", host.name, "route", "add", "default", "via", f"{subnet}.1")

    def add(self, namespace: N) -> N:
        """Create a namespace and remember to delete it."""
        namespace.create()
        self.made.append(namespace)
        return namespace
