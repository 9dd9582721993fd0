"""etcd as an operator runs it: Debian's, one member or three, on loopback or each in a namespace, with TLS and users if asked."""

from __future__ import annotations

import base64
import json
import os
import shutil
import signal
import socket
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Self

from lab import PATIENCE, ROOT, Namespace, eventually, sh

from cni.cluster.config import EtcdConfig

BINARIES = ROOT / ".cache/etcd/usr/bin"
ETCD, ETCDCTL = BINARIES / "etcd", BINARIES / "etcdctl"
#: The users it has where it has users, and their first passwords.
ROOT_USER, USER, PASSWORD = "root", "agent", "first-password"


class Tls:
    """A folder with an authority, and the certificates it gives."""

    def __init__(self, folder: Path, addresses: Sequence[str]) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.ca, self._ca_key = folder / "ca.pem", folder / "ca-key.pem"
        new_key = ("-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes")
        sh("openssl", "req", "-x509", *new_key, "-keyout", self._ca_key, "-out", self.ca, "-days", 2, "-subj", "/CN=ca")
        self.server, self.server_key = self.give("server", addresses)
        self.client, self.client_key = self.give("client", addresses)

    def give(
        self, name: str, addresses: Sequence[str] = ("127.0.0.1",), days: int = 1, subject: str = ""
    ) -> tuple[Path, Path]:
        """A certificate and its key, each put in the place of an earlier one whole.

        It has no common name unless a `subject` says it: where etcd has users its gateway refuses who comes with one.
        """
        new, new_key = self.folder / f"{name}.new", self.folder / f"{name}-key.new"
        names = ",".join(f"IP:{address}" for address in addresses)
        sh(
            "openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes",
            "-CA", self.ca, "-CAkey", self._ca_key, "-keyout", new_key, "-out", new, "-days", days, "-subj", subject or f"/O={name}",
            "-addext", f"subjectAltName={names}", "-addext", "extendedKeyUsage=serverAuth,clientAuth",
            "-addext", "basicConstraints=critical,CA:FALSE",
        )  # fmt: skip
        made = self.folder / f"{name}.pem", self.folder / f"{name}-key.pem"
        new_key.rename(made[1])
        new.rename(made[0])
        return made


class Etcd:
    """A cluster of etcd members, each a process. With `places` each runs in a namespace at its address there, else on loopback.

    It lives in `folder`, which is to be nobody else's. Members are counted from 0. Use it with `with`.
    """

    def __init__(
        self, folder: Path, members: int = 1, *, places: Sequence[tuple[Namespace, str]] = (),
        tls: bool = False, users: bool = False, options: Sequence[str] = (),
    ) -> None:  # fmt: skip
        self.folder, self.places, self.users, self._options = folder, places, users, tuple(options)
        folder.mkdir(parents=True, exist_ok=True)
        count = len(places) or members
        self.addresses = [address for _, address in places] or ["127.0.0.1"] * count
        self._ports = [(2379, 2380)] * count if places else [(_free_port(), _free_port()) for _ in range(count)]
        self.tls = Tls(folder / "tls", sorted({*self.addresses, "127.0.0.1"})) if tls else None
        self.processes: list[subprocess.Popen[bytes] | None] = [None] * count
        self._token = "agent-cni"
        self._password_file = folder / "password"

    def __enter__(self) -> Self:
        try:
            self.start_all()
            if self.users:
                self._give_users()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *error: object) -> None:
        for number in range(len(self.processes)):
            self.kill(number)
        shutil.rmtree(self.folder, ignore_errors=True)

    # --- how it is reached

    @property
    def endpoints(self) -> tuple[str, ...]:
        """The members' client URLs."""
        return tuple(self.endpoint(number) for number in range(len(self.processes)))

    def endpoint(self, number: int) -> str:
        """A member's client URL."""
        return f"{'https' if self.tls else 'http'}://{self.addresses[number]}:{self._ports[number][0]}"

    def config(self, endpoints: Sequence[str] = (), prefix: str = "/agent-cni") -> EtcdConfig:
        """What a host is told of it."""
        files = (
            {"cacert": str(self.tls.ca), "cert": str(self.tls.client), "key": str(self.tls.client_key)}
            if self.tls
            else {}
        )
        user = {"user": USER, "password_file": str(self._password_file)} if self.users else {}
        return EtcdConfig(tuple(endpoints or self.endpoints), **files, **user, prefix=prefix)

    # --- what becomes of its members

    def start_all(self) -> None:
        """Start every member that does not run, and wait until they have a leader."""
        for number, process in enumerate(self.processes):
            if not process:
                self._spawn(number)
        assert eventually(lambda: all(self.healthy(number) for number in range(len(self.processes))))

    def start(self, number: int) -> None:
        """Start a member, and wait until it answers; others have to be there."""
        self._spawn(number)
        assert eventually(lambda: self.healthy(number))

    def kill(self, number: int) -> None:
        """End a member at once; its data stays."""
        process = self.processes[number]
        if process:
            process.kill()
            process.wait(PATIENCE)
            self.processes[number] = None

    def pause(self, number: int) -> None:
        """Let a member be silent: its connections stay."""
        self._signal(number, signal.SIGSTOP)

    def go_on(self, number: int) -> None:
        """Let a paused member go on."""
        self._signal(number, signal.SIGCONT)

    def isolate(self, number: int) -> None:
        """Cut a member in a namespace off from the others, not from its clients."""
        for hook in ("input", "output"):
            chain = f"add table inet etcd\nadd chain inet etcd {hook} {{ type filter hook {hook} priority 0; }}\n"
            rules = "".join(f"add rule inet etcd {hook} tcp {side} 2380 drop\n" for side in ("dport", "sport"))
            self.places[number][0].run("nft", "-f", "-", input=chain + rules)

    def rejoin(self, number: int) -> None:
        """Undo `isolate`."""
        self.places[number][0].run("nft", "delete table inet etcd")

    def wipe(self, backup: Path | None = None) -> None:
        """End all members and start them anew with what a `backup` has, or with nothing."""
        for number in range(len(self.processes)):
            self.kill(number)
            shutil.rmtree(self._data(number))
            if backup:
                where = ("--data-dir", self._data(number), *self._cluster(number))
                sh(ETCDCTL, "snapshot", "restore", backup, *where, env=_ENV)
        self.start_all()

    # --- what an operator does

    def ctl(self, *argv: object, number: int = 0, check: bool = True, **options: Any) -> str:
        """`etcdctl`, by way of a member, as root; what it says, which of health is on stderr."""
        place = ["nsenter", f"--net={self.places[number][0].path}"] if self.places else []
        files = ["--cacert", self.tls.ca, "--cert", self.tls.server, "--key", self.tls.server_key] if self.tls else []
        login = ["--user", f"{ROOT_USER}:{PASSWORD}"] if self._password_file.exists() else []
        command = [*place, ETCDCTL, "--endpoints", self.endpoint(number), *files, *login, *argv]
        done = sh(*command, env=_ENV, check=check, **options)
        return done.stdout + done.stderr

    def healthy(self, number: int) -> bool:
        """Whether a member answers, and has a leader."""
        return "is healthy" in self.ctl("endpoint", "health", "--command-timeout", "2s", number=number, check=False)

    def leader(self) -> int:
        """Which member leads."""
        for number, process in enumerate(self.processes):
            status = self._status(number) if process else {}
            if status and status["header"]["member_id"] == status.get("leader"):
                return number
        raise AssertionError("nobody leads")

    def _status(self, number: int) -> dict[str, Any]:
        told = self.ctl("endpoint", "status", "-w", "json", number=number, check=False)
        return dict(json.loads(told)[0]["Status"]) if told.startswith("[") else {}

    def backup(self, path: Path, number: int = 0) -> Path:
        """Save all there is, for `wipe`."""
        self.ctl("snapshot", "save", path, number=number)
        return path

    def revision(self) -> int:
        """How far it has come."""
        return int(self._status(0)["header"]["revision"])

    def compact(self) -> None:
        """Let it forget what was."""
        self.ctl("compact", self.revision())

    def put(self, key: str, value: str) -> None:
        """Put under a key, whatever it is."""
        self.ctl("put", "--", key, value)

    def new_password(self, password: str, *, told: bool = True) -> None:
        """Give the hosts' user another password, and write it where hosts read it."""
        self.ctl("user", "passwd", USER, "--interactive=false", input=password)
        if told:
            self._password_file.write_text(f"{password}\n")

    def _give_users(self) -> None:
        self.ctl("role", "add", "hosts")
        self.ctl("role", "grant-permission", "hosts", "--prefix=true", "readwrite", "/agent-cni/")
        for user in (ROOT_USER, USER):
            self.ctl("user", "add", user, "--interactive=false", input=PASSWORD)
        self.ctl("user", "grant-role", ROOT_USER, "root")
        self.ctl("user", "grant-role", USER, "hosts")
        self.ctl("auth", "enable")
        self._password_file.write_text(f"{PASSWORD}\n")

    def _spawn(self, number: int) -> None:
        place = ["nsenter", f"--net={self.places[number][0].path}"] if self.places else []
        client, peer = self.endpoint(number), self._peer(number)
        secrets = (
            ["--cert-file", self.tls.server, "--key-file", self.tls.server_key, "--trusted-ca-file", self.tls.ca, "--client-cert-auth"]
            if self.tls else []
        )  # fmt: skip
        log = (self.folder / f"member{number}.log").open("ab")
        argv = [
            *place, ETCD, "--data-dir", self._data(number), *self._cluster(number), "--initial-cluster-state", "new",
            "--listen-client-urls", client, "--advertise-client-urls", client, "--listen-peer-urls", peer,
            "--heartbeat-interval", 100, "--election-timeout", 1000, "--logger", "zap", *secrets, *self._options,
        ]  # fmt: skip
        self.processes[number] = subprocess.Popen(list(map(str, argv)), stdout=log, stderr=log, env=_ENV)
        log.close()

    def _cluster(self, number: int) -> list[object]:
        every = ",".join(f"member{other}={self._peer(other)}" for other in range(len(self.processes)))
        own = ("--name", f"member{number}", "--initial-advertise-peer-urls", self._peer(number))
        return [*own, "--initial-cluster", every, "--initial-cluster-token", self._token]

    def _peer(self, number: int) -> str:
        return f"http://{self.addresses[number]}:{self._ports[number][1]}"

    def _data(self, number: int) -> Path:
        return self.folder / f"member{number}.etcd"

    def _signal(self, number: int, what: signal.Signals) -> None:
        process = self.processes[number]
        assert process
        process.send_signal(what)


#: No proxy and no setting of the machine's counts.
_ENV = {"PATH": os.environ["PATH"], "ETCDCTL_API": "3"}


def decoded(text: str) -> str:
    """A key or value of etcd's JSON."""
    return base64.b64decode(text).decode()


def _free_port() -> int:
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        return int(found.getsockname()[1])
