from __future__ import annotations

from ipaddress import ip_address

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cni.naming import Attachment, is_host_end, is_mac, mac_of_address, vtep_mac, vxlan_interface

ATTACHMENTS = st.builds(Attachment, st.text("ab-."), st.text("ab-."), st.text("ab-."))


def test_names_are_what_earlier_releases_computed():
    pod = Attachment("pods", "CONTAINER", "eth0")
    assert str(pod) == "pods/CONTAINER/eth0"
    assert pod.host_interface == "veth055550c6283"
    assert pod.host_mac == "fe:05:55:50:c6:28"
    assert pod.pod_mac == "0a:4e:80:12:90:21"


@given(ATTACHMENTS, ATTACHMENTS)
def test_other_attachments_have_other_names(one: Attachment, other: Attachment):
    names = [(item.digest, item.host_interface, item.host_mac, item.pod_mac) for item in (one, other)]
    assert (one == other) is (names[0] == names[1])
    assert one == other or not set(names[0]) & set(names[1])


@pytest.mark.parametrize("first", ["fe", "0e"], ids=["this release's", "the release before's"])
def test_a_host_end_is_known_by_its_name_and_mac(first: str):
    assert is_host_end("veth055550c6283", f"{first}:05:55:50:c6:28")
    assert not is_host_end("veth055550c6283", f"{first}:05:55:50:c6:29")
    assert not is_host_end("veth0", f"{first}:05:55:50:c6:28")


def test_each_node_has_another_vtep_mac():
    macs = {vtep_mac(link, node) for link in ("vxlan7", "vxlan8") for node in ("one", "other")}
    assert len(macs) == 4
    assert all(is_mac(mac) and mac.startswith("fe:") for mac in macs)


@given(ATTACHMENTS)
def test_names_are_ones_the_kernel_takes(pod: Attachment):
    assert len(pod.host_interface) == 15
    assert is_mac(pod.host_mac)
    assert is_mac(pod.pod_mac)
    assert int(pod.pod_mac[:2], 16) & 2, "locally administered"
    assert int(pod.host_mac[:2], 16) & 2


@given(st.ip_addresses(v=4))
def test_the_mac_of_an_ipv4_address_spells_it(address):
    mac = mac_of_address(address)
    assert mac.startswith("0a:58:")
    assert bytes.fromhex(mac.replace(":", ""))[2:] == address.packed


def test_the_mac_of_an_ipv6_address_is_the_same_everywhere():
    assert mac_of_address(ip_address("fd00::1")) == mac_of_address(ip_address("fd00:0::0001")) == "0a:68:46:5f:2b:de"
    assert mac_of_address(ip_address("fd00::2")) != mac_of_address(ip_address("fd00::1"))


@pytest.mark.parametrize("text", ["0a:58:0a:01:00:05", "0A-58-0A-01-00-05", "00:00:00:00:00:01", "fe:ff:ff:ff:ff:ff"])
def test_unicast_macs_are_macs(text: str):
    assert is_mac(text)


@pytest.mark.parametrize(
    "text",
    [
        "",
        "00:00:00:00:00:00",
        "ff:ff:ff:ff:ff:ff",
        "01:00:5e:00:00:01",
        "0a:58:0a:01:00",
        "0a:58:0a:01:00:05:06",
        "0a:58:0a:01:00:05\n",
        "0a580a010005",
        "0g:58:0a:01:00:05",
        "0a:58:0a:01:00:5",
    ],
    ids=[
        *("empty", "zero", "broadcast", "multicast", "short", "long", "newline", "no separators", "not hexadecimal"),
        "a single digit",
    ],
)
def test_others_are_none(text: str):
    assert not is_mac(text)


@pytest.mark.parametrize("vni", [1, 100, 0xFFFFFF])
def test_a_vxlan_device_is_named_for_its_vni(vni: int):
    assert vxlan_interface(vni) == f"vxlan{vni}"
    assert len(vxlan_interface(vni)) <= 15
