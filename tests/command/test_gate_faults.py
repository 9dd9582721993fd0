"""What doctor, metrics and `agent-cni dnsgate --probe` say of the DNS gate."""

from __future__ import annotations

import json
import os
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import pytest

from cni.command.doctor import gate as gate_faults
from cni.command.doctor import gate_leftovers
from cni.kernel import gatedir, nfqueue
from cni.kernel.gatedir import Entry
from cni.kernel.nfqueue import Listening
from cni.member import census, exposition
from cni.naming import Attachment
from cni.resources import Asking, AskingPod, AskingTable
from cni.state import Record
from cni.state.daemons import GATE, alone

HELD = Entry("0123456789a", "shop/agent", ("10.1.0.2",), "veth0", ("api.example.com",))
LISTED = """table inet agent_cni_dns {
	map asks4 {
		type ipv4_addr : verdict
		elements = { 10.1.0.2 : jump ask-0123456789a, 10.1.0.3 : jump ask-99999999999 }
	}
	chain coming {
	}
	chain ask-0123456789a {
	}
	chain ask-99999999999 {
	}
}
"""


@pytest.fixture(autouse=True)
def listening(monkeypatch: pytest.MonkeyPatch) -> list[Listening | None]:
    """What the kernel says of the queue, the last of them."""
    said: list[Listening | None] = [Listening(0, 0)]
    monkeypatch.setattr(nfqueue, "listening", lambda number: said[-1])
    return said


def causes() -> list[str]:
    return [item.cause for item in gate_faults.gate_faults(None)]


def put(counts: dict[str, int] | None = None, *, ago: float = 0) -> None:
    """What a gate counted, some seconds ago."""
    file = gatedir.FOLDER / gatedir.COUNTED
    gatedir.put(file, json.dumps(counts or {"pods": 1}))
    then = file.stat().st_mtime - ago
    os.utime(file, (then, then))


def test_nobody_misses_a_gate_where_no_pod_is_held_to_names():
    assert causes() == []


def test_a_gate_that_does_not_run_hangs_or_hears_nothing_is_told(listening: list[Listening | None]):
    gatedir.put(HELD.path, HELD.text)
    (finding,) = gate_faults.gate_faults(None)
    assert finding.text == "shop/agent: no DNS gate runs: names that a policy allows are not resolved"
    assert finding.mend == "systemctl start agent-cni-dnsgate.service, or agent-cni dnsgate"
    with alone(GATE):
        put(ago=60)
        assert causes() == ["gate-hangs"]
        put()
        assert causes() == []
        listening.append(None)
        assert causes() == ["gate-deaf"]
        listening.append(Listening(3, 17))
        assert causes() == ["gate-lost"]


def test_a_gate_that_listens_in_pods_alone_needs_no_queue_of_the_hosts(listening: list[Listening | None]):
    inside = Entry(**{**vars(HELD), "netns": "/run/netns/x"})
    gatedir.put(inside.path, inside.text)
    listening.append(None)
    with alone(GATE):
        put()
        assert causes() == []


def test_a_probe_says_whether_one_works(agent: Any):
    assert agent("dnsgate", "--probe").status == 1
    put()
    assert agent("dnsgate", "--probe").status == 1
    with alone(GATE):
        assert (found := agent("dnsgate", "--probe")).status == 0, found.err
        put(ago=60)
        assert agent("dnsgate", "--probe").err == "agent-cni: no DNS gate judges what pods of this host ask\n"


def recorded(*resources: object) -> Iterable[Record]:
    return [Record(Attachment("net", "c", "eth0"), "bridge-vxlan", "/run/netns/x", "", None, resources=resources)]  # type: ignore[arg-type]


def test_what_no_record_stands_for_is_left_over(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gate_leftovers.nftables, "present", lambda: True)
    monkeypatch.setattr(gate_leftovers.netfilter, "nft_list", lambda what: LISTED)
    other = Entry(**{**vars(HELD), "token": "99999999999", "pod": ""})
    for entry in (HELD, other):
        gatedir.put(entry.path, entry.text)
    told = AskingPod(**vars(HELD))
    asking = Asking(("10.1.0.2",), HELD.token, 200)
    assert [item.command for item in gate_leftovers.gate_leftovers(lambda: recorded(AskingTable(), asking, told))] == [
        f"rm {other.path}",
        (
            "nft 'delete element inet agent_cni_dns asks4 { 10.1.0.3 }; delete element inet agent_cni_dns asked4 { 10.1.0.3 }; "
            "delete chain inet agent_cni_dns ask-99999999999'"
        ),
    ]
    assert [item.command for item in gate_leftovers.gate_leftovers(list)] == [
        f"rm {HELD.path}",
        f"rm {other.path}",
        "nft delete table inet agent_cni_dns",
    ]


def test_figures_tell_what_the_gate_counted_and_whether_it_works():
    gatedir.put(HELD.path, HELD.text)
    put({"asked": 7, "refused": 2, "inward": 1, "admitted": 3, "addresses": 3, "lost": 4})
    before = exposition.text(census.of_node()).decode()
    assert "agent_cni_dns_gate_works 0\n" in before
    assert "agent_cni_dns_addresses 0\n" in before
    with alone(GATE):
        text = exposition.text(census.of_node()).decode()
    for line in (
        "pods 1", "gate_works 1", 'questions_total{outcome="asked"} 7', 'questions_total{outcome="refused"} 2',
        'kept_back_total{why="inward"} 1', "admitted_total 3", "addresses 3", 'packets_lost_total{why="lost"} 4',
    ):  # fmt: skip
        assert f"agent_cni_dns_{line}\n" in text, text


def test_the_kernel_says_who_listens_and_what_was_dropped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.undo()
    table = tmp_path / "nfnetlink_queue"
    monkeypatch.setattr(nfqueue, "_TABLE", table)
    assert nfqueue.listening(4753) is None
    table.write_text(
        " 4752  999     0 2 65535     1     1        2  1\n 4753 118327     5 2 65535     3     4       99  1\n"
    )
    assert nfqueue.listening(4753) == Listening(waiting=5, dropped=7)
    assert nfqueue.listening(7) is None
