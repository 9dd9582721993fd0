"""The node as a picture: which pod is on what, with which addresses, and what holds it. SVG 1.1, no library."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from html import escape
from types import MappingProxyType
from typing import Any, NamedTuple

from cni.command.output import shown
from cni.resources import (
    Bridge,
    FloodList,
    GatewayAddress,
    Macvlan,
    Masquerade,
    PodPolicy,
    PodRules,
    Resource,
    VethPair,
    VxlanLink,
)
from cni.state import Record
from cni.values import dataclass, field

_POD_WIDTH, _POD_HEIGHT, _GAP, _HEAD, _ACROSS = 216, 92, 16, 46, 4
#: The cluster's other hosts: as many are drawn as can be read.
_FAR_HEIGHT, _FAR_ACROSS, _MOST_FAR = 60, 4, 60
_INK, _FAINT, _LINE = "#22313f", "#66788a", "#9fb0c0"
_FILL = {"node": "#f4f7fa", "network": "#e3ecf5", "pod": "#ffffff", "far": "#efe8f7"}
_STYLE = {
    "title": f'font-size="18" font-weight="bold" fill="{_INK}"',
    "heading": f'font-size="14" font-weight="bold" fill="{_INK}"',
    "plain": f'font-size="12" fill="{_FAINT}"',
    "badge": 'font-size="11" fill="#ffffff" text-anchor="middle"',
}
_BADGE = {"proxy": "#2a7f62", "policy": "#a8492f", "NAT": "#5a6fa8"}


@dataclass
class Pod:
    """One interface of a pod; `badges` are what is done to its traffic."""

    name: str
    ifname: str
    addresses: list[str] = field(default_factory=list)
    badges: dict[str, None] = field(default_factory=dict)


class Far(NamedTuple):
    """A host at the other end of a network's tunnels: where it is sent to, how many pods it has there, and by what it is encrypted."""

    name: str
    address: str
    pods: int
    alive: bool
    encryption: str = ""


@dataclass
class Network:
    """What pods are on: a bridge, a physical link, or the host itself; `far` are the other hosts, where a cluster knows them."""

    title: str
    gateways: dict[str, None] = field(default_factory=dict)
    tunnels: dict[str, None] = field(default_factory=dict)
    pods: dict[tuple[str, str], Pod] = field(default_factory=dict)
    far: dict[Far, None] = field(default_factory=dict)


_NONE: Mapping[Any, Any] = MappingProxyType({})


def networks(
    records: Iterable[Record], others: Mapping[int, Iterable[Far]] = _NONE, guests: Mapping[str, int] = _NONE
) -> list[Network]:
    """What the records of a node say, pods in the order of their attachments; `others` are a cluster's hosts by VNI, `guests` the VNIs of
    networks whose pods this node only reaches.

    A plugin that is chained adds to a pod that another one attached.
    """
    found: dict[str, Network] = {}
    known = tuple(records)
    for record in known:
        for title in filter(None, map(_title, record.resources)):
            network = found.setdefault(title, Network(title))
            network.pods[record.netns, record.attachment.ifname] = _pod(record)
            _describe(network, record.resources, others)
    for record in known:
        for network in found.values():
            pod = network.pods.get((record.netns, record.attachment.ifname))
            if pod:
                pod.badges |= dict.fromkeys(filter(None, map(_badge, record.resources)))
    for name, vni in guests.items():
        far = dict.fromkeys(others.get(vni, ()))
        found[name] = Network(f"{name}: a guest, no pods here", tunnels={f"VNI {vni}": None}, far=far)
    return list(found.values())


def drawn(found: Sequence[Network], host: str) -> str:
    """The picture: networks below each other in the node, what is at a tunnel's other end beside them."""
    boxes, at = [], _GAP + _HEAD
    for network in found:
        boxes.append((at, network))
        at += _height(network) + _GAP
    inner = max([_width(network) for network in found] or [_POD_WIDTH])
    far = max([_far_width(network) + 4 * _GAP for network in found if network.tunnels] or [0])
    width, height = inner + 4 * _GAP + far, at + 2 * _GAP
    node = _box(_GAP, _GAP, inner + 2 * _GAP, at - _GAP, "node") + _text(2 * _GAP, _GAP + 28, host, "title")
    parts = [node, *(_network(2 * _GAP, top, inner, network) for top, network in boxes)]
    style = 'font-family="DejaVu Sans, Verdana, sans-serif"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" {style}>'
    return "\n".join([head, f"<title>{escape(host)}</title>", *parts, "</svg>", ""])


def _title(resource: Resource) -> str:
    if isinstance(resource, VethPair):
        return f"bridge {resource.bridge}" if resource.bridge else "routed by the host, each alone"
    if isinstance(resource, Macvlan):
        return f"{resource.master}: macvlan, mode {resource.mode}"
    return ""


def _pod(record: Record) -> Pod:
    addresses = [ip["address"] for ip in (record.result or {}).get("ips", [])]
    name = record.pod or record.attachment.container[:13]  # what crictl shows of an id
    return Pod(name, record.attachment.ifname, addresses)


def _describe(network: Network, resources: Iterable[Resource], others: Mapping[int, Iterable[Far]]) -> None:
    for resource in resources:
        if isinstance(resource, GatewayAddress) and network.title == f"bridge {resource.link}":
            network.gateways[resource.address] = None
        if isinstance(resource, VxlanLink):
            network.tunnels[f"VNI {resource.vni}, UDP {resource.port}"] = None
            network.far |= dict.fromkeys(others.get(resource.vni, ()))
        if isinstance(resource, FloodList):
            network.tunnels |= dict.fromkeys(resource.vteps)
        if isinstance(resource, Bridge):
            network.gateways[f"MTU {resource.mtu}"] = None


def _badge(resource: Resource) -> str:
    kinds = {PodRules: "proxy", PodPolicy: "policy", Masquerade: "NAT"}
    return next((word for kind, word in kinds.items() if isinstance(resource, kind)), "")


def _width(network: Network) -> int:
    columns = min(_ACROSS, max(1, len(network.pods)))
    return columns * (_POD_WIDTH + _GAP) + _GAP


def _height(network: Network) -> int:
    rows = -(-len(network.pods) // _ACROSS)
    return max(_HEAD + rows * (_POD_HEIGHT + _GAP), _tunnel_height(network))


def _tunnel_height(network: Network) -> int:
    rows = -(-len(_drawn_far(network)) // _FAR_ACROSS)
    return 34 + 16 * (len(network.tunnels) + (len(network.far) > _MOST_FAR)) + rows * (_FAR_HEIGHT + 8)


def _far_width(network: Network) -> int:
    columns = min(_FAR_ACROSS, max(1, len(_drawn_far(network))))
    return columns * (_POD_WIDTH + 8) + 16 if network.far else _POD_WIDTH


def _drawn_far(network: Network) -> list[Far]:
    """Those who are away first: they are what is looked for."""
    return sorted(network.far, key=lambda host: host.alive)[:_MOST_FAR]


def _network(x: int, y: int, width: int, network: Network) -> str:
    parts = [
        _box(x, y, width, _height(network), "network"),
        _text(x + _GAP, y + 20, network.title, "heading"),
        _text(x + _GAP, y + 38, ", ".join(network.gateways)),
    ]
    for number, pod in enumerate(network.pods.values()):
        row, column = divmod(number, _ACROSS)
        parts.append(_drawn_pod(x + _GAP + column * (_POD_WIDTH + _GAP), y + _HEAD + row * (_POD_HEIGHT + _GAP), pod))
    if network.tunnels:
        parts.append(_tunnel(x + width, y, network))
    return "\n".join(parts)


def _drawn_pod(x: int, y: int, pod: Pod) -> str:
    parts = [_box(x, y, _POD_WIDTH, _POD_HEIGHT, "pod"), _text(x + 10, y + 20, pod.name, "heading")]
    for number, address in enumerate(pod.addresses[:2]):  # more would run into the badges
        parts.append(_text(x + 10, y + 38 + 15 * number, f"{pod.ifname} {address}"))
    for number, badge in enumerate(pod.badges):
        left = x + 10 + 64 * number
        parts.append(f'<rect x="{left}" y="{y + 66}" width="58" height="18" rx="9" fill="{_BADGE[badge]}"/>')
        parts.append(_text(left + 29, y + 79, badge, "badge"))
    return "\n".join(parts)


def _tunnel(x: int, y: int, network: Network) -> str:
    """A line out of the node to the VTEPs at its other end; whole and named where what goes over it is encrypted."""
    lines = list(network.tunnels)
    left, middle = x + 3 * _GAP, y + _HEAD // 2
    encryption = next((host.encryption for host in network.far if host.encryption), "")
    ends = f'x1="{x}" y1="{middle}" x2="{left}" y2="{middle}"'
    colour, dashes = (_BADGE["proxy"], "") if encryption else (_LINE, ' stroke-dasharray="8 4"')
    more = len(network.far) - _MOST_FAR
    lines += [f"and {more} more hosts"] if more > 0 else []
    parts = [
        f'<line {ends} stroke="{colour}" stroke-width="4"{dashes}/>',
        _box(left, y, _far_width(network), _tunnel_height(network), "far"),
        _text(left + 12, y + 20, f"VXLAN in {encryption} to" if encryption else "VXLAN to", "heading"),
        *(_text(left + 12, y + 38 + 16 * number, line) for number, line in enumerate(lines)),
    ]
    top = y + 34 + 16 * len(lines)
    for number, host in enumerate(_drawn_far(network)):
        row, column = divmod(number, _FAR_ACROSS)
        parts.append(_drawn_host(left + 12 + column * (_POD_WIDTH + 8), top + row * (_FAR_HEIGHT + 8), host))
    return "\n".join(parts)


def _drawn_host(x: int, y: int, host: Far) -> str:
    """A host of the cluster; one that is away has no colour."""
    pods = f"{host.pods} pod{'s' * (host.pods != 1)}" if host.alive else "away"
    return "\n".join((
        _box(x, y, _POD_WIDTH, _FAR_HEIGHT, "pod" if host.alive else "node"),
        _text(x + 8, y + 18, _fitting(host.name, 20), "heading" if host.alive else "plain"),
        _text(x + 8, y + 35, _fitting(host.address, 28)),
        _text(x + 8, y + 51, pods),
    ))  # fmt: skip


def _fitting(text: str, most: int) -> str:
    """A text without its middle where it is too long."""
    return text if len(text) <= most else f"{text[: most // 2 - 1]}…{text[len(text) - most // 2 :]}"


def _box(x: int, y: int, width: int, height: int, kind: str) -> str:
    size = f'x="{x}" y="{y}" width="{width}" height="{height}" rx="8"'
    return f'<rect {size} fill="{_FILL[kind]}" stroke="{_LINE}"/>'


def _text(x: int, y: int, text: str, style: str = "plain") -> str:
    return f'<text x="{x}" y="{y}" {_STYLE[style]}>{escape(shown(text))}</text>'
