"""What is not the network's is asked of others: of the node's own resolvers, or of those that are named; what is its own of nobody."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Self

import pytest
from lab import Host, Lab, eventually
from names import DNSMASQ, Names, asked

WORLD = ("--address=/www.example.org/198.51.100.7", "--ptr-record=7.100.51.198.in-addr.arpa,www.example.org")
NAMED = "K8S_POD_NAME=web"


class World:
    """Another machine that answers for the world, and writes down what it was asked."""

    def __init__(self, host: Host, log: Path) -> None:
        self.host, self.log = host, log

    def __enter__(self) -> Self:
        options = (
            "--keep-in-foreground",
            "--conf-file=/dev/null",
            "--no-resolv",
            "--no-hosts",
            "--user=root",
            "--pid-file=",
        )
        self.process = self.host.start(
            DNSMASQ / "dnsmasq", *options, "--log-queries", f"--log-facility={self.log}", *WORLD
        )
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.communicate()

    @property
    def asked(self) -> str:
        return self.log.read_text() if self.log.exists() else ""


@pytest.fixture
def world(lab: Lab, tmp_path: Path) -> Iterator[World]:
    outside = lab.host()
    with World(outside, tmp_path / "queries") as made:
        yield made


@pytest.mark.parametrize("named", [False, True])
def test_the_rest_is_forwarded_and_the_networks_own_is_not(
    lab: Lab, world: World, conf: dict[str, Any], tmp_path: Path, named: bool
):
    host, pod = lab.host(), lab.pod()
    lab.underlay(host, world.host)
    resolvers = tmp_path / "resolv.conf"
    resolvers.write_text("nameserver 192.0.2.99\n" if named else "nameserver 192.0.2.12\n")
    conf |= {"names": {"domain": "apps.internal"} | ({"upstream": ["192.0.2.12"]} if named else {})}
    host.add(conf, pod, CNI_ARGS=NAMED)
    seen = 'mount --bind "$0" /etc/resolv.conf && exec "$@"'
    with Names(host, "sh", "-c", seen, str(resolvers)):

        def answers(name: str, kind: str = "A") -> list[str] | None:
            try:
                return asked(pod, "10.1.0.1", name, kind)
            except TimeoutError:
                return None

        assert eventually(lambda: answers("www.example.org") == ["198.51.100.7"])
        assert answers("198.51.100.7", "PTR") == ["www.example.org"]
        assert answers("web") == ["10.1.0.2"]
        for name, kind in (
            ("none", "A"),
            ("none.apps.internal", "A"),
            ("none.shop.apps.internal", "AAAA"),
            ("10.1.0.77", "PTR"),
            ("fd00:1::77", "PTR"),
        ):
            assert answers(name, kind) == [], name
    told = [line for line in world.asked.splitlines() if "query[" in line]
    assert told
    assert [line for line in told if "example.org" not in line and "7.100.51.198" not in line] == []


def test_resolvers_that_become_others_are_asked(lab: Lab, world: World, conf: dict[str, Any], tmp_path: Path):
    host, pod = lab.host(), lab.pod()
    lab.underlay(host, world.host)
    folder = tmp_path / "etc"
    shutil.copytree("/etc", folder, symlinks=True)
    (folder / "resolv.conf").unlink()
    (folder / "resolv.conf").write_text("nameserver 192.0.2.99\n")
    host.add(conf | {"names": {}}, pod, CNI_ARGS=NAMED)
    seen = 'mount --bind "$0" /etc && exec "$@"'
    with Names(host, "sh", "-c", seen, str(folder)) as names:
        assert eventually(names.servers)

        def answers() -> list[str]:
            try:
                return asked(pod, "10.1.0.1", "www.example.org")
            except TimeoutError:
                return []

        assert answers() == []
        (folder / "new").write_text("nameserver 192.0.2.12\n")
        (folder / "new").rename(folder / "resolv.conf")
        assert eventually(lambda: answers() == ["198.51.100.7"])
