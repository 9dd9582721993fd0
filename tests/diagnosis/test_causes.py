"""Causes before symptoms: what the doctor makes of the lines of many pods."""

from __future__ import annotations

from collections.abc import Sequence

from cni.diagnosis.causes import Tables, causes
from cni.diagnosis.finding import Finding, Severity, worst
from cni.diagnosis.symptom import Symptom
from cni.naming import Attachment
from cni.resources import (
    Bridge,
    Difference,
    Gate,
    GatewayAddress,
    HostSysctl,
    Macvlan,
    NftMasquerade,
    PodAddress,
    PodLink,
    PodPolicy,
    PodRoute,
    PodRules,
    PolicyTable,
    Resource,
    VethPair,
)
from cni.resources.base import REFRESH

BRIDGE = Bridge("br0", "", 1500, promiscuous=False)
GATEWAY = GatewayAddress("br0", "10.1.0.1/24", force=False)
NONE = Tables()
FORWARDING = HostSysctl("net.ipv4.ip_forward", "1")


def mend(items: Sequence[Symptom]) -> str:
    return f"{items[0].difference.mend.partition(':')[0]} {len({item.attachment for item in items})}"


def of(pod: str, line: str, resource: Resource | None = None) -> Symptom:
    return Symptom(
        f"shop/{pod}",
        Attachment("net", pod, "eth0"),
        Difference(line, resource.mend if resource else REFRESH, resource),
    )


def found(*symptoms: Symptom, tables: Tables = NONE) -> list[Finding]:
    return causes(symptoms, tables, mend)


def texts(*symptoms: Symptom, tables: Tables = NONE) -> list[str]:
    return [item.text for item in found(*symptoms, tables=tables)]


def veth(pod: str) -> VethPair:
    return VethPair(f"veth{pod}", "fe:00:00:00:00:01", "eth0", "0a:00:00:00:00:01", 1500, "br0", False, False)


def rules_of(pod: str) -> list[Symptom]:
    policy = PodPolicy((f"10.1.0.{pod}",), (), closed=False, pod="", token=pod)
    gate = Gate(f"veth{pod}", "ingress", pod, (), bucket="0")
    nat = NftMasquerade("nftables", 4, f"10.1.0.{pod}", "10.1.0.0/24", "")
    return [
        of(pod, f"policy chain in-{pod} is missing", policy),
        of(pod, f"spoofing guard from-{pod} of veth{pod} is missing", gate),
        of(pod, f"masquerading of 10.1.0.{pod} is missing (nftables)", nat),
    ]


EVERY = frozenset({"inet agent_cni_policy", "netdev agent_cni-0", "ip agent_cni"})


def test_a_flushed_ruleset_is_one_line_with_its_pods():
    (item,) = found(*(line for pod in "2345" for line in rules_of(pod)), tables=Tables(EVERY, EVERY))
    assert item.text == (
        "the ruleset was flushed: 4 pods open, 4 pods not masqueraded, 12 rules missing (shop/2, shop/3, shop/4 and 1 more)"
    )
    assert (item.severity, item.cause, len(item.symptoms), item.mend) == (
        Severity.OPEN,
        "ruleset-flushed",
        12,
        f"{REFRESH} 4",
    )


def test_a_deleted_table_takes_no_line_of_another():
    gone = frozenset({"ip agent_cni"})
    table, *others = found(*rules_of("2"), *rules_of("3"), tables=Tables(EVERY, gone))[::-1]
    assert table.text == "table ip agent_cni was deleted: 2 pods not masqueraded, 2 rules missing (shop/2, shop/3)"
    assert table.severity is Severity.BROKEN
    assert len(others) == 4


def test_one_line_of_many_pods_is_said_once():
    line = "sysctl net.ipv4.ip_forward is 0, not 1"
    assert texts(*(of(pod, line, FORWARDING) for pod in "2345")) == [
        f"{line} (4 pods: shop/2, shop/3, shop/4 and 1 more)"
    ]
    assert texts(of("2", line, FORWARDING)) == [f"shop/2: {line}"]


def test_what_is_on_a_bridge_that_is_gone_is_told_with_it():
    lines = [(item, one) for item in "23" for one in (("bridge br0 is missing", BRIDGE), ("gateway address 10.1.0.1/24 is missing on br0", GATEWAY))]  # fmt: skip
    (item,) = found(*(of(pod, line, resource) for pod, (line, resource) in lines))
    assert item.text == "bridge br0 is missing, and 2 more with it (2 pods: shop/2, shop/3)"


def test_a_veth_that_is_gone_is_one_line_of_its_pod_and_none_of_the_others():
    own, route = (
        PodAddress("eth0", "10.1.0.2/24", dad=False),
        PodRoute("eth0", "0.0.0.0/0", "10.1.0.1", 0, 0, 0, 0, 0, False),
    )
    lost = [
        of("2", "host interface veth2 is missing", veth("2")),
        of("2", "eth0 is missing in the pod", PodLink("eth0", "0a:00:00:00:00:01", 1500)),
        of("2", "address 10.1.0.2/24 is missing on eth0 in the pod", own),
        of("2", "route 0.0.0.0/0 is missing in the pod", route),
        of("2", "spoofing guard from-2 of veth2 is missing", Gate("veth2", "ingress", "2", (), bucket="0")),
        of("3", "route 0.0.0.0/0 is missing in the pod", route),
    ]
    assert texts(*lost) == [
        "shop/2: host interface veth2 is missing, and 4 more with it",
        "shop/3: route 0.0.0.0/0 is missing in the pod",
    ]


def test_an_address_takes_the_routes_of_its_family():
    own, route = (
        PodAddress("eth0", "10.1.0.2/24", dad=False),
        PodRoute("eth0", "0.0.0.0/0", "10.1.0.1", 0, 0, 0, 0, 0, False),
    )
    six = PodRoute("eth0", "::/0", "fd00::1", 0, 0, 0, 0, 0, False)
    said = texts(
        of("2", "address 10.1.0.2/24 is missing on eth0 in the pod", own),
        of("2", "route 0.0.0.0/0 is missing in the pod", route),
        of("2", "route ::/0 is missing in the pod", six),
    )
    assert said == [
        "shop/2: address 10.1.0.2/24 is missing on eth0 in the pod, and 1 more with it",
        "shop/2: route ::/0 is missing in the pod",
    ]


def test_many_lines_of_one_thing_are_one():
    rules = PodRules("/run/netns/x", "iptables-nft", 4, "")
    lines = [f"IPv4 rules in the pod (iptables-nft): nat ACNI_OUTPUT: -A {n} is missing" for n in range(5)]
    (item,) = found(*(of("2", line, rules) for line in lines))
    assert item.text.startswith(
        "shop/2: IPv4 rules in the pod (iptables-nft): 5 are missing, such as nat ACNI_OUTPUT: -A 0"
    )
    assert item.severity is Severity.OPEN
    assert len(item.symptoms) == 5


def test_lines_that_differ_by_names_of_pods_alone_are_one_from_three_on():
    lines = [of(pod, f"host interface veth{pod} is down", veth(pod)) for pod in "234"]
    assert texts(*lines) == ["host interface … is down (3 pods: shop/2, shop/3, shop/4)"]
    assert len(texts(*lines[:2])) == 2


def test_how_bad_it_is_is_the_worst_of_it():
    assert worst(()) is Severity.NOTE
    bad = [Finding("", "", severity) for severity in Severity]
    assert [worst(bad[: many + 1]).status for many in range(4)] == [0, 1, 3, 4]


def test_rules_that_a_pod_has_inside_are_one_line_when_they_were_flushed():
    table = PolicyTable("/run/netns/x")
    policy = PodPolicy(("10.1.0.2",), (), closed=False, pod="", token="0a", netns="/run/netns/x")
    lines = [("policy chain input is missing", table), ("policy chain in-0a is missing", policy), ('policy set guarded lacks "eth0"', policy)]  # fmt: skip
    (item,) = found(*(of("2", line, resource) for line, resource in lines), of("2", lines[0][0], table))
    assert item.text == "shop/2: the ruleset in the pod was flushed: 3 rules missing"


def test_a_link_of_a_pod_is_no_link_of_the_host_that_is_called_alike():
    lost = Macvlan("eth0", "eth0", "bridge", "", 1500, 0, False, "")
    said = texts(of("2", "master eth0 is down", lost), of("3", "host interface veth3 has hairpin off", veth("3")))
    assert said == ["shop/2: master eth0 is down", "shop/3: host interface veth3 has hairpin off"]
