"""What STATUS tries of a policy, and what it says where the kernel cannot do it."""

from __future__ import annotations

import errno
import re

import pytest

from cni.errors import KernelRefused, Unavailable
from cni.kernel import netfilter, nftables
from cni.policy.model import Allowance, Policy
from cni.policy.rehearsal import refuse_impossible
from cni.resources import asking

REFUSAL = "Error: Could not process rule: Operation not supported\nadd chain netdev agent_cni into-x\n^^^^"


@pytest.fixture
def tried(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The scripts that were rehearsed, on a kernel before 5.16: it has no egress hook."""
    scripts: list[str] = []

    def rehearse(script: str, question: str) -> nftables.Answer:
        scripts.append(script)
        return nftables.Answer("hook egress" not in script, "", REFUSAL if "hook egress" in script else "")

    monkeypatch.setattr(nftables, "rehearse", rehearse)
    monkeypatch.setattr(nftables, "present", lambda: True)
    netfilter.nft_tried.cache_clear()
    return scripts


CLOSED, SILENT = Policy(ingress=()), Policy(egress=(), log=True)


@pytest.mark.parametrize(("policy", "grows"), [(CLOSED, False), (CLOSED, True), (Policy(), True)])
def test_a_kernel_without_the_egress_hook_serves_no_policy_that_closes_ingress(
    tried: list[str], policy: Policy, grows: bool
):
    for _ in range(2):
        with pytest.raises(Unavailable) as caught:
            refuse_impossible(policy, grows=grows, has_port=True)
        assert caught.value.code == 50
        assert "Operation not supported" in caught.value.msg
    assert len(tried) == 2


@pytest.mark.parametrize("policy", [SILENT, Policy(), Policy(ingress=(Allowance(),))])
def test_it_serves_one_that_needs_no_such_hook(tried: list[str], policy: Policy):
    refuse_impossible(policy, grows=False, has_port=True)
    assert "hook ingress" in tried[0]


@pytest.mark.parametrize("policy", [CLOSED, SILENT])
def test_a_pod_without_a_port_has_no_gates(tried: list[str], policy: Policy):
    refuse_impossible(policy, grows=True, has_port=False)
    assert "netdev" not in tried[0]


def test_what_went_well_is_not_tried_again(tried: list[str]):
    for _ in range(3):
        refuse_impossible(SILENT, grows=False, has_port=True)
    assert len(tried) == 1


def test_the_policys_own_rules_are_among_it(tried: list[str]):
    refuse_impossible(SILENT, grows=False, has_port=True)
    assert re.search(r"add rule inet agent_cni_policy out-\S+ .*log ", tried[0])


def test_a_kernel_that_has_no_packet_wait_serves_no_policy_with_names(
    tried: list[str], monkeypatch: pytest.MonkeyPatch
):
    def refused(in_pod: bool) -> None:
        raise KernelRefused("No such file or directory", errno.ENOENT)

    monkeypatch.setattr(asking, "rehearsed", refused)
    named = Policy(egress=(Allowance(domains=("api.example.com",)),))
    for has_port in (True, False):
        with pytest.raises(Unavailable) as caught:
            refuse_impossible(named, grows=False, has_port=has_port)
        assert (caught.value.code, "nft_queue" in caught.value.msg) == (50, True)
    refuse_impossible(SILENT, grows=False, has_port=True)
