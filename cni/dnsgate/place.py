"""A namespace in which pods are held to names: its queue, and its sets, as the gate does with them.

Pods with a host end are judged on the host, out of their reach, and each that has none in its own namespace.
"""

from __future__ import annotations

import errno
import ipaddress
from collections.abc import Callable, Collection, Iterable
from contextlib import AbstractContextManager, ExitStack, nullcontext, suppress

from cni.dnsgate.gate import Gate, Given
from cni.dnsgate.guest import Guest
from cni.dnsgate.inward import Inward
from cni.dnsgate.message import Answer, Name, Question, text_of
from cni.dnsgate.reached import Reached
from cni.errors import CniError, KernelRefused
from cni.kernel import connections, gatedir, nfqueue, ruleset
from cni.kernel.gatedir import Entry
from cni.kernel.injection import Inside, OntoLinks
from cni.kernel.netlink.channel import DumpInterrupted
from cni.kernel.netns import Netns
from cni.kernel.nfqueue import Queue
from cni.kernel.ruleset import Change
from cni.naming import DNS_QUEUE, POLICY_TABLE


class Place:
    """One namespace, the node's where `netns` is empty. Raises CniError where nobody could listen there."""

    def __init__(self, netns: str, inward: Inward, told: Callable[[str, Reached, Name], None]) -> None:
        self._inward, self._told = inward, told
        self.gate = Gate(self._admit, self._refused)
        self._pods: dict[str, Reached] = {}
        with ExitStack() as opened:
            self._netns = Netns(netns) if netns else None
            if self._netns:
                opened.callback(self._netns.close)
            with self._entered():
                self.queue = Queue(DNS_QUEUE)
                opened.callback(self.queue.close)
                self._wires: Inside | OntoLinks = Inside((4, 6)) if netns else OntoLinks()
            opened.pop_all()

    def close(self) -> None:
        """Listen no more."""
        self._wires.close()
        self.queue.close()
        if self._netns:
            self._netns.close()

    @property
    def reached(self) -> int:
        """How many addresses its pods may reach by names."""
        return sum(len(pod.addresses) for pod in self._pods.values())

    @property
    def lost(self) -> int:
        """How many packets were dropped because nobody had room for them; in a pod, how often some were."""
        listening = None if self._netns else nfqueue.listening(DNS_QUEUE)
        return listening.dropped if listening else self.queue.lost

    def go_by(self, entries: Iterable[Entry], now: float) -> None:
        """Judge for these pods from now on; what their sets hold is asked of the kernel where anything about one became another.
        Raises CniError.
        """
        wanted = {entry.token: entry for entry in entries}
        for token in self._pods.keys() - wanted.keys():
            del self._pods[token]
        with self._entered():
            for token, entry in wanted.items():
                known = self._pods.get(token)
                if known and known.guest.entry is entry:
                    continue
                guest = Guest(entry)
                pod = known or Reached(guest)
                there = {name: ruleset.keys(f"{POLICY_TABLE} {name}") for name in guest.every_set}
                pod.renew(guest, there, now)
                self._pods[token] = pod
                self._change(pod, list(pod.changes()))
        self.gate.go_by(self._pods.values())

    def serve(self, now: float) -> None:
        """Say what becomes of what waits. Raises KernelRefused."""
        verdicts, given = self.gate.decide(self.queue.held(), now)
        self.queue.decide(verdicts)
        for item in given:
            self._give(item)

    def look_back(self, now: float) -> None:
        """Forget what is too old, but addresses to which a connection lives. Raises CniError."""
        self.gate.forget(now)
        self.queue.decide(self.gate.left())
        due = {pod: old for pod in self._pods.values() if (old := pod.due(now))}
        if not due:
            return
        with self._entered():
            for pod, old in due.items():
                try:
                    alive = {key for own in pod.guest.addresses for key in connections.alive(own)}
                except DumpInterrupted:
                    continue
                pod.extend(old & alive, now)
                pod.forget(now)
                self._change(pod, list(pod.changes()))

    def _admit(self, pod: Reached, name: Name, answer: Answer, now: float) -> bool:
        """Have a pod's sets have what an answer told, before that passes; not what points inward, and not more than fits."""
        counted = self.gate.counted
        admitted: list[bytes] = []
        new: list[str] = []
        for address, ttl in answer.addresses:
            if self._inward.has(address, pod.guest.into):
                counted["inward"] += 1
            elif pod.is_full(address):
                counted["full"] += 1
            else:
                admitted.append(address)
                if pod.admit(address, name, ttl, now):
                    new.append(str(ipaddress.ip_address(address)))
        counted["admitted"] += len(new)
        gatedir.tell(new, text_of(name))
        lacking = pod.additions(admitted)
        if not lacking:
            return True
        try:
            with self._entered():
                ruleset.change(
                    Change(f"{POLICY_TABLE} {name}", frozenset(keys), frozenset()) for name, keys in lacking.items()
                )
        except CniError as error:
            self._told(f"what {text_of(name)} stands for is not let through: {error.msg}", pod, name)
            return False
        pod.added(lacking)
        return True

    def _change(self, pod: Reached, changes: Collection[Change]) -> None:
        """Have sets be as they are to be. Elements that somebody else took away are no reason to fail."""
        try:
            ruleset.change(changes)
        except KernelRefused as error:
            if error.errno != errno.ENOENT:
                raise
            for change in changes:
                gone = change.gone & ruleset.keys(change.container)
                with suppress(KernelRefused):
                    ruleset.change([change._replace(gone=gone)])
        pod.changed()

    def _refused(self, pod: Reached, question: Question) -> None:
        self._told("", pod, question.name)

    def _give(self, given: Given) -> None:
        if isinstance(self._wires, Inside):
            self._wires.give(given.packet)
        else:
            self._wires.give(given.packet, given.pod.guest.entry.link, given.mac)

    def _entered(self) -> AbstractContextManager[None]:
        return self._netns.entered() if self._netns else nullcontext()
