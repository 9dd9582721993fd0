"""One pod that is probed, for as long as its file says so."""

from __future__ import annotations

import asyncio
import random
import time

from cni import log
from cni.discovery import verdicts
from cni.discovery.health import Health, Probe
from cni.discovery.probes import why_not
from cni.errors import CniError, TryAgainLater
from cni.kernel.hostsdir import NOT_PROBED, Entry
from cni.values import replace

#: After how many seconds a pod is tried again that a call is at.
_STEP = 0.05


class Probed:
    """It, as its file said last."""

    def __init__(self, entry: Entry) -> None:
        self._entry = self._saying = entry
        self._trouble = ""

    @property
    def _is_new(self) -> bool:
        return self._entry.unhealthy.endswith(NOT_PROBED)

    def knows(self, entry: Entry | None) -> bool:
        """Whether that is what its file said, or what is being written there."""
        return entry in (self._entry, self._saying)

    async def keep(self) -> None:
        """Probe it until this is cancelled, and say what became another."""
        loop = asyncio.get_running_loop()
        try:
            probe = Probe.read(self._entry.health)
        except ValueError as error:
            self._warn(f"its health cannot be probed: {error}")
            return
        health = Health(probe, healthy=not self._entry.unhealthy, begun=not self._is_new)
        if not self._is_new:  # what a daemon that was killed has said in one place may be missing in the other
            await self._say(self._entry, health.interval)
            await asyncio.sleep(random.uniform(0, health.interval))  # noqa: S311 - pods that are found together are not probed so
        while True:
            began = loop.time()
            health.heard(await why_not(probe, self._entry.addresses[0]))
            is_another = health.healthy == bool(self._entry.unhealthy) or (health.is_lost and self._is_new)
            if is_another or self._saying != self._entry:  # nobody knows whether that was said
                since = time.strftime("%Y-%m-%d %H:%M:%S UTC", time.gmtime())
                why = "" if health.healthy else f"{since}: {health.why}"
                await self._say(replace(self._entry, unhealthy=why), health.interval)
            await asyncio.sleep(max(0.0, began + health.interval - loop.time()))

    async def _say(self, entry: Entry, seconds: float) -> None:
        """Say it, and again where a call is at it, for as long as no other probe is due."""
        loop = asyncio.get_running_loop()
        until, self._saying = loop.time() + seconds, entry
        try:
            while True:
                try:
                    done = await asyncio.to_thread(verdicts.say, self._entry, entry)
                except TryAgainLater:
                    if loop.time() > until:
                        return
                    await asyncio.sleep(_STEP)
                else:
                    break
        except CniError as error:
            self._warn(error.msg)
            return
        self._trouble = ""
        if not done:  # its file says something else, which will be told
            self._saying = self._entry
        elif entry != self._entry:
            self._entry = entry
            verb, why = ("unhealthy", {"why": entry.unhealthy}) if entry.unhealthy else ("healthy", {})
            log.event("names", verb, None, **entry.attachment._asdict(), pod=entry.pod, **why)

    def _warn(self, why: str) -> None:
        if why != self._trouble:
            self._trouble = why
            log.warning("names", why, verb="probe", **self._entry.attachment._asdict(), pod=self._entry.pod)
