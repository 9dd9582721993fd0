"""What a `policy` section says and does not mean, for people: nothing of it is wrong."""

from __future__ import annotations

from collections.abc import Iterator

from cni.policy.config import read
from cni.protocol.config import Section

_NAMES = "domainNames or a list of names in allowDNS"
_ABOUT_QUESTIONS = ("resolve", "resolveRate", "resolveKeep", "resolveInto", "resolveOwn")


def hints(section: Section, where: str) -> Iterator[str]:
    """What of a valid section does nothing, by its path."""
    policy = read(section, where)
    rules = policy.egress or ()
    opens = next((at for at, rule in enumerate(rules) if rule.has_everybody and rule.ports is None), None)
    named = [at for at, rule in enumerate(section.get("egress") or ()) if _has_names(rule)]
    fed = bool(section.get("policyDir") or section.get("cluster"))
    if opens is not None and named:
        yield f"{where}.egress[{named[0]}]: domainNames do nothing beside a rule that lets out to everybody"
    if isinstance(section.get("allowDNS"), list) and not fed and not policy.closes("egress"):
        yield f"{where}.allowDNS: a list does nothing where egress is open"
    if section.get("allowDNS") is True and policy.resolving:
        yield f"{where}.allowDNS: true does nothing beside domainNames; what may be asked for besides is a list, or resolve: any"
    if not (named or policy.asking.names or fed):
        for key in (key for key in _ABOUT_QUESTIONS if key in section):
            yield f"{where}.{key}: means nothing without {_NAMES}"


def _has_names(rule: object) -> bool:
    return isinstance(rule, dict) and any(peer.get("domainNames") for peer in rule.get("to") or ())
