"""Two applications on two hosts that speak plain TCP, and the mesh that encrypts what they say."""

from __future__ import annotations

import json
import sys
from contextlib import ExitStack
from pathlib import Path
from typing import Any

from authority import Mounted
from interception import APP_UID, WEB
from lab import BIN_DIR, CNITOOL, ROOT, Host, Lab, Pod
from mesh import Authority, Envoy, rotating_tls
from traffic import Actor
from wire import Wire

FILES = ("60-mesh.conflist", "61-mesh-second-host.conflist")
APPS = ("app-a", "app-b")
SECRET = "the password is swordfish"

#: Connects with TLS, and with a certificate where one is given; prints what it reads, or the error.
_CLIENT = """
import socket, ssl, sys
address, port, authority, *identity = sys.argv[1:]
context = ssl.create_default_context(cafile=authority)
context.check_hostname = False
if identity: context.load_cert_chain(*identity)
try:
    with context.wrap_socket(socket.create_connection((address, int(port)), 3)) as conn:
        print(conn.recv(4096).decode())
except OSError as error:
    print(getattr(error, "reason", None) or type(error).__name__)
"""


class Mesh:
    """Pods `a` and `b`, each with an application and an Envoy, on two hosts; `a` calls `b`."""

    def __init__(self, lab: Lab, folder: Path, names: tuple[str, ...] = ()) -> None:
        self.held, self.authority, self.folder = ExitStack(), Authority(folder), folder
        self.mounts = {name: Mounted(folder / name) for name in APPS}
        hosts = [Host(name) for name in names[:2]] or [lab.host(), lab.host()]
        self.hosts = [lab.add(host) for host in hosts] if names else hosts
        self.switch = lab.underlay(*self.hosts)
        for host, file in zip(self.hosts, FILES, strict=True):
            (host.folder / file).write_text((ROOT / "conf.d" / file).read_text())
        self.pods = [lab.add(Pod(name)) for name in names[2:]] or [lab.pod(), lab.pod()]
        self.results: list[dict[str, Any]] = []

    def attach(self) -> list[dict[str, Any]]:
        """Attach both pods through the real cnitool."""
        self.results = [json.loads(self.cnitool("add", number)) for number in (0, 1)]
        return self.results

    def cnitool(self, verb: str, number: int, check: bool = True) -> str:
        """One call for a pod: what it said, its errors too."""
        host, pod = self.hosts[number], self.pods[number]
        env = {"CNI_PATH": str(BIN_DIR), "NETCONFPATH": str(host.folder), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
        done = host.run(CNITOOL, verb, "mesh", pod.path, env=env, check=check)
        return done.stdout + done.stderr * bool(done.returncode)

    def start(self) -> None:
        """The applications, then the proxies."""
        self.client, self.server = (self.held.enter_context(Actor(pod, APP_UID)) for pod in self.pods)
        self.server.listen("app-b", WEB)
        for pod, (name, mount) in zip(self.pods, self.mounts.items(), strict=True):
            mount.put(self.authority.certificate, self.authority.pair(name))
            self.held.enter_context(Envoy(pod, rotating_tls(mount), self.folder))

    def rotate(self) -> Authority:
        """Have another authority, and identities of it, as cert-manager does: both are believed, then each pod has another identity, then the
        new one alone is believed. The authority of before.
        """
        old, new = self.authority, Authority(self.folder / "next")
        for mount in self.mounts.values():
            mount.put(old.certificate + new.certificate)
        for name, mount in self.mounts.items():
            mount.put(pair=new.pair(name))
        for mount in self.mounts.values():
            mount.put(new.certificate)
        self.authority = new
        return old

    def wire(self) -> Wire:
        """What passes between the hosts."""
        return Wire(self.switch, "port11")

    def says(self, address: str, text: str, kept: str = "said") -> tuple[dict[str, Any], Any]:
        """`a` connects to `b` and says something in plain TCP: who answered, and the echo."""
        seen = self.client.connect(address, WEB, keep=kept)
        return seen, self.client.echo(kept, text) if "who" in seen else None

    def stranger(self, where: Host | Pod, address: str, *identity: str) -> str:
        """A TLS client without a proxy, with or without an identity of the mesh."""
        command = [sys.executable, "-I", "-c", _CLIENT, address, WEB, self.authority.trusted, *identity]
        return where.run(*command).stdout.strip()
