"""Who talked to whom, as a picture: pods of this node in one column, whom they talked to beside it. SVG 1.1, no library."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape
from typing import NamedTuple

from cni.command.flows.words import peer_of, port_of, sized
from cni.command.output import shown
from cni.command.picture.graph import _box, _fitting, _text
from cni.flows.seen import Flow

_WIDTH, _HEIGHT, _GAP, _HEAD, _BETWEEN = 260, 34, 10, 60, 420
#: The pairs that passed most are drawn, as many as can be told apart.
_MOST = 60
_ALLOWED, _DENIED = "#2a7f62", "#a8492f"
_THIN, _THICK, _STEP = 1.5, 9.0, 4


class Line(NamedTuple):
    """What passed between a pod and a peer at one port; `out`: the pod began it."""

    pod: str
    peer: str
    port: str
    out: bool
    allowed: bool
    flows: int
    bytes: int


def lines_of(found: Iterable[Flow]) -> list[Line]:
    """A line for all flows between the same two at one port, those by which most passed first."""
    sums: dict[tuple[str, str, str, bool, bool], tuple[int, int]] = {}
    for flow in found:
        seen = flow.seen
        name = seen.peer or peer_of(seen._replace(service=""))
        key = seen.pod or seen.own, name, port_of(seen), seen.direction == "egress", flow.allowed
        many, size = sums.get(key, (0, 0))
        sums[key] = many + 1, size + seen.sent_bytes + seen.received_bytes
    return sorted(
        (Line(*key, *value) for key, value in sums.items()), key=lambda line: (-line.bytes, -line.flows, line)
    )


def drawn(found: Sequence[Line], title: str) -> str:
    """The picture: a line is as thick as much passed, broken where it was denied, and its arrow is at who was asked."""
    some = found[:_MOST]
    pods, peers = _placed(line.pod for line in some), _placed(line.peer for line in some)
    height = _HEAD + max(len(pods), len(peers), 1) * (_HEIGHT + _GAP) + _GAP
    right = 2 * _GAP + _WIDTH + _BETWEEN
    width = right + _WIDTH + 2 * _GAP
    more = f", {len(found) - _MOST} more are not drawn" if len(found) > _MOST else ""
    parts = [_text(2 * _GAP, 30, f"{title}{more}", "heading")]
    parts += [_line(line, pods[line.pod], peers[line.peer], right, number) for number, line in enumerate(some)]
    parts += [_end(2 * _GAP, at, name, "pod") for name, at in pods.items()]
    parts += [_end(right, at, name, "far") for name, at in peers.items()]
    style = 'font-family="DejaVu Sans, Verdana, sans-serif"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {width} {height}" width="{width}" height="{height}" {style}>'
    return "\n".join([head, f"<title>{escape(shown(title))}</title>", _MARKERS, *parts, "</svg>", ""])


_MARKERS = "<defs>" + "".join(
    f'<marker id="{name}" viewBox="0 0 8 8" refX="7" refY="4" markerUnits="userSpaceOnUse" markerWidth="10" markerHeight="10" orient="auto-start-reverse">'
    f'<path d="M0,0 L8,4 L0,8 z" fill="{colour}"/></marker>'
    for name, colour in (("allowed", _ALLOWED), ("denied", _DENIED))
) + "</defs>"  # fmt: skip


def _placed(names: Iterable[str]) -> dict[str, int]:
    return {name: _HEAD + number * (_HEIGHT + _GAP) for number, name in enumerate(sorted(set(names)))}


def _end(x: int, y: int, name: str, kind: str) -> str:
    return _box(x, y, _WIDTH, _HEIGHT, kind) + _text(x + 10, y + 22, _fitting(name, 34))


def _line(line: Line, top: int, other: int, right: int, number: int) -> str:
    """Words stand on it, at another place for each that comes to the same end, so that they can be read."""
    left, kind = 2 * _GAP + _WIDTH, "allowed" if line.allowed else "denied"
    (start, end), middle = (top, other), _HEIGHT // 2
    colour, dashes = (_ALLOWED, "") if line.allowed else (_DENIED, ' stroke-dasharray="6 4"')
    thick = min(_THICK, _THIN + len(str(line.bytes // 1024)) - 1) if line.bytes else _THIN
    arrow = f'marker-{"end" if line.out else "start"}="url(#{kind})"'
    ends = f'x1="{left}" y1="{start + middle}" x2="{right}" y2="{end + middle}"'
    part = (1 + number % _STEP) / (_STEP + 1)
    x, y = left + _BETWEEN * part, start + middle + (end - start) * part - 4
    passed = sized(line.bytes) if line.allowed else "denied"
    said = f"{line.port}, {passed}" + (f", {line.flows} times" if line.flows > 1 else "")
    stroke = f'<line {ends} stroke="{colour}" stroke-width="{thick}"{dashes} {arrow}/>'
    return f'{stroke}\n<text x="{x:.0f}" y="{y:.0f}" font-size="11" fill="{colour}" text-anchor="middle">{escape(shown(said))}</text>'
