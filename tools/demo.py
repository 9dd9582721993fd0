"""make demo: three hosts and the etcd by which they know each other, one network across all of them, told step by step."""

from __future__ import annotations

import json
import re
import sys
import time
from collections.abc import Callable
from contextlib import ExitStack
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "netns-tests/scenes"))

import demo_allowed  # noqa: E402
from cluster import Node  # noqa: E402
from etcd import Etcd  # noqa: E402
from lab import AGENT_CNI, BIN_DIR, CNITOOL, Host, Lab, Namespace, Pod, eventually, sh  # noqa: E402
from names import Names, Web, asked  # noqa: E402

#: A server that says who asked it, once, and who asks.
ECHO = """
import socket, sys
with socket.create_server((sys.argv[1], 8080), family=socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET) as server:
    print("ready", flush=True)
    caller, (address, *_) = server.accept()
    caller.sendall(address.encode())
    caller.close()
"""
ASK = "import socket, sys; print(socket.create_connection((sys.argv[1], 8080), 8).recv(99).decode())"
FILE = "12-cluster.conflist"
#: A second network of the same cluster, whose pods have names and are probed.
NAMED = {
    "bridge": "br1",
    "vxlan": {"id": 101},
    "names": {},
    "health": {"http": "/", "port": 8080, "interval": "500ms", "failures": 2},
    "ipam": {"type": "agent-ipam", "cluster": True, "subnet": "10.245.0.0/16"},
}
URL, SESSION = "http://192.0.2.2:2379", 2
COLOUR = sys.stdout.isatty()

Results = dict[str, dict[str, Any]]


def paint(code: str, text: str) -> str:
    return f"\033[{code}m{text}\033[0m" if COLOUR else text


def title(number: int, text: str, command: str = "") -> None:
    print(f"\n{paint('1;36', f'{number}  {text}')}{paint('2', f'   $ {command}') if command else ''}", flush=True)


def line(text: str) -> None:
    print(f"   {text}", flush=True)


def tick(good: bool, text: str) -> bool:
    line(f"{paint('32', '✓') if good else paint('31', '✗')} {text}")
    return good


class Demo:
    """What there is by now: hosts, pods with where they are, and what ADD said of each."""

    def __init__(self, lab: Lab) -> None:
        self.lab = lab
        self.keeper = keeper = lab.add(Namespace("etcd"))
        self.switch = lab.underlay(keeper, first=2)
        self.etcd = Etcd(Path("/run/demo-etcd"), places=[(keeper, "192.0.2.2")])
        self.hosts: list[Node] = []
        self.placed: list[tuple[Node, Pod]] = []
        self.results: Results = {}

    def host(self, name: str) -> Node:
        number = 11 + len(self.hosts)
        host = self.lab.add(Node(name, number=number))
        self.lab.wire(self.switch, host, number)
        text = (ROOT / "conf.d" / FILE).read_text()
        (host.folder / FILE).write_text(text)
        whole = json.loads(text)
        whole |= {"name": "named", "plugins": [whole["plugins"][0] | NAMED]}
        (host.folder / "named.conflist").write_text(json.dumps(whole))
        self.hosts.append(host)
        return host

    def join(self, host: Node) -> bool:
        began = time.monotonic()
        host.start("--etcd", URL, "--node", host.name, "--session", str(SESSION))
        joined = eventually(lambda: is_in(host), 20)
        return tick(bool(joined), f"{host.name} is in the cluster after {time.monotonic() - began:.1f} s")

    def attach(self, host: Node, name: str) -> Pod:
        pod = self.lab.add(Pod(name))
        result = json.loads(cnitool(host, "add", pod)[1])
        self.placed.append((host, pod))
        self.results[name] = result
        own = next(item for item in result["interfaces"] if item.get("sandbox"))
        addresses = "  ".join(ip["address"] for ip in result["ips"])
        tick(True, f"{name} on {host.name}   {addresses}   {own['mac']}   MTU {own['mtu']}")
        return pod

    def reached(self, source: Host | Pod, pod: Pod) -> bool:
        return all(source.pings(address, 1) for address in self.addresses(pod))

    def addresses(self, pod: Pod) -> list[str]:
        return [ip["address"].split("/")[0] for ip in self.results[pod.name]["ips"]]


def is_in(host: Node) -> bool:
    member = host.remembered(lambda store: store.member())
    return bool(member and not member.trouble)


def cnitool(host: Host, verb: str, pod: Pod, check: bool = True, network: str = "pods", **env: str) -> tuple[int, str]:
    folders = {"CNI_PATH": str(BIN_DIR), "NETCONFPATH": str(host.folder), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    done = host.run(CNITOOL, verb, network, pod.path, env=folders | env, check=check)
    return done.returncode, done.stdout if done.returncode == 0 else done.stderr


def told(demo: Demo) -> None:
    print(paint("1", "\nagent-cni: three hosts, one network, and an etcd they know each other by\n"))
    line("host-a 192.0.2.11 ───── host-b 192.0.2.12 ───── host-c 192.0.2.13      etcd 192.0.2.2")
    line("  ├─ pod-1                └─ pod-3                └─ pod-4 comes later")
    line("  └─ pod-2              VXLAN, VNI 100          10.244.0.0/16, fd00:244::/64")


def join_two(demo: Demo) -> bool:
    title(1, "Two hosts join; what they share is in etcd", f"agent-cni join --etcd {URL}")
    joined = [demo.join(demo.host(name)) for name in ("host-a", "host-b")]
    return all(joined)


def show_plan() -> None:
    file = f"conf.d/{FILE}"
    title(2, "What an ADD will make, on any host; nothing is touched", f"agent-cni explain {file}")
    text = sh(AGENT_CNI, "explain", ROOT / file).stdout
    rows = [row for row in text.split("  result {")[0].rstrip().splitlines()[1:] if "sysctl" not in row]
    for row in rows:
        shared = row.startswith("  shared")
        line(paint("2", "· ") + re.sub(r"^\s*(shared )?", "", row) + (paint("2", "  (shared)") if shared else ""))


def attach_three(demo: Demo) -> bool:
    title(3, "Attach three pods; each host gives addresses of blocks of its own", "cnitool add pods /run/netns/POD")
    a, b = demo.hosts
    for host, name in ((a, "pod-1"), (a, "pod-2"), (b, "pod-3")):
        demo.attach(host, name)
    began = time.monotonic()
    known = [eventually(lambda: demo.reached(host, pod), 20) for host in demo.hosts for _, pod in demo.placed]  # noqa: B023
    return tick(all(known), f"and both hosts know all of them, {time.monotonic() - began:.1f} s of pings later")


def ping_all(demo: Demo) -> bool:
    title(4, "Everybody reaches everybody, over IPv4 and IPv6", "ping")
    targets = [(pod.name, demo.addresses(pod)) for _, pod in demo.placed]
    targets += [("gateway", [ip["gateway"] for ip in demo.results["pod-1"]["ips"]]), ("host-b", ["192.0.2.12"])]
    line("from \\ to  " + "".join(f"{name:<20}" for name, _ in targets))
    good = True
    for source in [*demo.hosts, *(pod for _, pod in demo.placed)]:  # kube-proxy, probes and NodePorts come from a node
        cells = [[round_trip(source, address) for address in addresses] for _, addresses in targets]
        good = good and all(all(cell) for cell in cells)
        line(f"{source.name:<11}" + "".join(cell(times) for times in cells))
    return good


def round_trip(source: Host | Pod, address: str) -> str:
    out = source.run("ping", "-n", "-c", "1", "-W", "2", address, check=False).stdout
    found = re.search(r"time=([\d.]+) ms", out)
    return f"{float(found[1]):.2f}" if found else ""


def cell(times: list[str]) -> str:
    text = "/".join(time or "—" for time in times) + " ms"
    return paint("32" if all(times) else "31", f"{text:<20}")


def serve_a_node(demo: Demo) -> bool:
    """What a Service needs: a node asks a pod of another host, and is answered at an address of its own in the network."""
    title(5, "A node is answered by a far pod", "nc -l 8080; nc POD 8080")
    near, (_, far) = demo.hosts[0], demo.placed[-1]
    good = True
    for address in demo.addresses(far):
        with far.start("timeout", "20", "python3", "-c", ECHO, address) as server:
            assert server.stdout
            assert server.stdout.readline() == "ready\n"
            said = near.run("timeout", "10", "python3", "-c", ASK, address, check=False).stdout.strip()
        own = said in {item.split("/")[0] for item in near.addresses("br0")}
        good = tick(own, f"{near.name} asks {far.name}, {address}: answered as {said or 'nobody'}") and good
    return good


def look_at_overlay(demo: Demo) -> None:
    title(6, "How the hosts know of each other", "agent-cni node; agent-cni block; bridge fdb show dev vxlan100")
    for words in ("node", "block"):
        for row in demo.hosts[0].run(AGENT_CNI, words).stdout.splitlines():
            line(row)
    for host in demo.hosts:
        for row in host.run("bridge", "fdb", "show", "dev", "vxlan100").stdout.splitlines():
            if "dst" in row:
                line(f"{host.name}: {row.strip()}")


def join_late(demo: Demo) -> bool:
    title(7, "A host joins late, and needs nobody's configuration changed", f"agent-cni join --etcd {URL}")
    host = demo.host("host-c")
    good = demo.join(host)
    pod = demo.attach(host, "pod-4")
    began = time.monotonic()
    for source in [*demo.hosts, *(other for _, other in demo.placed if other is not pod)]:
        good = bool(eventually(lambda: demo.reached(source, pod), 10)) and good  # noqa: B023 - asked at once
    return tick(good, f"all hosts and pods reach {pod.name}, {time.monotonic() - began:.1f} s of pings later") and good


def find_by_name(demo: Demo) -> bool:
    title(8, "Pods find each other by name, and only those that are well", "agent-cni names; dig web @GATEWAY")
    placed: list[tuple[Node, Pod]] = []
    results = {}
    with ExitStack() as held:
        for host in demo.hosts:
            held.enter_context(Names(host))
        for host, name in zip(demo.hosts, ("web-1", "web-2", "client"), strict=True):
            pod = demo.lab.add(Pod(name))
            started = f"K8S_POD_NAME={name.partition('-')[0]}"
            results[name] = json.loads(cnitool(host, "add", pod, network="named", CNI_ARGS=started)[1])
            placed.append((host, pod))
        one, other = (results[name]["ips"][0]["address"].split("/")[0] for name in ("web-1", "web-2"))
        (_, first), (far, second), (near, client) = placed
        held.enter_context(Web(first, Path("/run/demo-web") / first.name))
        web = held.enter_context(Web(second, Path("/run/demo-web") / second.name))
        began = time.monotonic()
        good = _comes_to(results["client"], client, one, other)
        line(f"{first.name} on {demo.hosts[0].name} and {second.name} on {far.name} are both called web")
        good = (
            tick(good, f"{client.name} on {near.name} asks for web: {one}, {other}, {_since(began)} after they serve")
            and good
        )
        web.say("503 Service Unavailable", other)
        began = time.monotonic()
        good = _comes_to(results["client"], client, one) and good
        good = (
            tick(good, f"{second.name} answers 503: {client.name} is told {one} alone, {_since(began)} later") and good
        )
        for row in far.run(AGENT_CNI, "show").stdout.splitlines():
            if "503" in row:
                line(f"{far.name}: {row.strip()}")
        web.say("200 OK", other)
        began = time.monotonic()
        good = _comes_to(results["client"], client, one, other) and good
        good = tick(good, f"it is well again: both, {_since(began)} later") and good
        for host, pod in placed:
            cnitool(host, "del", pod, network="named")
    return good


def _comes_to(result: dict[str, Any], client: Pod, *addresses: str) -> bool:
    """Whether a pod's own resolver comes to say these of web, in any order."""

    def said() -> list[str]:
        try:
            return sorted(asked(client, result["dns"]["nameservers"][0], "web"))
        except TimeoutError:
            return []

    return bool(eventually(lambda: said() == sorted(addresses), 20))


def _since(began: float) -> str:
    return f"{time.monotonic() - began:.1f} s"


def reach_by_name(demo: Demo) -> bool:
    title(9, "An agent may reach one name, and its node says what it reached", "agent-cni dnsgate; agent-cni flows")
    return demo_allowed.shown(demo.lab, demo.hosts[0], demo.keeper, line, tick)


def without_the_store(demo: Demo) -> bool:
    title(10, "etcd goes away for a while", "kill etcd; cnitool add pods …; cnitool del pods …")
    demo.etcd.kill(0)
    host = demo.hosts[0]
    pod = demo.attach(host, "pod-5")
    good = tick(
        demo.reached(demo.placed[0][1], pod), f"{demo.placed[0][1].name} and {pod.name} talk, and so do all that did"
    )
    demo.etcd.start(0)
    far = demo.placed[2][1]
    good = bool(eventually(lambda: demo.reached(far, pod), 20)) and good
    return tick(good, f"it is back: {far.name}, on another host, reaches {pod.name} too")


def lose_a_host(demo: Demo) -> bool:
    title(11, "A host dies", "agent-cni node; agent-cni node remove host-b")
    dead = demo.hosts[1]
    dead.kill()
    sh("ip", "-n", dead.name, "link", "set", "eth0", "down")
    began = time.monotonic()
    witness = demo.hosts[0]
    gone = eventually(lambda: not alive(witness, dead.name), 20)
    lost = [pod.name for host, pod in demo.placed if host is dead]
    good = tick(bool(gone), f"after {time.monotonic() - began:.1f} s it counts as away, and {', '.join(lost)} with it:")
    for row in witness.run(AGENT_CNI, "node").stdout.splitlines():
        line(row)
    left = [pod for host, pod in demo.placed if host is not dead]
    names = ", ".join(pod.name for pod in left)
    talk = all(demo.reached(left[0], pod) for pod in left[1:])
    good = tick(talk, f"{names} talk on; nothing of the dead host's is given to anybody, until you say:") and good
    line(witness.run(AGENT_CNI, "node", "remove", dead.name).stdout.strip())
    rows = lambda: [row for row in fdb(witness) if f"dst {dead.underlay()} " in f"{row} "]  # noqa: E731
    good = bool(eventually(lambda: not rows(), 10)) and good
    return tick(good, f"no row leads to {dead.name} any more")


def alive(host: Node, name: str) -> bool:
    return next(
        row["alive"] for row in json.loads(host.run(AGENT_CNI, "node", "--json").stdout)["nodes"] if row["node"] == name
    )


def fdb(host: Node) -> list[str]:
    return host.run("bridge", "fdb", "show", "dev", "vxlan100").stdout.splitlines()


def drift(demo: Demo) -> bool:
    title(12, "Break something and ask", "ip route del default; cnitool check pods …")
    host, pod = demo.placed[0]
    before, _ = cnitool(host, "check", pod)
    pod.run("ip", "route", "del", "default")
    after, words = cnitool(host, "check", pod, check=False)
    line(f"before: {'as ADD left it' if before == 0 else 'wrong'}")
    line(f"after:  {words.strip()}")
    return before == 0 and after != 0


def detach(demo: Demo) -> bool:
    title(13, "Detach, leave, and look for leftovers", "cnitool del pods …; agent-cni leave; agent-cni show")
    good = True
    here = [host for host in demo.hosts if host.running]
    for host, pod in demo.placed:
        if host in here:
            cnitool(host, "del", pod)
    for host in here:
        host.run(AGENT_CNI, "leave")
        state, rules = host.state(), host.run("nft", "list", "ruleset").stdout.strip()
        links = [item["ifname"] for item in host.ip("link", "show") if item["ifname"] not in ("lo", "eth0")]
        left = [*state["attachments"], *state["leases"], *links, *rules.splitlines()]
        good = tick(not left, f"{host.name}: nothing left" if not left else f"{host.name}: left {left}") and good
    kept = demo.etcd.ctl("get", "--prefix", "/agent-cni", "--keys-only").split()
    kept = [key for key in kept if not key.startswith("/agent-cni/networks/")]
    return tick(not kept, "etcd: nothing left but what the network is" if not kept else f"etcd: left {kept}") and good


def ended(good: bool) -> int:
    """The last line, and the exit code."""
    print(paint("1;32" if good else "1;31", f"\n{'All of it worked.' if good else 'Something above did not work.'}\n"))
    return 0 if good else 1


STEPS: tuple[Callable[[Demo], bool | None], ...] = (
    told, join_two, lambda _: show_plan(), attach_three, ping_all, serve_a_node, look_at_overlay, join_late, find_by_name, reach_by_name,
    without_the_store, lose_a_host, drift, detach,
)  # fmt: skip


def main() -> int:
    lab = Lab()
    demo = Demo(lab)
    try:
        with demo.etcd:
            done = [step(demo) for step in STEPS]
            return ended(False not in done)
    finally:
        for host in demo.hosts:
            host.kill()
        lab.close()


if __name__ == "__main__":
    sys.exit(main())
