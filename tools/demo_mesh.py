"""make demo-mesh: two applications speak plain TCP across two hosts, and the wire carries mutual TLS."""

from __future__ import annotations

import sys
import tempfile
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT / "netns-tests/scenes"))

from demo import ended, line, paint, title  # noqa: E402
from interception import WEB, address_of  # noqa: E402
from lab import AGENT_CNI, Lab, eventually, sh  # noqa: E402
from mesh_scene import FILES, SECRET, Mesh  # noqa: E402


def verdict(good: bool, text: str) -> bool:
    line(f"{paint('32', '✓') if good else paint('31', '✗')} {text}")
    return good


def show_rules() -> None:
    title(1, "What the pod's namespace will hold; nothing is touched", f"agent-cni explain conf.d/{FILES[0]}")
    lines = [row.strip() for row in sh(AGENT_CNI, "explain", ROOT / "conf.d" / FILES[0]).stdout.splitlines()]
    nat = lines[lines.index("*nat") : lines.index("COMMIT", lines.index("*nat"))]
    for row in nat:
        if row.startswith("-A"):
            line(paint("2", row))


def attach(mesh: Mesh) -> list[str]:
    title(2, "Attach a pod on each host, start an application and an Envoy in each", "cnitool add mesh /run/netns/POD")
    results = mesh.attach()
    mesh.start()
    addresses = [address_of(result, 4) for result in results]
    for host, pod, address in zip(mesh.hosts, mesh.pods, addresses, strict=True):
        line(f"{paint('32', '✓')} {pod.name} on {host.name}   {address}   application (uid 1000), Envoy (uid 1337)")
    return addresses


def talk(mesh: Mesh, address: str) -> bool:
    title(3, "app-a opens a plain TCP connection to app-b and says a secret", f"connect {address}:{WEB}")
    with mesh.wire() as wire:
        seen, echoed = mesh.says(address, SECRET)
    good = verdict(seen.get("who") == "app-b" and echoed == SECRET, f"app-b heard: {echoed!r}")
    good &= verdict(seen.get("peer", [""])[0] == "127.0.0.6", "app-b's peer is its own Envoy, on loopback")
    record = first_record(wire.frames)
    good &= verdict(bool(record), f"the wire between the hosts carries TLS records: {record} …")
    return good & verdict(not wire.carried(SECRET.encode()), "the secret is in none of its frames")


def first_record(frames: list[bytes]) -> str:
    """The first bytes of a TLS application data record, in hexadecimal."""
    found = next((frame[frame.index(b"\x17\x03\x03") :] for frame in frames if b"\x17\x03\x03" in frame), b"")
    return found[:12].hex(" ")


def strangers(mesh: Mesh, address: str) -> bool:
    title(4, "Somebody without the mesh's identity tries the same port", f"a TLS client, {address}:{WEB}")
    refused = mesh.stranger(mesh.hosts[1], address)
    good = verdict("CERTIFICATE_REQUIRED" in refused, f"without a certificate: {refused}")
    admitted = mesh.stranger(mesh.hosts[1], address, *mesh.authority.identity("friend"))
    return good & verdict("app-b" in admitted, "with one of the mesh: app-b answers")


def bypass(mesh: Mesh, address: str) -> bool:
    title(6, "app-a tries to go around its proxy", "ping; iptables -t nat -F; connect again")
    good = verdict(not mesh.pods[0].pings(address, 1), "ping does not pass: what is not captured is dropped")
    mesh.pods[0].run("iptables", "-t", "nat", "-F")
    seen: dict[str, Any] = mesh.client.connect(address, WEB)
    good &= verdict("error" in seen, f"without the redirect: {seen.get('error', seen)}; nothing leaves in the clear")
    said = mesh.cnitool("check", 0, check=False)
    return good & verdict("is missing" in said, f"CHECK: {said.split('; ')[0].strip()[:150]} …")


def rotate(mesh: Mesh, address: str) -> bool:
    title(
        5,
        "Another authority, and other identities, while a connection stands",
        "two files of SDS, read again as a Secret changes",
    )
    mesh.says(address, SECRET, kept="stands")
    former = mesh.authority.identity("former")
    mesh.rotate()
    fresh = mesh.authority.identity("fresh")
    shown = eventually(lambda: "app-b" in mesh.stranger(mesh.hosts[1], address, *fresh))
    good = verdict(bool(shown), "app-b's Envoy shows an identity of the new authority, and believes one")
    refused = eventually(lambda: "UNKNOWN_CA" in mesh.stranger(mesh.hosts[1], address, *former))
    good &= verdict(bool(refused), "an identity of the former authority is refused")
    stands = mesh.client.echo("stands", "still there") == "still there"
    good &= verdict(stands, "the connection from before stands: app-b answers on it")
    return good & verdict(mesh.says(address, SECRET)[1] == SECRET, "app-a's next connection is by the new identities")


def leave(mesh: Mesh) -> bool:
    title(7, "Detach, and look for leftovers", "cnitool del mesh …")
    for number in (0, 1):
        mesh.cnitool("del", number)
    left = [item for host in mesh.hosts for kind in host.state().values() for item in kind]
    rules = [row for pod in mesh.pods for row in pod.run("iptables-save").stdout.splitlines() if "ACNI_" in row]
    return verdict(not left and not rules, "nothing is left" if not left + rules else f"left: {left + rules}")


def main() -> int:
    lab = Lab()
    with tempfile.TemporaryDirectory(dir="/run") as folder:
        try:
            mesh = Mesh(lab, Path(folder), ("host-a", "host-b", "pod-a", "pod-b"))
            print(paint("1", "\nagent-cni: mutual TLS that applications know nothing of\n"))
            line("pod-a: app-a ─ TCP ─▸ Envoy ═══ VXLAN, mutual TLS ═══▸ Envoy ─ TCP ─▸ app-b :pod-b")
            show_rules()
            with mesh.held:
                target = attach(mesh)[1]
                good = talk(mesh, target) & strangers(mesh, target) & rotate(mesh, target) & bypass(mesh, target)
            good &= leave(mesh)
        finally:
            lab.close()
    return ended(good)


if __name__ == "__main__":
    sys.exit(main())
