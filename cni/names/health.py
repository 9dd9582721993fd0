"""How a pod is probed: what a configuration or an annotation says, in one spelling."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from cni.decoding import decoded
from cni.errors import InvalidConfig

#: As often as nobody says, and what a probe waits for at most, in seconds; how many are lost or won until it counts.
INTERVAL, LONGEST = 10.0, 1.0
FAILURES, PASSES = 3, 2
#: A pod's own is no shorter, in seconds: of each that flaps all hosts of the cluster are told.
_ANNOTATED = 1.0
_KEYS = ("http", "tcp", "port", "interval", "timeout", "failures", "passes")
_UNITS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h)")
_PORT = re.compile(r"[0-9]{1,5}")
_PLACE = re.compile(r"(?:http://(?:localhost|127\.0\.0\.1)?)?:?(\d{1,5})?(/.*)?")
#: A path of so many characters at most: it is sent with each probe.
LONGEST_PATH = 1024


def read(section: Mapping[str, Any] | None, annotation: str = "") -> str:
    """A probe as JSON: ``tcp`` (a port), or ``http`` (a path) and ``port``; ``interval`` and ``timeout`` in seconds; ``failures`` and
    ``passes``. What a pod's annotation says stands in the place of the network's section; ``{}`` there is no probe. Raises InvalidConfig.
    """
    where, said = "$.health", section
    if annotation:
        where = "annotation names.agent-cni.dev/health"
        try:
            said = decoded(annotation)
        except ValueError as error:
            raise InvalidConfig(f"{where}: {annotation[:80]!r}: {error}") from None
        if not isinstance(said, dict):
            raise InvalidConfig(f"{where}: {annotation[:80]!r} is no JSON object")
    if not said:
        return ""
    _refuse_others(said, _KEYS, where)
    if ("http" in said) == ("tcp" in said):
        raise InvalidConfig(
            f"{where}: has {'both' if 'http' in said else 'neither'} http and tcp; one of them is the probe"
        )
    interval = _seconds(said.get("interval", INTERVAL), f"{where}.interval")
    if annotation and interval < _ANNOTATED:
        raise InvalidConfig(f"{where}.interval: {interval:g} s; a pod's own is {_ANNOTATED:g} s at least")
    found = _http(said, f"{where}.http") if "http" in said else {"tcp": _port(said["tcp"], f"{where}.tcp")}
    found |= {
        "interval": interval,
        "timeout": _seconds(said.get("timeout", min(interval, LONGEST)), f"{where}.timeout"),
    }
    found |= {"failures": _count(said, "failures", FAILURES, where), "passes": _count(said, "passes", PASSES, where)}
    return json.dumps(found)


def _http(said: Mapping[str, Any], where: str) -> dict[str, Any]:
    """A path with `port` beside it, a port alone, or both in one text, as a URL of the pod itself has them."""
    value = said["http"]
    if isinstance(value, dict):
        _refuse_others(value, ("path", "port"), where)
        path, port = value.get("path", "/"), value.get("port", said.get("port"))
    elif isinstance(value, str) and (parts := _PLACE.fullmatch(value)):
        path, port = parts[2] or "/", parts[1] or said.get("port", 80)
    elif isinstance(value, str) and "://" in value:
        raise InvalidConfig(f"{where}: {value[:80]!r}: a pod is asked itself, and by http; tcp asks for any other port")
    else:
        path, port = "/", value
    if not (isinstance(path, str) and path.startswith("/") and path.isprintable() and " " not in path):
        raise InvalidConfig(f"{where}: {path!r} is no path")
    if len(path) > LONGEST_PATH:
        raise InvalidConfig(f"{where}: {path[:80]!r} has more than {LONGEST_PATH} characters")
    return {"http": path, "port": _port(port, where)}


def _refuse_others(said: Mapping[str, Any], keys: Sequence[str], where: str) -> None:
    for key in said:
        if key not in keys:
            raise InvalidConfig(f"{where}.{key}: unknown key; there are {', '.join(keys)}")


def _port(value: Any, where: str) -> int:
    text = str(value).removeprefix(":")
    if isinstance(value, bool) or not (_PORT.fullmatch(text) and 0 < int(text) <= 65535):
        raise InvalidConfig(f"{where}: {value!r} is no port from 1 to 65535")
    return int(text)


def _seconds(value: Any, where: str) -> float:
    if isinstance(value, str) and (parts := _DURATION.fullmatch(value)):
        value = float(parts[1]) * _UNITS[parts[2]]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0.1 <= value <= 3600:
        raise InvalidConfig(f'{where}: {value!r} is no time from 0.1 to 3600 seconds, such as 2 or "500ms"')
    return float(value)


def _count(said: Mapping[str, Any], key: str, default: int, where: str) -> int:
    value = said.get(key, default)
    if isinstance(value, bool) or not isinstance(value, int) or not 1 <= value <= 100:
        raise InvalidConfig(f"{where}.{key}: {value!r} is no number from 1 to 100")
    return int(value)
