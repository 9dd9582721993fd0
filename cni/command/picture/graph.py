"""The node as a picture: which pod is on what, with which addresses, what holds it, and in red what is not as it was made. SVG 1.1, no library."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from html import escape

from cni.command.output import shown
from cni.command.picture.pictured import Far, Network, Pod, Uplink

_POD_WIDTH, _POD_HEIGHT, _GAP, _HEAD, _ACROSS = 216, 92, 16, 46, 4
#: Of a fault as many lines as can be read, and characters of a line.
_LINE_HEIGHT, _FAULT_LINES, _FAULT_WIDTH, _WIDE = 15, 4, 34, 110
#: The cluster's other hosts: as many are drawn as can be read.
_FAR_HEIGHT, _FAR_ACROSS, _MOST_FAR = 60, 4, 60
_INK, _FAINT, _LINE, _RED = "#22313f", "#66788a", "#9fb0c0", "#b3261e"
_FILL = {"node": "#f4f7fa", "network": "#e3ecf5", "pod": "#ffffff", "far": "#efe8f7"}
_STYLE = {
    "title": f'font-size="18" font-weight="bold" fill="{_INK}"',
    "heading": f'font-size="14" font-weight="bold" fill="{_INK}"',
    "plain": f'font-size="12" fill="{_FAINT}"',
    "fault": 'font-size="11" fill="#b3261e"',
    "badge": 'font-size="11" fill="#ffffff" text-anchor="middle"',
}
_BADGE = {"proxy": "#2a7f62", "policy": "#a8492f", "NAT": "#5a6fa8", "other": "#7c7c7c"}


def drawn(found: Sequence[Network], host: str, uplinks: Sequence[Uplink] = ()) -> str:
    """The picture: networks below each other in the node, what is at a tunnel's other end beside them."""
    boxes, at = [], _GAP + _HEAD + _LINE_HEIGHT * len(uplinks)
    for network in found:
        boxes.append((at, network))
        at += _height(network) + _GAP
    inner = max([_width(network) for network in found] or [_POD_WIDTH])
    far = max([_far_width(network) + 4 * _GAP for network in found if network.tunnels] or [0])
    width, height = inner + 4 * _GAP + far, at + 2 * _GAP
    node = _box(_GAP, _GAP, inner + 2 * _GAP, at - _GAP, "node") + _text(2 * _GAP, _GAP + 28, host, "title")
    links = (_drawn_uplink(2 * _GAP, _GAP + 44 + _LINE_HEIGHT * number, link) for number, link in enumerate(uplinks))
    parts = [node, *links, *(_network(2 * _GAP, top, inner, network) for top, network in boxes)]
    style = 'font-family="DejaVu Sans, Verdana, sans-serif"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" {style}>'
    return "\n".join([head, f"<title>{escape(host)}</title>", *parts, "</svg>", ""])


def _drawn_uplink(x: int, y: int, link: Uplink) -> str:
    said = f"uplink {link.name}, MTU {link.mtu}{''.join(f', {item}' for item in link.addresses)}"
    return _text(x, y, f"{said}: {link.fault}" if link.fault else said, "fault" if link.fault else "plain")


def _wrapped(faults: Sequence[str], width: int = _FAULT_WIDTH) -> list[str]:
    """Faults as lines that fit, of more the first."""
    lines = [line for fault in faults for line in textwrap.wrap(shown(fault), width)]
    return (
        lines
        if len(lines) <= _FAULT_LINES
        else [*lines[: _FAULT_LINES - 1], f"{lines[_FAULT_LINES - 1][: width - 2]} …"]
    )


def _width(network: Network) -> int:
    columns = min(_ACROSS, max(1, len(network.pods)))
    return columns * (_POD_WIDTH + _GAP) + _GAP


def _height(network: Network) -> int:
    rows = -(-len(network.pods) // _ACROSS)
    return max(_head(network) + rows * (_pod_height(network) + _GAP), _tunnel_height(network))


def _head(network: Network) -> int:
    return _HEAD + _LINE_HEIGHT * len(_wrapped([*network.faults], _WIDE))


def _pod_height(network: Network) -> int:
    """What the tallest of its pods needs: ports and faults are lines below its badges."""
    return _POD_HEIGHT + _LINE_HEIGHT * max((len(_below(pod)) for pod in network.pods.values()), default=0)


def _below(pod: Pod) -> list[tuple[str, str]]:
    """Lines below a pod's badges, each with its style."""
    ports = [(_fitting(", ".join(pod.ports), _FAULT_WIDTH), "plain")] if pod.ports else []
    return [*ports, *((line, "fault") for line in _wrapped(pod.faults))]


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
        _text(x + _GAP, y + 20, _heading(network), "heading"),
        _text(x + _GAP, y + 38, ", ".join(network.gateways)),
    ]
    faults = _wrapped([*network.faults], _WIDE)
    parts += [_text(x + _GAP, y + 53 + _LINE_HEIGHT * number, line, "fault") for number, line in enumerate(faults)]
    head, high = _head(network), _pod_height(network)
    for number, pod in enumerate(network.pods.values()):
        row, column = divmod(number, _ACROSS)
        parts.append(_drawn_pod(x + _GAP + column * (_POD_WIDTH + _GAP), y + head + row * (high + _GAP), high, pod))
    if network.tunnels:
        parts.append(_tunnel(x + width, y, network))
    return "\n".join(parts)


def _heading(network: Network) -> str:
    """The networks that have it, where some do, and what it is."""
    called = ", ".join(network.called)
    return f"{_fitting(called, 40)}: {network.title}" if called else network.title


def _drawn_pod(x: int, y: int, height: int, pod: Pod) -> str:
    """A pod; the frame of one that is not as it was made is red, and a pointer gets all that is wrong with it."""
    said = f"<title>{escape(shown('; '.join(pod.faults)))}</title>" if pod.faults else ""
    frame = _box(x, y, _POD_WIDTH, height, "pod")
    frame = frame.replace(f'stroke="{_LINE}"', f'stroke="{_RED}" stroke-width="2"') if pod.faults else frame
    parts = [f"<g>{said}{frame}</g>" if said else frame, _text(x + 10, y + 20, _fitting(pod.name, 24), "heading")]
    for number, address in enumerate(pod.addresses[:2]):  # more would run into the badges
        parts.append(_text(x + 10, y + 38 + 15 * number, f"{pod.ifname} {address}"))
    for number, badge in enumerate(pod.badges):
        left = x + 10 + 52 * number
        parts.append(f'<rect x="{left}" y="{y + 66}" width="48" height="18" rx="9" fill="{_BADGE[badge]}"/>')
        parts.append(_text(left + 24, y + 79, badge, "badge"))
    parts += [_text(x + 10, y + 98 + _LINE_HEIGHT * at, *line) for at, line in enumerate(_below(pod))]
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
