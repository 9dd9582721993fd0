"""A policy's rules tried where nobody lives, so that a kernel without what they need is known before a pod comes."""

from __future__ import annotations

from collections.abc import Iterator

from cni.errors import KernelRefused, Unavailable
from cni.kernel import netfilter
from cni.policy.model import Policy
from cni.policy.rules import chain_rules
from cni.resources import Gate, GateTable, NftRules, PodPolicy, PolicyTable, asking

_TOKEN, _POD = "rehearsal00", "rehearsal"
_ADDRESSES = ("192.0.2.1", "2001:db8::1")


def refuse_impossible(policy: Policy, *, grows: bool, has_port: bool) -> None:
    """Rehearse what holds a pod: its chains and, where it `has_port` on the host, the gates there. A policy that `grows`,
    by a folder, may close what it leaves open now.

    Raises Unavailable with the reason of the kernel, which may have no packet wait, or where libnftables is not installed.
    """
    netfilter.choose(netfilter.NFTABLES)
    netfilter.nft_tried(
        "".join(item.declarations + item.script() for item in _rules(policy, grows=grows, has_port=has_port))
    )
    if policy.resolving is not None:
        try:
            asking.rehearsed(not has_port)
        except KernelRefused as error:
            raise Unavailable(f"questions cannot wait for the DNS gate (nft_queue, xt_NFQUEUE): {error.msg}") from None


def _rules(policy: Policy, *, grows: bool, has_port: bool) -> Iterator[NftRules]:
    inside = "" if has_port else _POD
    yield PolicyTable(inside, edition=2)
    chains = chain_rules(policy, _TOKEN, (4, 6), (), _POD)
    link = "" if has_port else "lo"
    yield PodPolicy(_ADDRESSES, chains, has_port and not policy.host_access, _POD, inside, link, _TOKEN, link)
    hooks = {
        "ingress": policy.anti_spoof or grows or policy.closes("egress"),
        "egress": grows or policy.closes("ingress"),
    }
    if has_port and any(hooks.values()):
        yield GateTable(_TOKEN)
        yield from (Gate("lo", hook, _TOKEN, ("accept",)) for hook, needed in hooks.items() if needed)
