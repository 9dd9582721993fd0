"""Whose an address is: two networks of a node may have one; a policy table that knows pods by address may not."""

from __future__ import annotations

from cni.errors import Conflict
from cni.naming import Attachment
from cni.resources import Host, Resource


def refuse_shared_addresses(attachment: Attachment, addresses: tuple[str, ...], host: Host, *, policed: bool) -> None:
    """Two networks of a node may have one address; a policy table that knows pods by address may not."""
    others: dict[Attachment, list[Resource]] = {}
    for owner, other in host.others(*addresses):
        others.setdefault(owner, []).append(other)
    if not policed:
        others.pop(attachment, None)  # what a plugin of the same chain made
    if not others:
        return
    from cni.resources import PodPolicy, VethPair  # an address that is nobody's else is all that most calls have

    for owner, resources in others.items():
        policies = [item for item in resources if isinstance(item, PodPolicy) and not item.netns]
        held = {text for item in policies for text in item.addresses}
        if shared := held & set(addresses):
            raise Conflict(f"{owner} has a policy for {', '.join(sorted(shared))} too; one address has one policy")
        if policed and owner.network != attachment.network and any(isinstance(item, VethPair) for item in resources):
            raise Conflict(f"{owner} has one of {', '.join(addresses)} without a policy; one address has one policy")
