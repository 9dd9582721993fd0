"""make demo: two hosts, three pods, one network across both, told step by step."""

from __future__ import annotations

import json
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "netns-tests/scenes"))

from lab import AGENT_CNI, BIN_DIR, CNITOOL, Host, Lab, Pod, sh  # noqa: E402

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
    targets += [("gateway", ["10.244.0.1", "fd00:244::1"]), ("host-b", ["192.0.2.12"])]
    line("from \\ to  " + "".join(f"{name:<20}" for name, _ in targets))
    good = True
    for _, pod in placed:
        cells = [[round_trip(pod, address) for address in addresses] for _, addresses in targets]
        good = good and all(all(cell) for cell in cells)
        line(f"{pod.name:<11}" + "".join(cell(times) for times in cells))
    return good


def round_trip(pod: Pod, address: str) -> str:
    out = pod.run("ping", "-n", "-c", "1", "-W", "2", address, check=False).stdout
    found = re.search(r"time=([\d.]+) ms", out)
    return f"{float(found[1]):.2f}" if found else ""


def cell(times: list[str]) -> str:
    text = "/".join(time or "—" for time in times) + " ms"
    return paint("32" if all(times) else "31", f"{text:<20}")


def look_at_overlay(hosts: list[Host]) -> None:
    title(4, "How the two hosts know of each other", "bridge fdb show dev vxlan100")
    for host in hosts:
        for row in host.run("bridge", "fdb", "show", "dev", "vxlan100").stdout.splitlines():
            if "dst" in row:
                line(f"{host.name}: {row.strip()}")


def drift(placed: list[tuple[Host, Pod]]) -> bool:
    title(5, "Break something and ask", "ip route del default; cnitool check pods …")
    host, pod = placed[0]
    before, _ = cnitool(host, "check", pod)
    pod.run("ip", "route", "del", "default")
    after, words = cnitool(host, "check", pod, check=False)
    line(f"before: {'as ADD left it' if before == 0 else 'wrong'}")
    line(f"after:  {words.strip()}")
    return before == 0 and after != 0


def detach(hosts: list[Host], placed: list[tuple[Host, Pod]]) -> bool:
    title(6, "Detach, and look for leftovers", "cnitool del pods …; agent-cni show")
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
        look_at_overlay(hosts)
        good = drift(placed) and good
        good = detach(hosts, placed) and good
    finally:
        lab.close()
    return ended(good)


if __name__ == "__main__":
    sys.exit(main())
