"""The agent from its beginning to its end."""

from __future__ import annotations

import os
import resource
import sys
from pathlib import Path
from typing import NamedTuple

from cni import plugin
from cni.agent.exporter import Exporter
from cni.agent.follower import Follower
from cni.agent.guard import Guard
from cni.agent.listener import listening, pass_on
from cni.agent.mender import Mender
from cni.agent.pool import Beside, Pool, hold_back_stopping, installation
from cni.agent.worker import Terms
from cni.protocol import schema
from cni.protocol.config import validator

_USUAL_DESCRIPTORS = 1024


class Upkeep(NamedTuple):
    """What is done beside calls: rules are put back, a folder of configurations is followed, and what is amiss repaired every so many
    seconds, 0 for never.
    """

    conf_dir: Path | None = None
    repairing: int = 0


class Bequest:
    """What the release before this one, which became this, had begun: repairs and refreshes go on, and end as its children."""

    def __init__(self) -> None:
        own = Path(f"/proc/self/task/{os.getpid()}/children")
        self._children = [int(pid) for pid in own.read_text().split()] if own.exists() else []

    def look(self) -> None:
        """Take leave of those that have ended."""
        self._children = [pid for pid in self._children if os.waitpid(pid, os.WNOHANG)[0] == 0]


def serve(path: Path, most: int, deadline: int, upkeep: Upkeep | None = None, exporter: Exporter | None = None) -> None:
    """Answer calls at `path` until SIGTERM or SIGINT, by at most `most` workers, each call within `deadline` seconds; do the
    upkeep, if any, and have spans of calls sent.

    After an installation the process becomes that release's agent, and keeps its socket.
    """
    bequest = Bequest()
    installed = installation()  # before the rest is imported: what is installed meanwhile would be half in here
    _have_room()
    os.umask(0o022)
    os.chdir("/")
    _warm()
    folder, repairing = upkeep or Upkeep()
    follower = Follower(folder) if folder else None
    mender = Mender(repairing, folder) if repairing else None
    hold_back_stopping()
    with listening(path) as listener:
        terms = Terms(deadline, exporter.spans if exporter else None)
        guard = Guard() if upkeep else None
        beside: tuple[Beside | None, ...] = (bequest, follower, exporter, guard, mender)
        outdated = Pool(listener.socket, most, terms, installed, [item for item in beside if item]).run()
        for other in (exporter, guard):
            if other:
                other.end()
        if outdated:
            pass_on(listener)
            os.execv(sys.executable, [sys.executable, "-I", *sys.argv])  # noqa: S606


def _have_room() -> None:
    """Have as many descriptors as processes usually may, where we may: more would slow programs that close all they could have."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _USUAL_DESCRIPTORS if hard == resource.RLIM_INFINITY else min(_USUAL_DESCRIPTORS, hard)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _warm() -> None:
    """Import what any call may need, read every schema, and keep what calls have in common."""
    import cni.ipam.shared
    import cni.kernel.announcements
    import cni.kernel.arp
    import cni.kernel.bell
    import cni.kernel.netlink.departures
    import cni.kernel.netlink.rtnl
    import cni.kernel.process
    import cni.kernel.templates
    import cni.log
    import cni.names.config
    import cni.names.health
    import cni.names.nerdctl
    import cni.overlay.vxlan
    import cni.policy.asking
    import cni.policy.compiler
    import cni.policy.feeds
    import cni.policy.held
    import cni.policy.peering
    import cni.policy.rehearsal
    import cni.policy.selection
    import cni.protocol.trace
    import cni.resources.base
    import cni.sidecar.annotations
    import cni.sidecar.captured
    import cni.state.tally
    import cni.verbs

    cni.kernel.templates.worthwhile = True
    cni.kernel.kept.serves_many = True
    cni.kernel.process.load()
    cni.resources.base.load()
    for name in plugin.names():
        plugin.load(name)
        schema.is_right({}, name)  # reads it, for every call
        validator(name)  # for those it is to be explained to
