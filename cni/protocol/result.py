"""What a plugin returns: one shape inside, every version's shape outside.

Source: CNI specification 1.1.0, section 5 "Result Types", and the 0.2.0 and 0.4.0 texts.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from typing import Any

from cni.errors import DecodingFailure, InvalidConfig
from cni.protocol import addresses
from cni.protocol.versions import LATEST, at_least
from cni.values import dataclass, replace

Json = dict[str, Any]

_MOST = (1 << 32) - 1
_HARDWARE = re.compile(r"[0-9A-Fa-f]{2}(?:[:-][0-9A-Fa-f]{2}){5,31}")


@dataclass(frozen=True)
class Interface:
    """A link the attachment made or uses; `sandbox` is the pod's netns path, empty on the host."""

    name: str
    mac: str = ""
    mtu: int = 0
    sandbox: str = ""


@dataclass(frozen=True)
class IPConfig:
    """An address with its prefix (``10.1.0.2/24``); `interface` counts from 0 in `interfaces`."""

    address: str
    gateway: str = ""
    interface: int | None = None

    @property
    def family(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.address else 4


@dataclass(frozen=True)
class Route:
    """A route in the pod; `gw` empty means the family's gateway, `table` None or 0 the main one. Units: mtu and advmss in bytes."""

    dst: str
    gw: str = ""
    mtu: int = 0
    advmss: int = 0
    priority: int = 0
    table: int | None = None
    scope: int | None = None

    @property
    def family(self) -> int:
        """4 or 6."""
        return 6 if ":" in self.dst else 4

    @classmethod
    def read(cls, raw: Mapping[str, Any]) -> Route:
        """Read a route of a configuration or result; numbers may have passed through float64."""
        return cls(
            str(addresses.interface(raw["dst"]).network),
            _gateway(raw.get("gw")),
            mtu=_number(raw.get("mtu")),
            advmss=_number(raw.get("advmss")),
            priority=_number(raw.get("priority")),
            table=_optional(raw.get("table")),
            scope=_optional(raw.get("scope")),
        )


def refuse_gateway(where: str, dst: str, gateway: str) -> None:
    """Raise InvalidConfig for an IPv6 route by an IPv4 gateway, which no kernel knows; the other way round is RFC 8950."""
    if ":" in dst and gateway and ":" not in gateway:
        raise InvalidConfig(f"{where}: an IPv6 route cannot go by an IPv4 gateway: {dst} via {gateway}")


@dataclass(frozen=True)
class DNS:
    """Resolver settings, as in resolv.conf(5)."""

    nameservers: tuple[str, ...] = ()
    domain: str = ""
    search: tuple[str, ...] = ()
    options: tuple[str, ...] = ()

    @classmethod
    def read(cls, raw: Mapping[str, Any] | None) -> DNS:
        """Read the ``dns`` object of a configuration or result."""
        lists = {key: _texts((raw or {}).get(key)) for key in ("nameservers", "search", "options")}
        return cls(domain=_text((raw or {}).get("domain")), **lists)

    @property
    def resolvers(self) -> tuple[str, ...]:
        """The nameservers' addresses, for packet rules, which know no zones. Raises DecodingFailure where one is none."""
        try:
            return tuple(addresses.nameserver(item).partition("%")[0] for item in self.nameservers)
        except ValueError as error:
            raise DecodingFailure(f"a CNI result is malformed: dns.nameservers: {error}") from None

    def __bool__(self) -> bool:
        return self != DNS()


@dataclass(frozen=True)
class Result:
    """The outcome of an ADD; an IPAM's has no interfaces."""

    interfaces: tuple[Interface, ...] = ()
    ips: tuple[IPConfig, ...] = ()
    routes: tuple[Route, ...] = ()
    dns: DNS = DNS()

    @classmethod
    def read(cls, raw: Json) -> Result:
        """Read a result of any version. Raises DecodingFailure for what is none."""
        try:
            return cls._read_old(raw) if "ip4" in raw or "ip6" in raw else cls._read(raw)
        except (KeyError, TypeError, ValueError, AttributeError) as error:
            raise DecodingFailure(f"a CNI result is malformed: {error!r}") from None

    @classmethod
    def _read(cls, raw: Json) -> Result:
        return cls(
            tuple(_interface(item) for item in raw.get("interfaces") or ()),
            tuple(
                IPConfig(
                    _interface_text(ip["address"]),
                    _gateway(ip.get("gateway")),
                    _optional(ip.get("interface")),
                )
                for ip in raw.get("ips") or ()
            ),
            tuple(Route.read(route) for route in raw.get("routes") or ()),
            DNS.read(raw.get("dns")),
        )

    @classmethod
    def _read_old(cls, raw: Json) -> Result:
        families = [raw[key] for key in ("ip4", "ip6") if raw.get(key) is not None]
        return cls(
            ips=tuple(IPConfig(_interface_text(ip["ip"]), _gateway(ip.get("gateway"))) for ip in families),
            routes=tuple(Route.read(route) for ip in families for route in ip.get("routes") or ()),
            dns=DNS.read(raw.get("dns")),
        )

    def render(self, version: str = LATEST) -> Json:
        """This result as the JSON object of a specification version."""
        if not at_least(version, "0.3.0"):
            return self._render_old(version)
        raw: Json = {"cniVersion": version}
        _put(raw, "interfaces", [_rendered(item, version) for item in self.interfaces])
        _put(raw, "ips", [_ip(item, version) for item in self.ips])
        _put(raw, "routes", [_route(item, version) for item in self.routes])
        if self.dns or not at_least(version, "1.0.0"):
            raw["dns"] = _without_empty(vars(self.dns))
        return raw

    def _render_old(self, version: str) -> Json:
        raw: Json = {"cniVersion": version}
        for key, family in (("ip4", 4), ("ip6", 6)):
            first = next((ip for ip in self.ips if ip.family == family), None)
            if first:
                routes = [_route(route, version) for route in self.routes if route.family == family]
                raw[key] = _without_empty({"ip": first.address, "gateway": first.gateway, "routes": routes})
        return raw | {"dns": _without_empty(vars(self.dns))}

    def gateway(self, family: int) -> str:
        """The first gateway of a family, or nothing."""
        return next((ip.gateway for ip in self.ips if ip.family == family and ip.gateway), "")

    def after(self, previous: Result) -> Result:
        """This result with what came before it in a chain behind: nothing of it is dropped.

        What makes the pod's interface is asked about its own first: `firewall` takes the first interface for the bridge.
        """
        behind = len(self.interfaces)
        theirs = (replace(ip, interface=None if ip.interface is None else ip.interface + behind) for ip in previous.ips)
        return Result(
            self.interfaces + previous.interfaces,
            (*self.ips, *theirs),
            self.routes + previous.routes,
            self.dns or previous.dns,
        )

    def with_interfaces(self, interfaces: Iterable[Interface]) -> Result:
        """This result with other interfaces."""
        return replace(self, interfaces=tuple(interfaces))


def _interface_text(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no address")
    return str(addresses.interface(value))


def _gateway(value: Any) -> str:
    return "" if value in (None, "") else str(addresses.address(value))


def _texts(value: Any) -> tuple[str, ...]:
    if not isinstance(value, list | tuple | None):
        raise TypeError(f"{value!r} is no list")
    return tuple(map(_text, value or ()))


def _text(value: Any) -> str:
    if not isinstance(value, str | None):
        raise TypeError(f"{value!r} is no text")
    return value or ""


def _number(value: Any) -> int:
    """A number of the kernel's 32 bits; it may have passed through float64."""
    if value is None:
        return 0
    if (
        isinstance(value, bool)
        or not isinstance(value, int | float)
        or not (0 <= value <= _MOST and value == int(value))
    ):
        raise ValueError(f"{value!r} is no number from 0 to {_MOST}")
    return int(value)


def _interface(raw: Json) -> Interface:
    return Interface(_text(raw["name"]), _hardware(raw.get("mac")), _number(raw.get("mtu")), _text(raw.get("sandbox")))


def _hardware(value: Any) -> str:
    """A hardware address, which has more than six bytes where it is no Ethernet's."""
    if (text := _text(value)) and not _HARDWARE.fullmatch(text):
        raise ValueError(f"{text[:60]!r} is no MAC")
    return text


def _rendered(item: Interface, version: str) -> Json:
    raw = _without_empty(vars(item))
    return raw if at_least(version, "1.1.0") else {key: raw[key] for key in raw if key != "mtu"}


def _ip(item: IPConfig, version: str) -> Json:
    raw: Json = {} if at_least(version, "1.0.0") else {"version": str(item.family)}
    return raw | _without_empty(vars(item))


def _route(item: Route, version: str) -> Json:
    raw = _without_empty(vars(item))
    return raw if at_least(version, "1.1.0") else {key: raw[key] for key in ("dst", "gw") if key in raw}


def _without_empty(raw: Json) -> Json:
    return {  # 0 is a value of these three, and no absence
        key: value for key, value in raw.items() if value or (value == 0 and key in ("interface", "table", "scope"))
    }


def _put(raw: Json, key: str, items: list[Json]) -> None:
    if items:
        raw[key] = items


def _optional(value: Any) -> int | None:
    return None if value is None else _number(value)
