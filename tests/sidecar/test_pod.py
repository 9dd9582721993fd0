"""Interception as resources: for which families, with whom it is shared, and what STATUS rehearses."""

from __future__ import annotations

import pytest
from pytest_subprocess import FakeProcess

from cni.errors import Conflict, Unavailable
from cni.kernel import process
from cni.naming import Attachment
from cni.protocol.result import DNS, IPConfig, Result
from cni.resources import Host, PodLoopback, PodRules, ProxyAddress, SourceLabels, WayBack, decoded
from cni.sidecar.captured import refuse_impossible
from cni.sidecar.model import Interception
from cni.sidecar.pod import intercepting
from cni.values import replace

HOST = Host("/run/netns/p", pod_rules="iptables-nft", pod_families=(4,))
FOUR, SIX = IPConfig("10.1.0.2/24"), IPConfig("fd00:1::2/64")


def families(ips: tuple[IPConfig, ...], spoken: tuple[int, ...]) -> list[int]:
    made = intercepting(
        Interception(), "eth0", Result(ips=ips), Host("/n", pod_rules="iptables-nft", pod_families=spoken)
    )
    return [item.family for item in made if isinstance(item, PodRules)]


@pytest.mark.parametrize(
    ("ips", "spoken", "captured"),
    [
        ((FOUR,), (4,), [4]),
        ((FOUR,), (4, 6), [4, 6]),
        ((FOUR, SIX), (4,), [4, 6]),
        ((SIX,), (4, 6), [4, 6]),
        ((), (4, 6), [4, 6]),
    ],
)
def test_every_family_the_pod_has_or_speaks_is_captured(
    ips: tuple[IPConfig, ...], spoken: tuple[int, ...], captured: list[int]
):
    assert families(ips, spoken) == captured


def test_nothing_is_made_where_nothing_is_wanted():
    assert intercepting(None, "eth0", Result(), HOST) == ()
    assert intercepting(Interception(wanted=False), "eth0", Result(), HOST) == ()


def test_loopback_comes_first_and_ipv6_gets_the_passthrough_address():
    made = intercepting(Interception(), "eth0", Result(ips=(SIX,)), HOST)
    assert made[:2] == (PodLoopback(), ProxyAddress("eth0", "::6/128"))
    assert made[2] == SourceLabels("/run/netns/p", "::6/128")


def test_a_transparent_proxy_gets_its_way_back_before_the_rules():
    made = intercepting(Interception(transparent=True), "eth0", Result(ips=(FOUR,)), HOST)
    assert [type(item) for item in made] == [PodLoopback, WayBack, PodRules]


def test_rules_that_say_nothing_are_not_made():
    nothing = Interception(include_inbound_ports=(), include_outbound_cidrs=())
    assert not any(isinstance(item, PodRules) for item in intercepting(nothing, "eth0", Result(), HOST))


@pytest.mark.parametrize(("own", "used"), [((), "10.9.9.9"), (("10.96.0.10",), "10.96.0.10")])
def test_resolvers_are_the_runtimes_else_the_results(own: tuple[str, ...], used: str):
    wanted = Interception(capture_dns=True, resolvers=own)
    made = intercepting(wanted, "eth0", Result(dns=DNS(nameservers=("10.9.9.9",))), HOST)
    text = next(item.text for item in made if isinstance(item, PodRules))
    assert f"-d {used}/32 -p udp -m udp --dport 53" in text


def test_an_attachment_of_the_same_pod_with_other_rules_is_named():
    theirs = intercepting(Interception(port=16001), "eth0", Result(), HOST)
    owner = Attachment("net", "c1", "eth0")
    with_others = replace(HOST, others=lambda *_: [(owner, item) for item in theirs])
    with pytest.raises(Conflict, match=r"^net/c1/eth0 has other interception rules"):
        intercepting(Interception(), "eth0", Result(), with_others)
    assert intercepting(Interception(port=16001), "eth0", Result(), with_others) == theirs


def test_by_whatever_path_an_attachment_came_to_the_pod():
    """`others` answers for a namespace, not for a path: a runtime may say one pod as two."""
    theirs = intercepting(Interception(port=16001), "eth0", Result(), replace(HOST, netns="/proc/7/ns/net"))
    with_others = replace(HOST, others=lambda *_: [(Attachment("net", "c1", "eth0"), item) for item in theirs])
    with pytest.raises(Conflict, match=r"^net/c1/eth0 has other interception rules"):
        intercepting(Interception(), "eth0", Result(), with_others)
    made = intercepting(Interception(port=16001), "eth0", Result(), with_others)
    assert [item.netns for item in made if isinstance(item, PodRules)] == [HOST.netns]


def test_other_pods_may_have_other_rules():
    theirs = intercepting(Interception(port=16001), "eth0", Result(), Host("/run/netns/q", pod_rules="iptables-nft"))
    others = {"/run/netns/q": [(Attachment("net", "c2", "eth0"), item) for item in theirs]}
    assert intercepting(Interception(), "eth0", Result(), replace(HOST, others=lambda netns: others.get(netns, ())))


def test_the_same_rules_are_the_same_whatever_is_done_for_earlier_connections():
    first = intercepting(Interception(), "eth0", Result(), HOST)
    before = [replace(item, sparing=False) for item in first if isinstance(item, PodRules)]
    with_others = replace(HOST, others=lambda *_: [(Attachment("net", "c1", "eth0"), item) for item in before])
    assert intercepting(Interception(), "eth0", Result(), with_others) == first


def test_what_the_kernel_cannot_do_is_known_before_a_pod_comes(fp: FakeProcess, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(process, "find", lambda name: f"/sbin/{name}")
    said = "iptables-nft-restore v1.8.9 (nf_tables): \nline 4: RULE_APPEND failed (No such file or directory): TPROXY\n"
    fp.register(["/sbin/unshare", "--net", "/sbin/iptables-nft-restore", "--noflush"], returncode=4, stderr=said)
    with pytest.raises(Unavailable) as caught:
        refuse_impossible(Interception(backend="iptables-nft", transparent=True))
    assert caught.value.msg.startswith("IPv4 rules cannot be made here (iptables-nft): line 4: RULE_APPEND failed")


def test_rules_of_a_record_from_before_spared_connections_themselves():
    """Their text lets the midst of any connection pass, so nothing is told to conntrack for them."""
    raw = {
        "kind": "PodRules",
        "netns": "/run/netns/p",
        "backend": "iptables-nft",
        "family": 4,
        "text": "*nat\nCOMMIT\n",
    }
    assert decoded([raw]) == (PodRules("/run/netns/p", "iptables-nft", 4, "*nat\nCOMMIT\n", sparing=False),)


@pytest.mark.parametrize("denied", [True, False])
def test_connections_from_before_go_on_unless_all_else_is_denied(denied: bool):
    made = intercepting(Interception(deny_uncaptured=denied), "eth0", Result(ips=(FOUR,)), HOST)
    assert [item.sparing for item in made if isinstance(item, PodRules)] == [not denied]
