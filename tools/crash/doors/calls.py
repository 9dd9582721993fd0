"""A call: its environment and its stdin, in this process, judged as its runtime would."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import cache
from pathlib import Path
from random import Random
from typing import Any
from unittest import mock

from schemas import resolved

from cni import main as executable
from cni.command.files import _explained
from cni.errors import CniError
from cni.naming import OWN_IPAM
from cni.plugin import names
from cni.protocol.schema import PLUGINS, schema_of
from cni.protocol.versions import SUPPORTED
from crash.doors.door import Door
from crash.mutation import NASTY, changed, mutated, said

ANNOTATIONS = "io.kubernetes.cri.pod-annotations"
RESULT = {
    "cniVersion": "1.1.0",
    "interfaces": [{"name": "veth0", "mac": "0a:58:0a:09:00:01"},
                   {"name": "eth0", "mac": "0a:58:0a:09:00:02", "mtu": 1500, "sandbox": "/nowhere/netns"}],
    "ips": [{"address": "10.9.0.2/24", "gateway": "10.9.0.1", "interface": 1}, {"address": "fd00::2/64", "version": "6"}],
    "routes": [{"dst": "0.0.0.0/0", "gw": "10.9.0.1", "mtu": 1400, "advmss": 1300, "priority": 5, "table": 5, "scope": 0}],
    "dns": {"nameservers": ["10.9.0.3"], "domain": "a", "search": ["b"], "options": ["c"]},
}  # fmt: skip
OLD_RESULT = {"cniVersion": "0.2.0", "ip4": {"ip": "10.9.0.2/24", "gateway": "10.9.0.1", "routes": [{"dst": "0.0.0.0/0"}]},
              "ip6": {"ip": "fd00::2/64"}, "dns": {}}  # fmt: skip
RUNTIME = {
    "ips": ["10.9.0.7"], "mac": "0a:58:0a:09:00:02", "dns": {"servers": ["10.9.0.3"], "searches": ["a"], "options": ["b"]},
    "ipRanges": [[{"subnet": "10.8.0.0/24", "rangeStart": "10.8.0.5", "rangeEnd": "10.8.0.9", "gateway": "10.8.0.1"}]],
    "aliases": {"pods": ["web", "www"]}, "portMappings": [{"hostPort": 80, "containerPort": 80, "protocol": "tcp"}],
    "bandwidth": {"ingressRate": 1000, "ingressBurst": 1000},
    ANNOTATIONS: {
        **{f"traffic.sidecar.istio.io/{name}": value for name, value in {
            "includeOutboundIPRanges": "*", "excludeOutboundIPRanges": "10.0.0.0/8", "includeOutboundPorts": "80,443",
            "excludeOutboundPorts": "22", "includeInboundPorts": "*", "excludeInboundPorts": "15020",
            "kubevirtInterfaces": "net1", "excludeInterfaces": "eth1"}.items()},
        "sidecar.istio.io/interceptionMode": "REDIRECT", "sidecar.istio.io/status": "x", "sidecar.istio.io/inject": "true",
        "names.agent-cni.dev/hostname": "web", "names.agent-cni.dev/aliases": "www,api",
        "names.agent-cni.dev/health": '{"http": {"path": "/", "port": 80}, "interval": "2s"}',
        "policy.agent-cni.dev/labels": '{"app": "web"}',
    },
}  # fmt: skip
_HEALTH = {
    "http": {"path": "/healthz", "port": 8080},
    "tcp": 80,
    "port": 80,
    "interval": "5s",
    "timeout": 1,
    "failures": 3,
    "passes": 2,
}
LISTED = [{"containerID": "c1", "ifname": "eth0"}]
VERBS = ("ADD", "ADD", "ADD", "CHECK", "DEL", "GC", "STATUS")
ENVIRON = {
    "CNI_CONTAINERID": "c1", "CNI_NETNS": "/nowhere/netns", "CNI_IFNAME": "eth0", "CNI_PATH": "/nowhere",
    "CNI_ARGS": "IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web",
}  # fmt: skip
_WORDS = (
    *("a", "eth0", "=", ";", ":", "/", ".", "..", " ", "\n", "\udc80", "\udcff", "é", "%", "+", "*", "!", "-", "'", '"', "\\", "{", "\x1b"),
    *("IP", "MAC", "GATEWAY", "K8S_POD_NAME", "K8S_POD_NAMESPACE", "IgnoreUnknown=1", "10.9.0.7", "10.9.0.7/24", "fd00::7", "0a:58:0a:09:00:02"),
    *("/proc/self/ns/net", "/dev/null", "/dev/zero", "/", "true", "1", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01", "x" * 300),
    *("x" * 5000, "HOSTNAME", "VERSION", "ADD", "\u2028", "\ufeff", "\U0001f600", "0", "\t"),
)  # fmt: skip
_VARIABLES = (
    *ENVIRON,
    "CNI_COMMAND",
    "CNI_NETNS_OVERRIDE",
    "TRACEPARENT",
    "TRACESTATE",
    "BAGGAGE",
    "NERDCTL_CNI_DHCP_HOSTNAME",
)


#: What a caller sent wrong is seen before anything is opened; that somebody called is counted all the same.
_WRONG, _COUNTED = (1, 2, 4, 5, 6, 7), ("lock", "tally-1")


class Refused(Exception):
    """What is wrong with an answer."""


# --- judging


def packed(plugin: str, environ: dict[str, str], stdin: bytes) -> bytes:
    """A call as one input."""
    return json.dumps({"plugin": plugin, "environ": environ}).encode() + b"\n" + stdin


def judged(data: bytes) -> str:
    """Have a call in this process; what is wrong with its answers and what it left."""
    head, _, stdin = data.partition(b"\n")
    asked = json.loads(head)
    here = Path.cwd()
    before = sorted(here.iterdir())
    answers: list[tuple[int, bytes]] = []
    with mock.patch.object(executable, "_stdin", return_value=stdin):
        code = executable.main(
            str(PLUGINS / asked["plugin"]), asked["environ"], executable.Stdout(lambda *said: answers.append(said))
        )
    verb = asked["environ"].get("CNI_COMMAND", "")
    try:
        document = only(code, verb, answers)
        if verb == "ADD" and document.get("code") == 8 and "CNI_NETNS" in document["msg"]:
            _explain(stdin)
        if sorted(here.iterdir()) != before:
            return "something was written where the call was made"
        if verb == "ADD" and document.get("code") in _WRONG and (left := _state(here)):
            return f"what is refused with {document['code']} left {left}"
    except Refused as refused:
        return str(refused)
    finally:
        shutil.rmtree(here.parent / "state", ignore_errors=True)
    return ""


def only(code: int, verb: str, answers: list[tuple[int, bytes]]) -> dict[str, Any]:
    """The one document of a call, or {} where none is to be."""
    if not answers and code == 0:
        return {}
    if len(answers) != 1:
        raise Refused(f"{len(answers)} documents, exit {code}")
    told, text = answers[0]
    document: dict[str, Any] = json.loads(text, parse_constant=_refuse)
    if (told, code) not in ((0, 0), (1, 1)):
        raise Refused(f"exit {code}, and {told} was to be it")
    if code and not (
        isinstance(document.get("code"), int) and document["code"] not in (0, 999) and document.get("msg")
    ):
        raise Refused(f"{verb}: {str(document)[:300]}")
    if document.get("cniVersion") not in SUPPORTED:
        raise Refused(f"cniVersion {document.get('cniVersion')!r}")
    return document


def _refuse(constant: str) -> None:
    raise Refused(f"{constant} was printed")


def _state(here: Path) -> list[str]:
    state = here.parent / "state"
    return sorted(item.name for item in state.iterdir() if item.name not in _COUNTED) if state.exists() else []


def _explain(stdin: bytes) -> None:
    """What is taken is planned too, and what is planned is finite."""
    file = Path.cwd().parent / "it.conf"
    file.write_bytes(stdin)
    with suppress(CniError):
        for item in _explained(file):
            json.dumps(item, allow_nan=False)


# --- making


@cache
def keys_of(plugin: str) -> tuple[str, ...]:
    """Every key that stands anywhere in a plugin's configuration."""
    return tuple(sorted(set(_keys(schema_of(plugin), f"{plugin}.schema.json"))))


def _keys(schema: dict[str, Any], root: str) -> Iterator[str]:
    schema, root = resolved(schema, root)
    for name, part in schema.get("properties", {}).items():
        yield name
        yield from _keys(part, root)
    for part in (
        *(schema[word] for word in ("then", "if", "items") if isinstance(schema.get(word), dict)),
        *schema.get("anyOf", ()),
    ):
        yield from _keys(part, root)


_TEXTS: dict[str, tuple[str, ...]] = {
    "cidr": ("10.9.0.0/24", "fd00:9::/64", "0.0.0.0/0", "10.9.0.0/30", "::/0"),
    "interface": ("10.9.0.5/24", "fd00:9::5/64"), "address": ("10.9.0.1", "10.9.0.9", "fd00:9::1"),
    "mac": ("0a:58:0a:09:00:02",), "ifname": ("br0", "eth1", "cni0"),
}  # fmt: skip


_ANY_TEXTS = ("a", "web", "10.9.0.0/24", "10.9.0.1", "/tmp/x", "example.com", "80", "", "default", "*", "app=web")


def drawn(random: Random, schema: Any, root: str, depth: int = 0) -> Any:
    """A value that a schema takes, mostly."""
    if not isinstance(schema, dict):
        return 1
    schema, root = resolved(schema, root)
    if "anyOf" in schema and random.random() < 0.9:
        return drawn(random, random.choice(schema["anyOf"]), root, depth)
    for word in ("const", "enum"):
        if word in schema:
            return schema["const"] if word == "const" else random.choice(schema["enum"])
    kind = schema.get("type")
    kind = random.choice(kind) if isinstance(kind, list) else kind
    if kind == "array":
        return [drawn(random, schema.get("items", {}), root, depth + 1) for _ in range(random.choice((0, 1, 1, 2, 3)))]
    if kind == "object" or "properties" in schema:
        return _object(random, schema, root, depth)
    return _plain(random, schema, kind)


def _plain(random: Random, schema: dict[str, Any], kind: str | None) -> Any:
    if kind in ("integer", "number"):
        low, high = schema.get("minimum", 0), schema.get("maximum", 1 << 20)
        return random.choice((low, high, low + 1, random.randint(int(low), int(high)), float(low)))
    if kind == "boolean":
        return random.random() < 0.5
    return random.choice(_TEXTS.get(schema.get("format", ""), _ANY_TEXTS))


def _object(random: Random, schema: dict[str, Any], root: str, depth: int) -> dict[str, Any]:
    parts = {name: (part, root) for name, part in schema.get("properties", {}).items()}
    for word in ("then", "if"):
        more, within = resolved(schema[word], root) if isinstance(schema.get(word), dict) else ({}, root)
        parts |= {name: (part, within) for name, part in more.get("properties", {}).items()}
    share = random.choice((0.1, 0.3, 0.6)) if depth else random.choice((0.05, 0.15, 0.4))
    taken = (name for name in parts if name in schema.get("required", ()) or random.random() < share)
    return {name: drawn(random, *parts[name], depth + 1) for name in taken}


def configuration(random: Random, plugin: str) -> dict[str, Any]:
    """A configuration over all keys of a plugin's schema, mostly right."""
    found = drawn(random, schema_of(plugin), f"{plugin}.schema.json")
    for key in ("prevResult", "runtimeConfig", "args", "dataDir", "capabilities"):
        found.pop(key, None)
    found |= {"cniVersion": random.choice(SUPPORTED), "name": "pods", "type": plugin}
    if random.random() < 0.7:
        found["ipam"] = {"ranges": [[{"subnet": "10.9.0.0/24"}]]} | (
            found.get("ipam") if isinstance(found.get("ipam"), dict) and random.random() < 0.3 else {}
        )
        if plugin == OWN_IPAM:
            found["ipam"]["type"] = OWN_IPAM
    return found | ({"prevResult": RESULT} if random.random() < 0.5 else {})


def _call(random: Random, make: Callable[[Random, str], str | bytes]) -> bytes:
    plugin, verb = random.choice(names()), random.choice(VERBS)
    stdin = make(random, plugin)
    return packed(
        plugin,
        ENVIRON | {"CNI_COMMAND": verb},
        stdin if isinstance(stdin, bytes) else stdin.encode("utf-8", "surrogatepass"),
    )


def _of_any_bytes(random: Random, plugin: str) -> bytes:
    whole = json.dumps(configuration(random, plugin)).encode()
    match random.randrange(6):
        case 0:
            return random.randbytes(random.randrange(200))
        case 1:
            return random.choice(NASTY).encode() * random.choice((1, 1, 2))
        case 2:
            return (
                random.choice((b"\xef\xbb\xbf", b"\xff\xfe", b" ", b"\0", b"#"))
                + whole
                + random.choice((b"", b"\0", b"x", whole, b"\xff"))
            )
        case 3 if random.random() < 0.02:
            return whole[:-1] + b', "x": "' + b"y" * (10 << 20) + b'"}'
        case _:
            return mutated(
                random, whole, words=(b'"name":"pods",', b"{", b"[", b"null", b"1e999", b'"\\ud800"', b"NaN")
            )


def _configured(random: Random, plugin: str) -> str:
    conf = configuration(random, plugin)
    return json.dumps(conf) if random.random() < 0.2 else changed(random, conf, keys_of(plugin))


def _with(random: Random, plugin: str, **more: str) -> str:
    conf = json.dumps(configuration(random, plugin) | {"cni.dev/valid-attachments": LISTED})
    return conf[:-1] + "".join(f", {json.dumps(key)}: {text}" for key, text in more.items()) + "}"


def _with_result(random: Random, plugin: str) -> str:
    result = random.choice((RESULT, OLD_RESULT, RESULT | {"cniVersion": random.choice(SUPPORTED)}))
    return _with(random, plugin, prevResult=changed(random, result, ("interfaces", "ip4", "ips", "dns", "routes")))


def _with_runtime(random: Random, plugin: str) -> str:
    runtime = dict(RUNTIME)
    if random.random() < 0.5:
        told = {
            key: value if random.random() < 0.7 else said(random, (*_WORDS, ",", "80", "*", value))
            for key, value in RUNTIME[ANNOTATIONS].items()
        }
        health = {key: value for key, value in _HEALTH.items() if random.random() < 0.5}
        told["names.agent-cni.dev/health"] = changed(random, health, tuple(_HEALTH))
        runtime[ANNOTATIONS] = told
    names_ = {"names": {}} if random.random() < 0.5 else {}
    args = {"cni": {"ips": ["10.9.0.7"], "mac": "0a:58:0a:09:00:02", "labels": [{"key": "a", "value": "b"}]}}
    more = {key: json.dumps(value) for key, value in names_.items()}
    return _with(
        random, plugin, runtimeConfig=changed(random, runtime, tuple(RUNTIME)), args=changed(random, args), **more
    )


def _in_environment(random: Random) -> bytes:
    plugin = random.choice(names())
    environ = ENVIRON | {"CNI_COMMAND": random.choice((*VERBS, "VERSION"))}
    for name in random.sample(_VARIABLES, random.choice((1, 1, 2, 3))):
        match random.randrange(4):
            case 0:
                environ.pop(name, None)
            case 1 if random.random() < 0.05:
                environ[name] = "x" * (1 << 20)
            case _:
                environ[name] = said(random, (*_WORDS, environ.get(name, "a")))
    conf = (
        configuration(random, plugin)
        | {"cni.dev/valid-attachments": LISTED}
        | ({"names": {}} if random.random() < 0.3 else {})
    )
    return packed(plugin, environ, json.dumps(conf).encode())


DOORS = (
    Door("stdin", lambda random: _call(random, _of_any_bytes), judged),
    Door("configuration", lambda random: _call(random, _configured), judged),
    Door("prevResult", lambda random: _call(random, _with_result), judged),
    Door("runtimeConfig", lambda random: _call(random, _with_runtime), judged),
    Door("environment", _in_environment, judged),
)
