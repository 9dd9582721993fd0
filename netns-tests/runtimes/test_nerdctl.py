"""nerdctl's containers on our network: those of one network find each other by the names they were started with."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Self

import pytest
from cri import IMAGE, Containerd
from lab import PATIENCE, REFERENCE_DIR, ROOT, Lab, Namespace, eventually, sh
from names import Names

NERDCTL = ROOT / ".cache/bin/nerdctl"
pytestmark = pytest.mark.skipif(not NERDCTL.exists(), reason="`make nerdctl-test` builds nerdctl (two minutes, once)")
NET = {
    "type": "bridge-vxlan",
    "bridge": "br0",
    "isDefaultGateway": True,
    "names": {},
    "ipam": {"type": "agent-ipam", "ranges": [[{"subnet": "10.1.0.0/24"}]]},
}


STORE = Path("/var/lib/nerdctl")


class Nerdctl:
    """nerdctl on a host, by a containerd of the test's. Use it with `with`: it removes its containers."""

    def __init__(self, containerd: Containerd) -> None:
        self._containerd = containerd

    def __enter__(self) -> Self:
        for name in ("firewall", "tuning"):  # of its own default network, which it makes at once
            (self._containerd.folder / "bin" / name).symlink_to(REFERENCE_DIR / name)
        address = ("--address", self._containerd.folder / "sock", "--namespace", "default")
        sh("ctr", *address, "images", "import", self._containerd.folder / "image.tar")
        return self

    def __exit__(self, *_: object) -> None:
        names = self("ps", "--all", "--quiet").split()
        if names:
            self("rm", "--force", *names)

    def __call__(self, *words: object) -> str:
        """A command; the mount namespace is this one, because hooks of containers run in it."""
        folder = self._containerd.folder
        places = ("--address", folder / "sock", "--cni-path", folder / "bin", "--cni-netconfpath", folder / "net.d")
        done = self._containerd.host.run(NERDCTL, *places, "--cgroup-manager", "cgroupfs", *words, timeout=PATIENCE)
        return done.stdout.strip()

    def run(self, name: str, *options: object) -> None:
        """Start a container on the network."""
        self("run", "--detach", "--name", name, "--net", "pods", "--dns", "10.1.0.1", *options, IMAGE)

    def resolves(self, container: str, name: str) -> str:
        """What a container's own resolver makes of a name."""
        try:
            return self("exec", container, "/bin/busybox", "nslookup", name)
        except AssertionError as error:
            return str(error)


@pytest.fixture
def store() -> Iterator[None]:
    """What nerdctl keeps, which is there before containerd is: hooks see what that sees."""
    STORE.mkdir(exist_ok=True)
    sh("mount", "-t", "tmpfs", "tmpfs", STORE)
    yield
    sh("umount", STORE)


@pytest.mark.usefixtures("store")
def test_containers_find_each_other_by_name(lab: Lab, tmp_path: Path):
    host = lab.host()
    with Containerd(host, tmp_path, NET) as containerd, Nerdctl(containerd) as nerdctl, Names(host):
        nerdctl.run("web")
        nerdctl.run("db", "--hostname", "sql")
        assert eventually(lambda: "10.1.0.3" in nerdctl.resolves("web", "db.pods")), nerdctl.resolves("web", "db.pods")
        assert "10.1.0.3" in nerdctl.resolves("web", "sql.pods")
        assert "10.1.0.2" in nerdctl.resolves("db", "web.pods")
        nerdctl("rm", "--force", "db")
        assert eventually(lambda: "10.1.0.3" not in nerdctl.resolves("web", "db.pods"))


COMPOSE = """
services:
  front:
    image: {image}
    entrypoint: ["/bin/busybox", "sh", "-c", "while :; do echo front | /bin/busybox nc -l -p 80; done"]
    ports: ["8081:80"]
    networks: {{web: {{ipv4_address: 10.64.1.60}}}}
networks:
  web: {{external: true}}
"""
SERVE = ("--entrypoint", "/bin/busybox", IMAGE, "sh", "-c", "while :; do echo front | /bin/busybox nc -l -p 80; done")


@pytest.mark.usefixtures("store")
def test_a_file_of_the_page_is_a_network_of_its(lab: Lab, tmp_path: Path):
    """docs/coming-from-docker.md: its first file is a network nerdctl lists, publishes on, and takes from a compose file."""
    host, elsewhere = lab.host(), lab.host()
    lab.underlay(host, elsewhere)
    page = (ROOT / "docs/coming-from-docker.md").read_text()
    web = page.partition("```json\n")[2].partition("```")[0]

    def heard(where: Namespace, place: str) -> str:
        return where.run(
            ROOT / ".cache/busybox/bin/busybox", "nc", "-w", "5", *place.split(":"), check=False
        ).stdout.strip()

    with Containerd(host, tmp_path) as containerd, Nerdctl(containerd) as nerdctl, Names(host):
        (tmp_path / "net.d/web.conflist").write_text(web)
        assert "web" in nerdctl("network", "ls", "--format", "{{.Name}}").split()
        nerdctl("run", "--detach", "--name", "front", "--net", "web", "-p", "8080:80", *SERVE)
        nerdctl("run", "--detach", "--name", "db", "--net", "web", "--ip", "10.64.1.50", "--dns", "10.64.1.1", IMAGE)
        nerdctl("run", "--detach", "--name", "shut", "--net", "none", IMAGE)
        nerdctl("run", "--detach", "--name", "open", "--net", "host", IMAGE)
        assert eventually(lambda: heard(elsewhere, "192.0.2.11:8080") == "front")
        assert "10.64.1.50" in nerdctl("exec", "db", "/bin/busybox", "ip", "-4", "addr")
        assert eventually(lambda: "10.64.1.2" in nerdctl.resolves("db", "front.web"))
        assert "eth0" not in nerdctl("exec", "shut", "/bin/busybox", "ip", "link")
        assert "web0" in nerdctl("exec", "open", "/bin/busybox", "ip", "link")
        compose = tmp_path / "compose.yaml"
        compose.write_text(COMPOSE.format(image=IMAGE))
        nerdctl("compose", "-f", compose, "up", "--detach")
        assert eventually(lambda: heard(elsewhere, "192.0.2.11:8081") == "front")
        nerdctl("compose", "-f", compose, "down")
    assert host.state() == {"attachments": [], "leases": []}
