"""Files and words that people, managers and other releases write: conflists, policies, pods' files, and the command line."""

from __future__ import annotations

import contextlib
import io
import json
import shutil
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from random import Random
from typing import Any

from cni.command.main import main
from cni.discovery.health import Probe
from cni.dnsgate.guest import Guest
from cni.errors import CniError
from cni.flows import sighting
from cni.kernel import gatedir, hostsdir
from cni.plugin import names
from cni.policy import folder
from cni.policy.manifest import known
from crash.doors.calls import configuration, keys_of
from crash.doors.door import Door
from crash.mutation import changed, mutated, said

_SUFFIXES = (".conf", ".conflist", ".json")


def commanded(*words: str) -> str:
    """What is wrong with how the operator's command answers words; nothing where it is designed."""
    out, errors = io.StringIO(), io.StringIO()
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(errors):
        try:
            code: Any = main(list(words))
        except SystemExit as ended:
            code = ended.code
    if "a bug, please report it" in errors.getvalue() or "Traceback" in errors.getvalue():
        return f"{' '.join(words)[:200]!r}: {errors.getvalue()[-300:]}"
    if not (isinstance(code, int) or code is None or isinstance(code, str)) or (
        isinstance(code, int) and code not in (0, 1, 2, 3, 4)
    ):
        return f"{' '.join(words)[:200]!r}: exit {code!r}"
    if "--json" in words and not {"--version", "--help", "-h"}.intersection(words) and code in (0, 1):
        _documents_of(out.getvalue())
    return ""


def _documents_of(text: str) -> None:
    """Read one document after the other: each of several files has its own."""
    while text := text.strip():
        text = text[json.JSONDecoder().raw_decode(text)[1] :]


# --- conflists


def _conflist(data: bytes) -> str:
    suffix, _, text = data.partition(b"\n")
    file = Path.cwd().parent / f"it{suffix.decode()}"
    file.write_bytes(text)
    return next(
        filter(
            None,
            (commanded(verb, *options, str(file)) for verb in ("validate", "explain") for options in ((), ("--json",))),
        ),
        "",
    )


def _list_of(random: Random) -> bytes:
    plugins = [configuration(random, plugin) for plugin in random.sample(names(), random.choice((1, 2, 3)))]
    for plugin in plugins:
        plugin.pop("prevResult", None)
    strangers = [
        {"type": "portmap", "capabilities": {"portMappings": True}},
        {"type": "firewall"},
        {"type": "tuning", "sysctl": {"a": "b"}},
    ]
    conf: dict[str, Any] = {"cniVersion": "1.1.0", "cniVersions": ["1.0.0", "1.1.0"], "name": "pods", "disableCheck": False, "disableGC": True,
                            "loadOnlyInlinedPlugins": False, "plugins": [*plugins, *random.sample(strangers, random.randrange(3))]}  # fmt: skip
    conf = random.choice(
        (
            conf,
            conf,
            plugins[0],
            {"etcd": {"endpoints": ["http://a:1"]}},
            {"kubernetes": {"server": "https://a"}},
            {"otlp": {"endpoint": "http://a"}},
        )
    )
    text = changed(random, conf, keys_of(plugins[0]["type"]))
    body = text.encode("utf-8", "surrogatepass")
    body = mutated(random, body) if random.random() < 0.1 else body
    return random.choice(_SUFFIXES).encode() + b"\n" + body


# --- policies

_OBJECTS: tuple[dict[str, Any], ...] = (
    {"apiVersion": "networking.k8s.io/v1", "kind": "NetworkPolicy", "metadata": {"name": "a", "namespace": "b"}, "spec": {
        "podSelector": {"matchLabels": {"app": "web"}, "matchExpressions": [{"key": "x", "operator": "In", "values": ["y"]}]},
        "policyTypes": ["Ingress", "Egress"],
        "ingress": [{"from": [{"ipBlock": {"cidr": "10.0.0.0/8", "except": ["10.1.0.0/16"]}}, {"namespaceSelector": {}, "podSelector": {}}],
                     "ports": [{"port": 80, "protocol": "TCP", "endPort": 90}, {"port": "http"}]}], "egress": [{}]}},
    {"apiVersion": "policy.networking.k8s.io/v1beta1", "kind": "ClusterNetworkPolicy", "metadata": {"name": "c"}, "spec": {
        "tier": "Admin", "priority": 5, "subject": {"namespaces": {"matchLabels": {"a": "b"}}},
        "ingress": [{"name": "n", "action": "Accept", "from": [{"namespaces": {}}], "protocols": [{"tcp": {"destinationPort": {"number": 80}}}]}],
        "egress": [{"action": "Deny", "to": [{"networks": ["10.0.0.0/8"]}, {"domainNames": ["*.example.com"]}]}]}},
    {"apiVersion": "policy.networking.k8s.io/v1alpha1", "kind": "AdminNetworkPolicy", "metadata": {"name": "d"}, "spec": {
        "priority": 5, "subject": {"pods": {"namespaceSelector": {}, "podSelector": {}}},
        "ingress": [{"action": "Pass", "from": [{"namespaces": {}}], "ports": [{"portNumber": {"protocol": "TCP", "port": 80}}, {"portRange": {"start": 1, "end": 9}}]}],
        "egress": [{"action": "Allow", "to": [{"nodes": {"matchLabels": {"x": "y"}}}, {"networks": ["::/0"]}]}]}},
    {"apiVersion": "policy.networking.k8s.io/v1alpha1", "kind": "BaselineAdminNetworkPolicy", "metadata": {"name": "default"}, "spec": {
        "subject": {"namespaces": {}}, "ingress": [{"action": "Deny", "from": [{"namespaces": {}}]}]}},
    {"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "p", "namespace": "b", "labels": {"app": "web"}}, "spec": {
        "nodeName": "n", "containers": [{"ports": [{"name": "http", "containerPort": 80}]}]}, "status": {"podIPs": [{"ip": "10.0.0.1"}], "phase": "Running"}},
    {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "b", "labels": {"a": "b"}}},
    {"apiVersion": "v1", "kind": "Node", "metadata": {"name": "n", "labels": {"x": "y"}}, "status": {"addresses": [{"type": "InternalIP", "address": "10.0.0.9"}]}},
    {"apiVersion": "v1", "kind": "List", "items": [{"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "z"}}]},
)  # fmt: skip
_BOMB = b"a: &a [x,x,x,x,x,x,x,x,x]\n" + b"".join(
    b"%c: &%c [%s]\n" % (98 + n, 98 + n, b",".join([b"*%c" % (97 + n)] * 9)) for n in range(9)
)
_YAML = (b"---\n", b"- ", b": ", b"&a ", b"*a", b"!!python/object ", b"!!binary ", b"<<: ", b"? ", b"| \n", b"{", b"[" * 500, b"\t", b"%YAML 9\n", b"0o7", b"1_000",
         b"2026-01-01", b".inf", b"-.nan", b"0x" + b"f" * 400, b"=", b"~", b"9" * 5000, b"\xff\xfe", b"1:2:3", b"!!set {", b"#")  # fmt: skip


def _policies(data: bytes) -> str:
    name, _, text = data.partition(b"\n")
    here = Path.cwd().parent / "feed"
    here.mkdir(exist_ok=True)
    file = here / name.decode()
    file.write_bytes(text)
    try:
        found = folder.read(here, {})
        for items in found.items.values():
            for item in items:
                kept = json.loads(json.dumps(item.value, allow_nan=False))
                if known(item.kind, item.where, item.namespace, item.name, kept) != item.read:
                    return f"{item.kind} is another one when it is read again"
                (item.namespace + item.name).encode()
        for fault in found.faults.values():
            fault.encode()
    except CniError:
        return ""
    finally:
        shutil.rmtree(here)
    return ""


def _documents(random: Random) -> bytes:
    some = random.sample(_OBJECTS, random.choice((1, 1, 1, 2)))
    keys = ("spec", "ports", "from", "namespaces", "podSelector", "matchLabels", "items", "kind", "cidr")
    texts = [changed(random, one, keys) for one in some]
    if random.random() < 0.4:
        return b"a.json\n" + texts[0].encode("utf-8", "surrogatepass")
    with suppress(ValueError, RecursionError):
        import yaml

        texts = [yaml.safe_dump(json.loads(text)) for text in texts]
    body = "---\n".join(f"{text}\n" for text in texts).encode("utf-8", "surrogatepass")
    body = body if random.random() < 0.4 else mutated(random, body, (_BOMB,), _YAML)
    return b"a.yaml\n" + body


# --- what calls and daemons of a node tell each other

_ENTRY = {"token": "0123456789abcdef", "pod": "a/web", "addresses": ["10.9.0.5", "fd00::5"], "link": "veth0", "rules": ["a.example *.b.example"], "netns": "",
          "names": ["c.example"], "everything": False, "keep": 60, "into": ["10.0.0.0/8"], "own": ["cluster.local"]}  # fmt: skip
_PROBE = {"http": "/healthz", "port": 80, "interval": 5.0, "timeout": 1.0, "failures": 3, "passes": 2}
_SEEN = {
    "what": "begun",
    "at": 1.5,
    "direction": "egress",
    "own": "10.9.0.5",
    "address": "10.9.0.6",
    "protocol": "tcp",
    "port": 80,
    "pod": "a/web",
    "names": ["x"],
}
_HOSTS = '#pod c1 eth0 a/web\n#health {"tcp": 80}\n#unhealthy {"since": 1}\n10.9.0.5 web.pods web\n'


def _gated(text: str) -> None:
    if entry := gatedir.Entry.read(text):
        guest = Guest(entry)
        for name in ((b"a", b"example"), (b"x",), ()):
            guest.ruling(name)
            guest.rules_of(name)
        list(guest.every_set)


def _named(text: str) -> None:
    if entry := hostsdir.Entry.read("pods", text):
        _ = entry.text, entry.path, entry.lines
        with suppress(ValueError):
            str(Probe.read(entry.health))


def _probed(text: str) -> None:
    with suppress(ValueError):
        str(Probe.read(text))


def _counted(text: str) -> None:
    gatedir.FOLDER.mkdir(exist_ok=True)
    (gatedir.FOLDER / gatedir.COUNTED).write_text(text, errors="surrogateescape")
    gatedir.counted()


_READERS: dict[str, tuple[Callable[[str], object], str]] = {
    "gate": (_gated, json.dumps(_ENTRY)),
    "names": (_named, _HOSTS),
    "probe": (_probed, json.dumps(_PROBE)),
    "sighting": (lambda text: sighting.read(text.encode(errors="surrogateescape")), json.dumps(_SEEN)),
    "counted": (_counted, json.dumps({"asked": 5, "refused": 1})),
}


def _said(data: bytes) -> str:
    name, _, text = data.partition(b"\n")
    with suppress(CniError):
        _READERS[name.decode()][0](text.decode(errors="replace"))
    return ""


def _of_pods(random: Random) -> bytes:
    name = random.choice(list(_READERS))
    text = _READERS[name][1]
    if name == "names" or random.random() < 0.2:
        return name.encode() + b"\n" + mutated(random, text.encode(), (), (b"#", b"\n", b" ", b"#pod ", b"\xff"))
    return f"{name}\n{changed(random, json.loads(text))}".encode("utf-8", "surrogatepass")


# --- the command line

_SAFE = (
    ("show",), ("show", "--json"), ("show", "--graph", "-"), ("validate",), ("explain",), ("ipam",), ("ipam", "--json"), ("policy", "list"), ("policy", "show"),
    ("policy", "why"), ("policy", "check"), ("trace",), ("reach",), ("reach", "--no-packet"), ("doctor",), ("doctor", "--json"), ("metrics",), ("flows",),
    ("node",), ("block",), ("completion",), ("serve", "--probe"), ("dnsgate", "--probe"), ("gc",), ("refresh",), ("repair",), ("--version",), ("policy",), ("",),
)  # fmt: skip
_ARGUMENTS = (
    *("", " ", "-", "--", "--json", "-v", "--help", "a/b", "default/web", "10.9.0.1", "10.9.0.1/24", "fd00::1", "::ffff:1.2.3.4", "node", "a:80", "a:0", "a:99999"),
    *("10.9.0.1:80/udp", "x:80/xyz", "[::1]:80", "[::1", "a:b:c", "é", "\udcff", "\x1b[2J", "x" * 5000, "/", "/dev/null", "/dev/zero", "/nonexistent", "/etc/passwd"),
    *("bash", "zsh", "--data-dir", "/proc", "--network", "--count", "-1", "0", "9" * 400, "NaN", "1e9", "--since", "5m", "-5m", "--config", "--output", "*", "%s", "{0}"),
    *("\n", "--no-packet", "--pod", "--from", "--to", "--graph", "--conf-dir", "--socket", "--summary", "--refused", "--top", "--suggest", "--last", "1h", "--denied"),
)  # fmt: skip


def _typed(data: bytes) -> str:
    words = json.loads(data)
    wrong = commanded(*words)
    made = {file.name for file in Path.cwd().iterdir()}
    for name in made:
        Path(name).unlink()
    asked = {word.rpartition("=")[2] for word in words}  # by --output and --graph
    return wrong or (f"{words}: made {made - asked}" if made - asked else "")


def _words(random: Random) -> bytes:
    words = [*random.choice(_SAFE), *(random.choice(_ARGUMENTS) for _ in range(random.choice((0, 1, 1, 2, 3))))]
    if random.random() < 0.1:
        words.insert(random.randrange(len(words) + 1), said(random, (*_ARGUMENTS, "--", "=", "a"), 3))
    return json.dumps([word for word in words if word != "--follow"]).encode()


DOORS = (
    Door("conflist", _list_of, _conflist, 2000),
    Door("policies", _documents, _policies, 6000),
    Door("files", _of_pods, _said, 40_000),
    Door("commands", _words, _typed, 600, apart=True),
)
