"""Every key of every plugin with values nobody should send: a designed error each, or it is taken."""

from __future__ import annotations

import json
import os
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from schemas import resolved, written

from cni.command.files import _explained
from cni.errors import CniError
from cni.main import main
from cni.plugin import names
from cni.protocol.schema import PLUGINS, schema_of

#: JSON texts, because some of them no JSON module writes.
NASTY = (
    *("null", "true", "false", "0", "-1", "1", "68", "254", "2147483648", "4294967296", "9223372036854775808"),
    *("-9223372036854775809", "1.5", "1e3", "1e400", "-1e400", "1e-400", "9" * 308, "9" * 400, "NaN", "Infinity"),
    *('""', '" "', '"foo"', '"a\\u0000b"', '"\\ud800"', '"\\u001b[2J"', '"../x"', f'"{"x" * 5000}"', '"+"', '"é"'),
    *('"10.9.0.1"', '"10.9.0.1/24"', '"10.9.0.0/24"', '"10.9.0.1/33"', '"010.9.0.1"', '"0.0.0.0/0"', '"::/0"', '"::"'),
    *('"::ffff:10.9.0.1"', '"::ffff:10.9.0.0/120"', '"::ffff:10.9.0.1/120"', '"fe80::1%eth0"', '"fe80::1%eth0/64"'),
    *("[]", "[[]]", "[null]", "[1]", '["foo"]', "[{}]", "{}", '{"a": 1}', '{"": null}', '["::ffff:10.9.0.1"]', "[1e400]"),
    *('["fe80::1%eth0"]', '"255.255.255.255"', '"224.0.0.1/24"', '"00:00:00:00:00:00"', "[" * 60 + "]" * 60),
    *("[" * 990 + "]" * 990, '{"a":' * 990 + "1" + "}" * 990),
)  # fmt: skip
MARK = "\x07 here \x07"
#: What must stand beside a key for it to be read.
BESIDE: dict[str, dict[str, Any]] = {
    "vxlan": {"id": 42},
    "routes": {"dst": "0.0.0.0/0"},
    "range": {"subnet": "10.9.0.0/24"},
    "ipBlock": {"cidr": "10.9.0.0/24"},
}
RESULT = {
    "cniVersion": "1.1.0",
    "interfaces": [{"name": "veth0", "mac": "0a:58:0a:09:00:01"},
                   {"name": "eth0", "mac": "0a:58:0a:09:00:02", "mtu": 1500, "sandbox": "/nowhere/netns"}],
    "ips": [{"address": "10.9.0.2/24", "gateway": "10.9.0.1", "interface": 1}],
    "routes": [{"dst": "0.0.0.0/0", "gw": "10.9.0.1", "mtu": 1400, "advmss": 1300, "priority": 5, "table": 5, "scope": 0}],
    "dns": {"nameservers": ["10.9.0.3"], "domain": "a", "search": ["b"], "options": ["c"]},
}  # fmt: skip
OLD_RESULT = {"cniVersion": "0.2.0", "ip4": {"ip": "10.9.0.2/24", "gateway": "10.9.0.1", "routes": [{"dst": "0.0.0.0/0"}]},
              "ip6": {"ip": "fd00::2/64"}, "dns": {}}  # fmt: skip
RUNTIME = {
    "ips": ["10.9.0.7"], "mac": "0a:58:0a:09:00:02", "dns": {"servers": ["10.9.0.3"]},
    "ipRanges": [[{"subnet": "10.8.0.0/24", "rangeStart": "10.8.0.5", "rangeEnd": "10.8.0.9", "gateway": "10.8.0.1"}]],
    "io.kubernetes.cri.pod-annotations": {
        **{f"traffic.sidecar.istio.io/{name}": "" for name in (
            "includeOutboundIPRanges", "excludeOutboundIPRanges", "includeOutboundPorts", "excludeOutboundPorts",
            "includeInboundPorts", "excludeInboundPorts", "kubevirtInterfaces", "excludeInterfaces")},
        "sidecar.istio.io/interceptionMode": "REDIRECT"},
}  # fmt: skip
#: What makes a configuration a whole one, of plugins that have the key.
WHOLE: dict[str, Any] = {"isDefaultGateway": True, "ipam": {"ranges": [[{"subnet": "10.9.0.0/24"}]]}}
LISTED = [{"containerID": "c1", "ifname": "eth0"}]


def keys(schema: dict[str, Any], root: str, path: tuple[str | int, ...] = ()) -> Iterator[tuple[str | int, ...]]:
    """The path of every key of a schema; a list's items have the number 0."""
    schema, root = resolved(schema, root)
    for name, part in schema.get("properties", {}).items():
        yield (*path, name)
        yield from keys(part, root, (*path, name))
    for part in (schema[word] for word in ("then", "if") if word in schema):
        yield from keys(part, root, path)
    for part in schema.get("anyOf", ()):
        yield from keys(part, root, path)
    if "items" in schema:
        yield (*path, 0)
        yield from keys(schema["items"], root, (*path, 0))


def placed(base: Any, path: tuple[str | int, ...]) -> Any:
    """A configuration with MARK at a path; what is on the way is kept or made."""
    if not path:
        return MARK
    step, *rest = path
    if isinstance(step, int):
        return [placed(base[0] if isinstance(base, list) and base else None, tuple(rest))]
    known = base if isinstance(base, dict) else {}
    beside = BESIDE.get(str(step), {}) if not known.get(step) else {}
    below = known.get(step) if step in known else beside
    return known | {step: placed(below, tuple(rest))}


def paths_in(value: Any, path: tuple[str | int, ...]) -> Iterator[tuple[str | int, ...]]:
    """The path of everything in a value, itself among it."""
    yield path
    items = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, item in items:
        yield from paths_in(item, (*path, key))


def replaced(value: Any, path: tuple[str | int, ...]) -> Any:
    """A copy of a value with MARK at a path that it has."""
    if not path:
        return MARK
    copy = dict(value) if isinstance(value, dict) else list(value)
    copy[path[0]] = replaced(copy[path[0]], path[1:])
    return copy


def cases() -> Iterator[Any]:
    """A plugin, a verb, and a configuration with MARK for each key."""
    for plugin in names():
        whole = {key: value for key, value in WHOLE.items() if key in written(f"{plugin}.schema.json")["properties"]}
        base = {"cniVersion": "1.1.0", "name": "pods", "type": plugin, **whole}
        found = dict.fromkeys(keys(schema_of(plugin), f"{plugin}.schema.json"))
        for path in found:
            yield pytest.param(plugin, "ADD", placed(base, path), id=f"{plugin} {'.'.join(map(str, path))}")
        for path in (("dataDir",), ("ipam",), ("ipam", "dataDir"), ("ipam", "type"), ("name",), ("cniVersion",)):
            for verb in ("DEL", "GC", "STATUS"):
                yield pytest.param(plugin, verb, placed(base, path), id=f"{plugin} {verb} {'.'.join(map(str, path))}")
        for path in paths_in(LISTED, ("cni.dev/valid-attachments",)):
            conf = base | {path[0]: LISTED}
            yield pytest.param(plugin, "GC", replaced(conf, path), id=f"{plugin} GC {'.'.join(map(str, path[1:]))}")
        more: dict[str, Any] = (
            {"sidecar": {"captureDNS": True}} if plugin not in ("sidecar-redirect", "agent-ipam") else {}
        )
        for name, result in (("prevResult", RESULT), ("old prevResult", OLD_RESULT)):
            conf = base | more | {"prevResult": result}
            for path in paths_in(result, ("prevResult",)):
                for verb in ("ADD", "CHECK", "DEL"):
                    yield pytest.param(plugin, verb, replaced(conf, path), id=f"{plugin} {verb} {name} {path[1:]}")
        conf = base | more | {"runtimeConfig": RUNTIME, "args": {"cni": {"ips": ["10.9.0.7"], "mac": RUNTIME["mac"]}}}
        for path in (*paths_in(RUNTIME, ("runtimeConfig",)), *paths_in(conf["args"], ("args",))):
            yield pytest.param(plugin, "ADD", replaced(conf, path), id=f"{plugin} {'.'.join(map(str, path))}")


class Runtime:
    """Calls a plugin in this process, on files for stdin and stdout."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._in, self._out = folder / "in", folder / "out"

    def call(self, plugin: str, verb: str, text: str) -> tuple[int, str]:
        environ = {
            "CNI_COMMAND": verb, "CNI_CONTAINERID": "c1", "CNI_NETNS": "/nowhere/netns", "CNI_IFNAME": "eth0",
            "CNI_PATH": "/nowhere", "CNI_ARGS": "",
        }  # fmt: skip
        self._in.write_text(text)
        self._out.write_text("")
        kept = os.dup(0), os.dup(1)
        for number, file, how in ((0, self._in, os.O_RDONLY), (1, self._out, os.O_WRONLY)):
            fd = os.open(file, how)
            os.dup2(fd, number)
            os.close(fd)
        try:
            return main(str(PLUGINS / plugin), environ), self._out.read_text()
        finally:
            for number, fd in enumerate(kept):
                os.dup2(fd, number)
                os.close(fd)


@pytest.fixture
def runtime(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Runtime:
    """Its state is in a folder of its own, and signals stay as they are."""
    (tmp_path / "cwd").mkdir()
    monkeypatch.chdir(tmp_path / "cwd")
    monkeypatch.setattr("cni.node.DEFAULT_FOLDER", tmp_path / "state")
    monkeypatch.setattr("cni.kernel.signals.handle", lambda *_: None)
    monkeypatch.setattr("cni.kernel.signals.ignore", lambda: None)
    return Runtime(tmp_path)


def refuse_infinite(name: str) -> None:
    raise AssertionError(f"{name} was printed")


def finite(text: str) -> Any:
    return json.loads(text, parse_constant=refuse_infinite)


@pytest.mark.parametrize(("plugin", "verb", "conf"), list(cases()))
def test_a_nasty_value_is_one_designed_error_or_is_taken(
    runtime: Runtime, plugin: str, verb: str, conf: dict[str, Any]
):
    whole, here = json.dumps(conf), runtime.folder / "cwd"
    for value in NASTY:
        text = whole.replace(json.dumps(MARK), value)
        code, printed = runtime.call(plugin, verb, text)
        if code == 0:
            assert printed == "" or finite(printed), value[:60]
            assert [*here.iterdir()] == [], value[:60]
            continue
        document = finite(printed)
        assert (code, printed.count("\n")) == (1, 1)
        assert document["code"] != 999, (value[:60], document)
        assert document["msg"]
        if verb == "ADD" and document["code"] == 8:  # it was taken: planned, it is finite too
            refuse_undesigned_plan(runtime.folder / "it.conf", text)


def refuse_undesigned_plan(file: Path, text: str) -> None:
    file.write_text(text)
    with suppress(CniError):
        for item in _explained(file):
            json.dumps(item, allow_nan=False)
