"""The conflists that the runtime attaches pods by: put where it reads them when this host can serve pods, and not before.

A template is a conflist for all hosts, in a folder that a ConfigMap may be mounted at. One that becomes another is put anew; what is
there by then is never taken away because something is away. Of those that somebody else wrote there the networks are shared.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from cni import log, plugin
from cni.cluster.model import Network
from cni.conflist import placed
from cni.conflist.file import configurations, judged, misspelt, networks
from cni.conflist.template import filled
from cni.errors import CniError, Conflict, Forbidden, InvalidConfig, Unavailable
from cni.ipam.source import is_delegated
from cni.member.trouble import Trouble
from cni.protocol import config
from cni.state import Store
from cni.state.membership import HELD

_NAMES = "*.conflist"


class _Made(NamedTuple):
    """What was made of a template's text and of blocks, and the cluster's networks in it."""

    template: bytes
    spans: tuple[str, ...] | None
    text: str
    networks: tuple[Network, ...]


class Conflists:
    """What of `templates` is to be in `runtime`, the folder that the runtime reads; its plugins are in `programs`."""

    def __init__(self, templates: Path, runtime: Path, programs: Path) -> None:
        self._templates, self._runtime, self._programs = templates, runtime, programs
        self._made: dict[str, _Made] = {}
        self._trouble = Trouble("conflist")
        #: Why they are not all there, for people; empty: they are.
        self.lacking = "the cluster has not been heard yet"

    def keep(self, state: Store, spans: tuple[str, ...] | None, serves: Callable[[], None]) -> bool:
        """Have each be as its template says for a host with these blocks, once its networks have blocks here; whether all are, which
        `serves` says to whoever waits for it.

        Where blocks are not assigned (None) nothing is filled in. The cluster's networks in them are shared, as by a first pod. What is
        wrong is said once, and tried again by the next call.
        """
        troubles, waiting = self._put_all(state, spans)
        if not (troubles or waiting):
            try:
                serves()
            except Forbidden as error:
                troubles.append(error.msg)
        if troubles:
            self._trouble.is_so("; ".join(troubles))
        else:
            self._trouble.over()
        self.lacking = "; ".join(troubles + waiting)
        return not self.lacking

    def _put_all(self, state: Store, spans: tuple[str, ...] | None) -> tuple[list[str], list[str]]:
        """What is wrong, and what is waited for."""
        if spans == ():
            return ["this host is given no block of addresses yet (spec.podCIDRs of its Node)"], []
        troubles, waiting = list[str](), list[str]()
        templates = sorted(self._templates.glob(_NAMES))
        for template in templates:
            try:
                waiting += self._keep(state, template, spans)
            except CniError as error:
                troubles.append(f"{template}: {error.msg}")
            except OSError as error:
                troubles.append(f"{error.filename or template}: {error.strerror}")
        if not templates:
            troubles.append(f"{self._templates} has no conflist")
        elif not (troubles or waiting):
            self._leave_only({template.name for template in templates})
        return troubles, waiting

    def _keep(self, state: Store, template: Path, spans: tuple[str, ...] | None) -> list[str]:
        """Put one, or name what it waits for."""
        made = self._of_host(template, spans)
        if missing := list(self._missing(made.text)):
            what = f"{self._programs} has no {', '.join(missing)}"
            raise Unavailable(
                f"{what}: a plugin of this suite is put there by agent-cni install (of a DaemonSet: rollout restart)"
            )
        file = self._runtime / template.name
        lacking = [network for network in made.networks if not self._has_blocks(state, network)]
        if lacking:
            return [f"network {network.name!r} has no block of addresses here yet" for network in lacking]
        if file.exists() and not placed.is_as_put(file) and file.read_text(errors="replace") != made.text:
            raise Conflict(f"{file} is somebody's own, or was edited, and is kept; without it this would be put there")
        if placed.put(file, made.text):
            log.event("member", "conflist", None, path=str(file))
        return []

    def _of_host(self, template: Path, spans: tuple[str, ...] | None) -> _Made:
        """Raises InvalidConfig with all that is wrong."""
        text = template.read_bytes()
        known = self._made.get(template.name)
        if known and (known.template, known.spans) == (text, spans):
            return known
        if faults := misspelt(template, text):  # of what is to be filled in, and so is read before it is judged
            raise InvalidConfig("; ".join(faults))
        conflist = config.parse(text, "$")
        own = conflist if spans is None else filled(conflist, spans)
        made = text.decode() if own == conflist else json.dumps(own, indent=2) + "\n"
        faults = [f"{item['where']}: {fault}" for item in judged(template, made.encode()) for fault in item["faults"]]
        if faults:
            raise InvalidConfig("; ".join(faults))
        self._made[template.name] = _Made(text, spans, made, tuple(networks(template, made.encode())))
        return self._made[template.name]

    def _missing(self, conflist: str) -> Iterator[str]:
        """The plugins that are not there; where none of ours is, the runtime finds its plugins somewhere else."""
        if any((self._programs / name).exists() for name in plugin.names()):
            for netconf in json.loads(conflist)["plugins"]:
                delegate = netconf["ipam"].get("type") if isinstance(netconf.get("ipam"), dict) else None
                is_called = is_delegated(netconf) or netconf["type"] not in plugin.names()
                called = [netconf["type"], str(delegate or "") if is_called else ""]
                yield from (name for name in called if name and not (self._programs / name).exists())

    def _has_blocks(self, state: Store, network: Network) -> bool:
        """Whether pods can have an address of each of its families here; where calls do not know it, they do from now on."""
        answers = state.refused(network)
        if not answers:
            with state.transaction():
                state.share(network)
        elif answers[0]:
            raise Conflict(answers[0])
        families = {6 if ":" in pool.subnet else 4 for pool in network.pools}
        held = (holding.block for holding in state.blocks(network.name) if holding.state == HELD)
        return answers == [""] and families <= {block.addresses.version for block in held}

    def _leave_only(self, names: set[str]) -> None:
        """Take away what was put there for a template that is no more, once what there is now is in its place."""
        for name in placed.known(self._runtime).keys() - names:
            file = self._runtime / name
            if placed.is_as_put(file):
                placed.take(file)
                log.event("member", "conflist", None, path=str(file), gone=True)


class Written:
    """What somebody wrote into `runtime`, the folder that the runtime reads."""

    def __init__(self, runtime: Path) -> None:
        self._runtime = runtime
        self._texts: dict[Path, bytes] = {}

    def share(self, state: Store) -> None:
        """Share the cluster's networks of its files, once for each text, so that no first pod waits until the cluster has taken one.
        What calls know already stays as they had it. What is wrong with a file its calls say, and `doctor`.
        """
        texts = dict(self._read())
        for file in texts.items() - self._texts.items():
            for network in _right(*file):
                if not (state.shared(network.name) or state.outside_blocks(network.name)):
                    with state.transaction():
                        state.share(network)
        self._texts = texts

    def _read(self) -> Iterator[tuple[Path, bytes]]:
        for file in configurations(self._runtime):
            with suppress(OSError):
                yield file, file.read_bytes()


def _right(file: Path, text: bytes) -> list[Network]:
    """The networks of a file that has no fault."""
    with suppress(CniError):
        if not any(item["faults"] for item in judged(file, text)):
            return list(networks(file, text))
    return []
