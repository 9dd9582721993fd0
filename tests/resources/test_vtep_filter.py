"""Who may send VXLAN: the table as nft reads it."""

from __future__ import annotations

from cni.resources import VtepFilter


def test_each_port_has_its_networks_and_each_version_its_hosts():
    script = VtepFilter(("192.0.2.2", "2001:db8::2", "192.0.2.3"), ("4789 100", "4789 300", "8472 200")).script()
    assert "set known4 { type ipv4_addr; elements = { 192.0.2.2, 192.0.2.3 } }" in script
    assert "set known6 { type ipv6_addr; elements = { 2001:db8::2 } }" in script
    for family, ip in ((4, "ip"), (6, "ip6")):
        assert f"udp dport 4789 @th,96,24 {{ 100, 300 }} {ip} saddr != @known{family} drop" in script
        assert f"udp dport 8472 @th,96,24 {{ 200 }} {ip} saddr != @known{family} drop" in script
        assert f"\nudp dport 8472 {ip} daddr @known{family} drop" in script
    assert "udp sport 4789 udp dport != 4789 fib saddr type local drop" in script
    assert "hook output" not in script


def test_of_an_encrypted_cluster_nothing_passes_another_link_in_and_out():
    script = VtepFilter(("fd00::2",), ("4789 100",), "agent-cni-wg").script()
    assert 'udp dport 4789 @th,96,24 { 100 } iifname != "agent-cni-wg" drop' in script
    assert 'udp dport 4789 exthdr frag exists iifname != "agent-cni-wg" drop' in script
    assert (
        'hook output priority raw; policy accept;\noifname != "agent-cni-wg" udp dport 4789 @th,96,24 { 100 } drop'
        in script
    )


def test_a_host_that_knows_nobody_hears_nobody():
    script = VtepFilter((), ("4789 100",)).script()
    assert "set known4 { type ipv4_addr; }" in script
    assert "@th,96,24 { 100 } ip saddr != @known4 drop" in script


def test_by_an_uplink_it_may_come_by_another_way_than_answers_go():
    """Hosts at different uplinks do; from pods, who are behind no uplink, it may not."""
    script = VtepFilter(("192.0.2.2",), ("4789 100",), uplinks=("eth0", "bond0")).script()
    astray = 'iifname != { "eth0", "bond0" } fib saddr . iif oif missing drop'
    assert f"udp dport 4789 @th,96,24 {{ 100 }} {astray}" in script
    assert script.count("fib saddr . iif oif missing") == script.count(astray) == 2


def test_what_comes_from_inside_has_no_network_of_others_on_the_port():
    """And what is of a user's socket none at all, where it was not in a tunnel."""
    script = VtepFilter(("192.0.2.2",), ("4789 100",), entrances=("eth0",)).script()
    assert 'udp dport 4789 @th,96,24 != { 100 } iif "lo" drop' in script
    assert (
        'udp dport 4789 @th,96,24 != { 100 } iifname != { "eth0" } meta iifkind != { "bond", "team", "vlan" } drop'
        in script
    )
    assert "udp dport 4789 ip daddr @known4 meta skuid != 0 meta mark and 4096 == 0 drop" in script
