"""Pods with addresses that are another host's by now: nobody may take them for who has the address."""

from __future__ import annotations

from cni import log
from cni.kernel.netlink import Rtnl
from cni.naming import Attachment
from cni.state import Store

#: What a port says that was set down here (its alias, ip-link(8)): who sets it up again may be another process, which knows nothing else.
MARK = "agent-cni: cut off"


class CutOff:
    """Keeps the ports of such pods down, whoever sets them up, and sets them up again when the address is theirs after all."""

    def __init__(self) -> None:
        #: The ports that are down, by name; None before the kernel was asked which those are.
        self._down: set[str] | None = None
        self._told: set[Attachment] = set()

    def keep(self, state: Store) -> None:
        """Set down what is up, and up what was set down and need not be any more. Raises KernelRefused."""
        lost = {attachment.host_interface: attachment for attachment in state.stranded()}
        if self._down is not None and not lost and not self._down:
            return
        host = Rtnl.kept()
        try:
            if self._down is None:
                self._down = {link.name for link in host.links() if link.alias == MARK}
            for name in sorted(self._down - lost.keys()):
                _set_up(host, name)
                self._down.discard(name)
            for name, attachment in sorted(lost.items()):
                self._down.add(name)
                self._tell(attachment, is_there=_set_down(host, name))
        finally:
            host.give_back()
        self._told &= {*lost.values()}

    def _tell(self, attachment: Attachment, *, is_there: bool) -> None:
        if attachment not in self._told:
            self._told.add(attachment)
            name = attachment.host_interface
            what = f"{name} is down" if is_there else f"there is no {name} to set down"
            why = "its address is another host's by now"
            log.warning("member", f"{attachment} is cut off: {why}, {what}", network=attachment.network)


def _set_down(host: Rtnl, name: str) -> bool:
    """Whether there is such a port. It says so before it is so: each step can be the last."""
    if not (link := host.link_by_name(name)):
        return False
    if link.alias != MARK:
        host.set_link(link, ifalias=MARK)
    if link.up:
        host.set_down(link)
    return True


def _set_up(host: Rtnl, name: str) -> None:
    if link := host.link_by_name(name):
        host.set_link(link, up=True)
        host.set_link(link, ifalias="")
