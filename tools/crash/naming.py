"""The server of names struck at each of its effects: it answers again for who is well, and at no time for who is not there."""

from __future__ import annotations

import os
from contextlib import ExitStack
from pathlib import Path

import effects
from lab import Lab, eventually
from names import DNSMASQ, Web, asked

from crash.ordered import Revived, told_in
from crash.story import Told

CONF = {
    "cniVersion": "1.1.0", "name": "net", "type": "bridge-vxlan", "bridge": "br0", "isGateway": True, "names": {},
    "health": {"http": ":8080/healthz", "interval": 0.2, "failures": 1, "passes": 1}, "ipam": {"subnet": "10.1.0.0/24", "type": "agent-ipam"},
}  # fmt: skip
SERVER, PATIENCE = "10.1.0.1", 45
PATH = f"{DNSMASQ}:{os.environ['PATH']}"


class Street:
    """A host, `old` on it from the beginning, and `young`, who comes, falls ill, recovers and goes while the server runs."""

    def __init__(self, lab: Lab, held: ExitStack) -> None:
        self._host, self._held = lab.host(), held
        self._pods = {name: lab.pod() for name in ("old", "young")}
        self._addresses = dict.fromkeys(self._pods, "")
        self._webs = {name: held.enter_context(Web(pod, Path("/run/web") / name)) for name, pod in self._pods.items()}

    def once(self, order: effects.Order) -> list[str]:
        """What was wrong, with one order."""
        self._attach("old")
        with Revived(self._host, order, "names", PATH=PATH) as daemon:
            found = self._answers("old", there=True)
            self._attach("young")
            found += self._answers("young", there=True)
            for status, there in (("503 Service Unavailable", False), ("200 OK", True)):
                self._webs["young"].say(status, self._addresses["young"])
                found += self._answers("young", there=there)
            self._detach("young")
            found += self._answers("young", there=False) + self._answers("old", there=True)
        found += daemon.wrong()
        self._detach("old")
        return [*found, *self._left()]

    def _attach(self, name: str) -> None:
        pod = self._pods[name]
        result = self._host.add(CONF, pod, CNI_ARGS=f"IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={name}")
        self._addresses[name] = result["ips"][0]["address"].partition("/")[0]

    def _detach(self, name: str) -> None:
        self._host.delete_pod(CONF, self._pods[name])

    def _answers(self, name: str, *, there: bool) -> list[str]:
        """What is wrong with what is said of a pod: soon it is to be this, and nobody else's address meanwhile."""
        seen, wanted = set[str](), {self._addresses[name]} if there else set()

        def settled() -> bool:
            try:
                said = {*asked(self._host, SERVER, f"{name}.shop.net")}
            except TimeoutError:
                return False
            seen.update(said)
            return said == wanted

        found = [] if eventually(settled, PATIENCE) else [f"{name} is {'not ' * there}answered: {self._known()}"]
        return [*found, *(f"{name} is {other}" for other in seen - {self._addresses[name]})]

    def _known(self) -> dict[str, str]:
        return {str(file.relative_to(self._host.names)): file.read_text() for file in self._host.names.rglob("*") if file.is_file()}  # fmt: skip

    def _left(self) -> list[str]:
        found = [f"{name} is left" for name in self._known()]
        return found + ["a server is left"] * (not eventually(lambda: not _servers(), 5))


def _servers() -> list[Path]:
    """Who serves; one that is over, and nobody has asked for, has no command line."""
    return [it for it in Path("/proc").glob("[0-9]*/cmdline") if b"/dnsmasq\0" in it.read_bytes()]


def tell(story: str, seed: str) -> Told:
    """`names killed, 1 of 4`: at the first effect, the fifth ..."""
    return told_in(Street, story, seed)
