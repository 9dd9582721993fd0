"""What a process keeps: the second use finds the first one's, and nothing is left when it is let go."""

from __future__ import annotations

import os
import traceback
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest
from lab import eventually

from cni.kernel import compiled, kept, netns, nfnetlink, nftables, sysctl
from cni.kernel.announcements import announcements
from cni.kernel.netlink import Rtnl
from cni.kernel.netlink.departures import departures
from cni.kernel.view import VethEnd
from cni.state import Store

#: A gate, which is packed by libnftables.
SCRIPT = "add table inet kept\nadd chain inet kept nothing { type filter hook input priority 0; }\n"


def ask_rtnetlink(_: Path) -> None:
    rtnl = Rtnl.kept()
    assert rtnl.link_by_name("lo")
    rtnl.give_back()


def open_the_state(folder: Path) -> None:
    for _ in range(2):  # a file is known by its inode, which one that is just being made has not yet
        with closing(Store.open(folder)) as store:
            store.records()


def delete_a_link(_: Path) -> None:
    links = Rtnl()
    links.create_veth(VethEnd("departs", "0e:00:00:00:00:02", 1500), VethEnd("peer", "0e:00:00:00:00:03", 1500))
    departures.begin(links.link_by_name("departs"), Rtnl).join()
    links.close()


def announce(_: Path) -> None:
    announcements.begin("lo", [])


def compile_a_script(_: Path) -> None:
    compiled._compiled.cache_clear()
    compiled.apply([SCRIPT])


DOORS: dict[str, Callable[[Path], object]] = {
    "rtnetlink": ask_rtnetlink,
    "departures": delete_a_link,
    "the state": open_the_state,
    "settings": lambda _: sysctl.read("net.ipv4.ip_forward"),
    "nf_tables": lambda _: nfnetlink.generation(nfnetlink.opened()),
    "libnftables": lambda _: nftables.run("list tables"),
    "compiled rules": compile_a_script,
}

#: What a call leaves for after its answer: nothing is used again.
LEFT = {"announcements": announce}


def descriptors() -> dict[str, str]:
    """By number, what each leads to."""
    found = {}
    for fd in Path("/proc/self/fd").iterdir():
        try:
            found[fd.name] = str(fd.readlink())
        except FileNotFoundError:  # that of the listing itself
            continue
    return found


@pytest.fixture(autouse=True)
def nothing_kept():
    kept.close()
    yield
    kept.close()


@pytest.mark.parametrize("door", DOORS)
def test_the_second_use_opens_nothing_and_all_of_it_can_be_let_go(door: str, tmp_path: Path):
    with netns.fresh():
        DOORS[door](tmp_path)
    kept.close()
    before = descriptors()
    with netns.fresh():
        DOORS[door](tmp_path)
        once = descriptors()
        DOORS[door](tmp_path)
        assert descriptors() == once
    assert len(once) > len(before)
    kept.close()
    assert descriptors().keys() == before.keys()


def test_every_kind_that_registers_is_one_of_these_doors(tmp_path: Path):
    """A new one shows here: each must be closed by what was opened."""
    child = os.fork()  # without the threads of other tests, which open and close what they like
    if not child:
        os._exit(not each_closes_something(tmp_path))
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


def each_closes_something(folder: Path) -> bool:
    closed: list[kept.Kept] = []
    try:
        with netns.fresh():
            for door in (DOORS | LEFT).values():
                door(folder)
            for kind in kept._every:
                held = len(descriptors())
                kind.close()
                if len(descriptors()) < held:
                    closed.append(kind)
    except BaseException:  # noqa: BLE001 - the child of a test runner goes no further
        traceback.print_exc()
        return False
    return closed == kept._every


def test_what_is_of_a_pods_namespace_goes_after_the_call(tmp_path: Path):
    for door in DOORS.values():
        door(tmp_path)
    before = descriptors()
    with netns.fresh():
        nfnetlink.generation(nfnetlink.opened())
        nftables.run("list tables")
        announce(tmp_path)
    assert len(descriptors()) > len(before) + len(LEFT)
    kept.let_go()
    assert eventually(lambda: not announcements.pending)
    assert descriptors().keys() == before.keys()
