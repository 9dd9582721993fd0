"""A pod that wants its questions to get by unjudged, or to keep others from asking; and what befalls the rules by which they wait."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path

import dns.edns
import dns.message
import dns.rrset
import pytest
from lab import AGENT_CNI, Host, Lab, Namespace, eventually
from resolver import Gate, Resolver, ask
from town import Member, Town

ZONE = {
    "api.example.com": [("A", "198.51.100.7", 5), ("AAAA", "2001:db8:7::7", 5)],
    "evil.example": [("A", "198.51.100.66", 5)],
}
WEB = {"egress": [{"to": [{"domainNames": ["api.example.com"]}], "ports": [{"port": 80}]}]}
SMUGGLER = Path(__file__).parent.parent / "scenes/smuggler.py"

#: Who opens connections, says half a question, and resets them.
HALVES = """
import socket, struct, sys
for _ in range(int(sys.argv[2])):
    with socket.create_connection((sys.argv[1], 53), 5) as made:
        made.send(b"\\0")
        made.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
"""

#: Who sends a text in datagrams of a size, in one packet.
SEGMENTED = """
import socket, sys
made = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET, socket.SOCK_DGRAM)
made.setsockopt(socket.IPPROTO_UDP, 103, int(sys.argv[2]))
made.sendto(bytes.fromhex(sys.argv[3]), (sys.argv[1], 53))
"""

#: Who answers two questions by one packet, and who asks them from one port.
TOGETHER = """
import socket, sys
made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
made.bind(("0.0.0.0", 53))
print("ready", flush=True)
(_, asker), _ = made.recvfrom(999), made.recvfrom(999)
first, second = map(bytes.fromhex, sys.argv[1:])
made.setsockopt(socket.IPPROTO_UDP, 103, len(first))
made.sendto(first + second, asker)
"""
BOTH = """
import socket, sys
made = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
made.settimeout(10)
for text in sys.argv[2:]:
    made.sendto(bytes.fromhex(text), (sys.argv[1], 53))
for text in sys.argv[2:]:
    print(made.recv(999).hex())
"""


@pytest.fixture
def town(lab: Lab, host: Host) -> Iterator[Town]:
    with ExitStack() as held:
        yield Town(host, lab, "bridged", held)


def link_local(where: Namespace) -> str:
    said = where.run("ip", "-6", "-o", "address", "show", "dev", "eth0", "scope", "link").stdout
    return said.split()[3].split("/")[0]


def smuggled(pod: Member, server: Member, name: str) -> None:
    ends = [end for of in (pod, server) for end in (of.address(4), of.address(6), link_local(of.pod))]
    pod.pod.run(sys.executable, "-I", SMUGGLER, "eth0", *ends, dns.message.make_query(name, "A").to_wire().hex())


def test_no_question_gets_by_however_its_packets_are_made(town: Town):
    server, pod = town.member(), town.member(WEB)
    with Gate(town.host) as gate, Resolver(server.pod, ZONE) as resolver:
        smuggled(pod, server, "evil.example")
        eventually(lambda: gate.counted().get("refused", 0) >= 5)
        assert resolver.asked() == []
        smuggled(pod, server, "api.example.com")
        eventually(lambda: len(resolver.asked()) >= 5)
        assert {name for name, *_ in resolver.asked()} == {"api.example.com"}, "and it is not for their making alone"


@pytest.mark.threat
@pytest.mark.parametrize("family", [4, 6])
def test_no_question_hides_in_another_that_is_two_on_the_wire(town: Town, family: int):
    """Several datagrams are one packet inside a host (udp(7), UDP_SEGMENT): what is padding there is a question of its own behind it."""
    server, pod = town.member(), town.member(WEB)
    hidden = dns.message.make_query("evil.example", "A").to_wire()
    asked = dns.message.make_query("api.example.com", "A", use_edns=0, options=[dns.edns.GenericOption(12, hidden)])
    whole = asked.to_wire()
    with Gate(town.host), Resolver(server.pod, ZONE) as resolver:
        for size in (len(whole) - len(hidden), len(whole)):
            pod.pod.run("python3", "-c", SEGMENTED, server.address(family), size, whole.hex())
        eventually(resolver.asked)
        assert {name for name, *_ in resolver.asked()} == {"api.example.com"}


def test_answers_that_come_as_one_packet_are_heard_each_by_itself(town: Town):
    """As a host hands them on that puts datagrams of one flow together (ethtool(8), rx-udp-gro-forwarding)."""
    server, pod = town.member(), town.member(WEB)
    answers = []
    for kind, value in (("AAAA", "2001:db8:7::7"), ("A", "198.51.100.7")):
        answer = dns.message.make_response(dns.message.make_query("api.example.com", kind, id=len(answers)))
        answer.answer.append(dns.rrset.from_text("api.example.com.", 5, "IN", kind, value))
        answers.append(answer.to_wire())
    questions = [
        dns.message.make_query("api.example.com", kind, id=at).to_wire() for at, kind in enumerate(("AAAA", "A"))
    ]
    with Gate(town.host), server.pod.start("python3", "-c", TOGETHER, *(item.hex() for item in answers)) as serving:
        assert serving.stdout
        assert serving.stdout.readline()
        heard = pod.pod.run(
            "python3", "-c", BOTH, server.address(4), *(item.hex() for item in questions)
        ).stdout.split()
    assert heard == [item.hex() for item in answers]


def test_what_a_pod_does_not_finish_keeps_nobody_from_asking(town: Town):
    server, pod, other = town.member(), town.member(WEB), town.member(WEB)
    with Gate(town.host), Resolver(server.pod, ZONE):
        pod.pod.run("python3", "-c", HALVES, server.address(4), 100)
        _, _, waiting, *_ = town.host.run("cat", "/proc/net/netfilter/nfnetlink_queue").stdout.split()
        assert waiting == "0"
        for tcp in (False, True):
            assert ask(other.pod, server.address(4), "api.example.com", tcp=tcp).code == "NOERROR"
            assert ask(pod.pod, server.address(4), "api.example.com", tcp=tcp).code == "NOERROR"


@pytest.mark.parametrize("subnet", ["10.6.0.0/24", "fd00:6::/64"])
def test_a_pod_of_one_family_is_answered_for_both(town: Town, subnet: str):
    server = town.member()
    pod = town.member(WEB, ipam={"ranges": [[{"subnet": subnet}]]}, name="one", bridge="br6")
    address = server.address(6 if ":" in subnet else 4)
    with Gate(town.host), Resolver(server.pod, ZONE):
        assert ask(pod.pod, address, "api.example.com", "A").addresses == ["198.51.100.7"]
        assert ask(pod.pod, address, "api.example.com", "AAAA").addresses == ["2001:db8:7::7"]


def test_what_somebody_flushed_comes_back_with_what_was_told(town: Town):
    server, pod = town.member(), town.member(WEB)
    town.host.run("ip", "route", "add", "198.51.100.0/24", "via", server.address(4))
    server.pod.run("ip", "address", "add", "198.51.100.7/32", "dev", "lo")
    with Gate(town.host), Resolver(server.pod, ZONE, address=server.address(4)):
        assert ask(pod.pod, server.address(4), "api.example.com").addresses
        assert "error" not in pod.actor.connect("198.51.100.7", 80)
        town.host.run("nft", "flush", "ruleset")
        said = town.host.check(pod.conf, pod.pod, pod.result).stdout
        assert "DNS chain coming is missing" in said
        assert "policy set d4-" in said
        town.host.run(AGENT_CNI, "refresh")
        town.host.check(pod.conf, pod.pod, pod.result).ok()
        assert ask(pod.pod, server.address(4), "evil.example").code == "REFUSED"
        assert ask(pod.pod, server.address(4), "api.example.com").addresses
        assert "error" not in pod.actor.connect("198.51.100.7", 80)


#: What kube-proxy has of Services whose ports are 53, and of some whose backend's is.
SERVICES = """
add table ip nat
add chain ip nat pre {{ type nat hook prerouting priority dstnat; }}
add rule ip nat pre ip daddr 10.96.0.10 meta l4proto {{ tcp, udp }} th dport 53 dnat to {server}:53
add rule ip nat pre ip daddr 10.96.0.11 meta l4proto {{ tcp, udp }} th dport {{ 80, 5353 }} dnat to {server}:53
"""


@pytest.mark.parametrize("tcp", [False, True], ids=["udp", "tcp"])
def test_a_service_is_asked_as_its_server_is_and_by_no_other_port(town: Town, tmp_path: Path, tcp: bool):
    server, pod = town.member(), town.member(WEB)
    rules = tmp_path / "services.nft"
    rules.write_text(SERVICES.format(server=server.address(4)))
    town.host.run("nft", "-f", rules)
    with Gate(town.host), Resolver(server.pod, ZONE) as resolver:
        assert ask(pod.pod, "10.96.0.10", "api.example.com", tcp=tcp).addresses == ["198.51.100.7"]
        assert ask(pod.pod, "10.96.0.10", "evil.example", tcp=tcp).code == "REFUSED"
        for port in (80, 5353):
            assert ask(pod.pod, "10.96.0.11", "evil.example", tcp=tcp, port=port, seconds=0.5) is None
        assert {name for name, *_ in resolver.asked()} == {"api.example.com"}
