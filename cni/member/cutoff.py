"""Pods with addresses that are another host's by now: nobody may take them for who has the address."""

from __future__ import annotations

from cni import log
from cni.kernel.netlink import Rtnl
from cni.naming import Attachment
from cni.state import Store
from cni.state.membership import LOST


class CutOff:
    """Keeps the ports of such pods down, whoever sets them up, and sets them up again when the address is theirs after all."""

    def __init__(self) -> None:
        self._down: set[Attachment] = set()

    def keep(self, state: Store) -> None:
        """Set down what is up, and up what was set down and need not be any more. Raises KernelRefused."""
        lost = {*stranded(state)}
        if not lost | self._down:
            return
        host = Rtnl.kept()
        try:
            for attachment in sorted(lost | self._down):
                self._set(host, attachment, up=attachment not in lost)
        finally:
            host.give_back()

    def _set(self, host: Rtnl, attachment: Attachment, *, up: bool) -> None:
        link = host.link_by_name(attachment.host_interface)
        if link and link.up != up:
            host.set_link(link, up=True) if up else host.set_down(link)
        if up:
            self._down.discard(attachment)
        elif attachment not in self._down:
            self._down.add(attachment)
            what = f"{link.name} is down" if link else f"there is no {attachment.host_interface} to set down"
            why = "its address is another host's by now"
            log.warning("member", f"{attachment} is cut off: {why}, {what}", network=attachment.network)


def stranded(state: Store) -> list[Attachment]:
    """The attachments that have an address of a block that was lost."""
    lost = [holding.block for holding in state.blocks() if holding.state == LOST]
    found = (state.leases_between(block.network, block.addresses[0], block.addresses[-1]) for block in lost)
    return [attachment for leases in found for _, attachment in leases]
