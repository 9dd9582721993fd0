"""Uplinks that fail in every way there is: pods go on talking between hosts after a moment, and no host flaps."""

from __future__ import annotations

import time
from collections.abc import Callable

import pytest
from cluster import conf
from lab import Lab, eventually
from uplinks import Uplinked, Uplinks, pauses

#: How an uplink fails.
FAILURES: dict[str, Callable[[Uplinked], None]] = {
    "silent": lambda host: host.silence("eth0"),
    "unplugged": lambda host: host.unplug("eth0"),
    "down": lambda host: host.down("eth0"),
    "deleted": lambda host: host.cut_off("eth0"),
    "bare": lambda host: host.bare("eth0"),
}
#: What a busy machine may take on top of the aim of 1.5 s, which `make bench` holds.
MOST = 4.0


@pytest.mark.parametrize("failure", FAILURES)
def test_pods_of_a_host_whose_uplink_fails_go_on_talking_by_the_other(failure: str, lab: Lab):
    with Uplinks(lab, hosts=2) as town:
        town.join()
        one, other = town.nodes
        net = conf("l2", block=8)
        here, far = town.add(one, net), town.add(other, net)
        town.sound()
        assert town.is_at(one, "eth0")
        with pauses(here, far) as talk:
            time.sleep(1)
            FAILURES[failure](one)
            assert eventually(lambda: town.is_at(one, "eth1")), one.said()
            town.meshed()
            longest = talk.longest()
        print(f"{failure}: {longest:.2f} s")
        assert longest < MOST
        assert one.check(net, here.pod, here.result).code == 0
        town.add(one, net)
        town.sound()
        town.wire(one, "eth0")
        one.silence("eth0", silent=False)
        assert eventually(lambda: town.is_at(one, "eth0")), one.said()
        town.sound()
        town.leave()
