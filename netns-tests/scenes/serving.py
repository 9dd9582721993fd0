"""A host whose networks have names, by files as calls would leave them."""

from __future__ import annotations

from lab import Host, Namespace, sh

from cni.kernel import hostsdir
from cni.kernel.hostsdir import Entry
from cni.naming import Attachment


class Scene:
    """A host with bridges whose networks have names, as calls would leave them."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self.server = ""

    def network(self, name: str, number: int, more: str = "") -> str:
        """A bridge, and its server's configuration; the server's address."""
        address = f"10.{number}.0.1"
        self.host.run("ip", "link", "add", f"br{number}", "type", "bridge")
        self.host.run("ip", "addr", "add", f"{address}/16", "dev", f"br{number}")
        self.host.run("ip", "link", "set", f"br{number}", "up")
        self.configure(name, f"br{number}", more)
        return address

    def wire(self, pod: Namespace, bridge: str, *addresses: str) -> None:
        """Have a pod on a bridge, as if a call had put it there."""
        end = f"v{len(self.host.ip('link', 'show'))}"
        peer = ("peer", "name", "eth0", "netns", pod.name)
        sh("ip", "-n", self.host.name, "link", "add", end, "master", bridge, "up", "type", "veth", *peer)
        lines = [
            f"addr add {address} dev eth0 nodad" if ":" in address else f"addr add {address} dev eth0"
            for address in addresses
        ]
        sh("ip", "-n", pod.name, "-batch", "-", input="\n".join([*lines, "link set eth0 up", ""]))

    def configure(self, name: str, bridge: str, more: str = "") -> None:
        folder = "/run/agent-cni-names/" + name
        (self.host.names / name / "there").mkdir(parents=True, exist_ok=True)
        hostsdir.put(
            hostsdir.FOLDER / name / hostsdir.CONF,
            f"#domain {name}\n{more}interface={bridge}\nbind-dynamic\nexcept-interface=lo\nno-hosts\nno-resolv\nuser=nobody\n"
            f"pid-file=\nhostsdir={folder}/here\nhostsdir={folder}/there\nlocal=/{name}/\nlocal=/10.in-addr.arpa/\ndomain-needed\n",
        )

    def entry(
        self, network: str, name: str, *addresses: str, health: str = "", unhealthy: str = "", alias: str = ""
    ) -> Entry:
        who, names = Attachment(network, f"container-{name}", "eth0"), tuple(filter(None, (name, alias)))
        made = Entry(who, addresses, names, f"default/{name}", health, unhealthy)
        hostsdir.put(made.path, made.text)
        return made
