"""The `policy` section of a configuration."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from cni.errors import InvalidConfig
from cni.policy.folder import load
from cni.policy.model import Allowance, Policy
from cni.policy.peers import ports_of, spans_of
from cni.protocol.call import Call
from cni.protocol.config import Config


def section_of(conf: Config, call: Call) -> Policy | None:
    """The policy a validated configuration asks for, or None.

    With a `policyDir`, what its NetworkPolicies allow the call's pod adds to it. Raises InvalidConfig naming
    the entry that is impossible.
    """
    section = conf.get("policy")
    if section is None:
        return None
    policy = read(section, "$.policy")
    return _with_folder(policy, Path(section["policyDir"]), call.pod) if section.get("policyDir") else policy


def _with_folder(policy: Policy, folder: Path, pod: str) -> Policy:
    """Policies add up: a direction anybody speaks of is shut but for what anybody allows."""
    cluster = load(folder)
    return replace(
        policy,
        ingress=_sum(policy.ingress, cluster.allowances("ingress", pod)),
        egress=_sum(policy.egress, cluster.allowances("egress", pod)),
    )


def _sum(one: tuple[Allowance, ...] | None, other: tuple[Allowance, ...] | None) -> tuple[Allowance, ...] | None:
    return other if one is None else one + (other or ())


def read(section: Config, where: str) -> Policy:
    """Read a `policy` section."""
    deny = bool(section.get("defaultDeny"))
    closed = {"ingress": deny, "egress": deny or bool(section.get("egressDrop"))}
    rules = {name: _direction(section.get(name), name, closed[name], f"{where}.{name}") for name in closed}
    return Policy(
        ingress=rules["ingress"],
        egress=rules["egress"],
        established=bool(section.get("allowEstablished", True)),
        dns=bool(section.get("allowDNS")),
        anti_spoof=bool(section.get("antiSpoof", True)),
        host_access=bool(section.get("hostAccess", True)),
        log=bool(section.get("log")),
    )


def _direction(raw: list[Any] | None, name: str, closed: bool, where: str) -> tuple[Allowance, ...] | None:
    if raw is None:
        return () if closed else None
    side = "from" if name == "ingress" else "to"
    cidrs = [{"ipBlock": {"cidr": item}} for item in raw if isinstance(item, str)]
    rules = [(item, f"{where}[{at}]") for at, item in enumerate(raw) if not isinstance(item, str)]
    if cidrs:
        rules.insert(0, ({side: cidrs}, where))
    return tuple(_allowance(rule, side, at) for rule, at in rules)


def _allowance(rule: dict[str, Any], side: str, where: str) -> Allowance:
    wrong = "to" if side == "from" else "from"
    if wrong in rule:
        raise InvalidConfig(f"{where}.{wrong}: a rule of this direction has {side!r}")
    blocks = [item["ipBlock"] for item in rule.get(side) or ()]
    return Allowance(spans_of(blocks, where) if blocks else None, ports_of(rule.get("ports") or (), where))
