"""make demo: two hosts, three pods, one network across both, told step by step."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "netns-tests/scenes"))

from lab import AGENT_CNI, BIN_DIR, CNITOOL, Host, Lab, Pod, sh  # noqa: E402

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
FILES = ("10-bridge-vxlan.conflist", "11-bridge-vxlan-second-host.conflist")
COLOUR = sys.stdout.isatty()


def paint(code: str, text: str) -> str:
    return f"\033[{code}m{text}\033[0m" if COLOUR else text


def title(number: int, text: str, command: str = "") -> None:
    print(f"\n{paint('1;36', f'{number}  {text}')}{paint('2', f'   $ {command}') if command else ''}")


def line(text: str) -> None:
    print(f"   {text}")


def cnitool(host: Host, verb: str, pod: Pod, check: bool = True, **env: str) -> tuple[int, str]:
    folders = {"CNI_PATH": str(BIN_DIR), "NETCONFPATH": str(host.folder), "PATH": "/usr/sbin:/usr/bin:/sbin:/bin"}
    done = host.run(CNITOOL, verb, "pods", pod.path, env=folders | env, check=check)
    return done.returncode, done.stdout if done.returncode == 0 else done.stderr


def build(lab: Lab) -> tuple[list[Host], list[tuple[Host, Pod]]]:
    hosts = [lab.add(Host("host-a")), lab.add(Host("host-b"))]
    lab.underlay(*hosts)
    for host, file in zip(hosts, FILES, strict=True):
        (host.folder / file).write_text((ROOT / "conf.d" / file).read_text())
    pods = [lab.add(Pod(name)) for name in ("pod-1", "pod-2", "pod-3")]
    print(paint("1", "\nagent-cni: two hosts, one network\n"))
    line("host-a 192.0.2.11 ───── underlay ───── host-b 192.0.2.12")
    line("  ├─ pod-1          VXLAN, VNI 100         └─ pod-3")
    line("  └─ pod-2       10.244.0.0/16, fd00:244::/64")
    return hosts, list(zip((hosts[0], hosts[0], hosts[1]), pods, strict=True))


def show_plan() -> None:
    file = f"conf.d/{FILES[0]}"
    title(1, "What an ADD will make; nothing is touched", f"agent-cni explain {file}")
    text = sh(AGENT_CNI, "explain", ROOT / file).stdout
    for row in text.split("  result {")[0].rstrip().splitlines()[1:]:
        shared = row.startswith("  shared")
        line(paint("2", "· ") + re.sub(r"^\s*(shared )?", "", row) + (paint("2", "  (shared)") if shared else ""))


def attach(placed: list[tuple[Host, Pod]]) -> dict[str, dict]:
    results = {}
    title(2, "Attach three pods", "cnitool add pods /run/netns/POD")
    for host, pod in placed:
        result = json.loads(cnitool(host, "add", pod)[1])
        results[pod.name] = result
        own = next(item for item in result["interfaces"] if item.get("sandbox"))
        addresses = "  ".join(ip["address"] for ip in result["ips"])
        line(f"{paint('32', '✓')} {pod.name} on {host.name}   {addresses}   {own['mac']}   MTU {own['mtu']}")
    return results


def ping_all(placed: list[tuple[Host, Pod]], results: dict[str, dict]) -> bool:
    title(3, "Everybody reaches everybody, over IPv4 and IPv6", "ping")
    targets = [(pod.name, [ip["address"].split("/")[0] for ip in results[pod.name]["ips"]]) for _, pod in placed]
    targets += [("gateway", [ip["gateway"] for ip in results[placed[0][1].name]["ips"]]), ("host-b", ["192.0.2.12"])]
    line("from \\ to  " + "".join(f"{name:<20}" for name, _ in targets))
    good = True
    hosts = [placed[0][0], placed[-1][0]]  # kube-proxy, probes and NodePorts come from a node
    for source in [*hosts, *(pod for _, pod in placed)]:
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


def serve_a_node(placed: list[tuple[Host, Pod]], results: dict[str, dict]) -> bool:
    """What a Service needs: a node asks a pod of the other host, and is answered at its own address in the network."""
    title(4, "A node is answered by a far pod", "nc -l 8080; nc POD 8080")
    (near, _), (_, far) = placed[0], placed[-1]
    good = True
    for ip in results[far.name]["ips"]:
        address = ip["address"].split("/")[0]
        with far.start("timeout", "20", "python3", "-c", ECHO, address) as server:
            assert server.stdout
            assert server.stdout.readline() == "ready\n"
            said = near.run("timeout", "10", "python3", "-c", ASK, address, check=False).stdout.strip()
        own = results[placed[0][1].name]["ips"][results[far.name]["ips"].index(ip)]["gateway"]
        good = good and said == own
        line(
            f"{paint('32', '✓') if said == own else paint('31', '✗')} {near.name} asks {far.name}, {address}: answered as {said or 'nobody'}"
        )
    return good


def look_at_overlay(hosts: list[Host]) -> None:
    title(5, "How the two hosts know of each other", "bridge fdb show dev vxlan100")
    for host in hosts:
        for row in host.run("bridge", "fdb", "show", "dev", "vxlan100").stdout.splitlines():
            if "dst" in row:
                line(f"{host.name}: {row.strip()}")


def drift(placed: list[tuple[Host, Pod]]) -> bool:
    title(6, "Break something and ask", "ip route del default; cnitool check pods …")
    host, pod = placed[0]
    before, _ = cnitool(host, "check", pod)
    pod.run("ip", "route", "del", "default")
    after, words = cnitool(host, "check", pod, check=False)
    line(f"before: {'as ADD left it' if before == 0 else 'wrong'}")
    line(f"after:  {words.strip()}")
    return before == 0 and after != 0


def detach(hosts: list[Host], placed: list[tuple[Host, Pod]]) -> bool:
    title(7, "Detach, and look for leftovers", "cnitool del pods …; agent-cni show")
    for host, pod in placed:
        cnitool(host, "del", pod)
    for host in hosts:
        state, rules = host.state(), host.run("nft", "list", "ruleset").stdout.strip()
        veths = [item["ifname"] for item in host.ip("link", "show") if item["ifname"].startswith("veth")]
        left = [*state["attachments"], *state["leases"], *veths, *rules.splitlines()]
        line(f"{paint('32', '✓')} {host.name}: nothing left" if not left else f"{host.name}: left {left}")
        if left:
            return False
    return True


def ended(good: bool) -> int:
    """The last line, and the exit code."""
    print(paint("1;32" if good else "1;31", f"\n{'All of it worked.' if good else 'Something above did not work.'}\n"))
    return 0 if good else 1


def main() -> int:
    lab = Lab()
    try:
        hosts, placed = build(lab)
        show_plan()
        results = attach(placed)
        good = ping_all(placed, results)
        good = serve_a_node(placed, results) and good
        look_at_overlay(hosts)
        good = drift(placed) and good
        good = detach(hosts, placed) and good
    finally:
        lab.close()
    return ended(good)


if __name__ == "__main__":
    sys.exit(main())
