"""The layers, the doors and the sizes that docs/architecture.md and CONTRIBUTING.md promise."""

from __future__ import annotations

import ast
import json
import os
import statistics
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
MODULES = sorted((ROOT / "cni").rglob("*.py"))
PLUGINS = sorted(file for file in (ROOT / "plugins").iterdir() if file.is_file() and not file.suffix)
FILES = [*MODULES, *PLUGINS]

#: From the bottom up: a file imports only from layers below its own, and from its own package.
LAYERS = (
    {"cni", "decoding", "errors", "naming", "values"},
    {"kernel", "protocol", "log"},
    {"resources", "cluster"},
    {"state"},
    {"engine", "podnet", "names", "nat", "ipam", "overlay", "policy", "sidecar", "uplink", "diagnosis"},
    {"retirement"},
    {"node", "plugin", "liveness", "reach"},
    {"survey", "standing", "conflist"},
    {"lost"},
    {"verbs", "refresh", "configured"},
    {"main", "together", "repair", "vigil"},
    {"agent", "discovery", "dnsgate", "installation", "member"},
    {"flows"},
    {"command"},
    {"plugins"},
)
LEVEL = {name: level for level, names in enumerate(LAYERS) for name in names}

#: Each outside thing, and every file that may import it; nothing else may, and each of these does.
DOORS = {
    "pyroute2": {"cni/kernel/netlink/rules.py"},
    "subprocess": {"cni/kernel/process.py"},
    "fcntl": {
        "cni/kernel/folders.py",
        "cni/kernel/locks.py",
        "cni/kernel/writing.py",
        "cni/kernel/netlink/channel.py",
        "cni/agent/caller.py",
    },
    "ctypes": {
        "cni/kernel/foreign.py",
        "cni/kernel/inotify.py",
        "cni/kernel/netns.py",
        "cni/kernel/nftables.py",
        "cni/kernel/process.py",
        "cni/kernel/procfs.py",
        "cni/kernel/writing.py",
    },
    "jsonschema": {"cni/protocol/config.py"},
    "referencing": {"cni/protocol/config.py"},
    "sqlite3": {"cni/state/file.py", "cni/state/layout.py"},
    "socket": {
        "cni/kernel/announcements.py",
        "cni/kernel/arp.py",
        "cni/kernel/bell.py",
        "cni/kernel/conntrack.py",
        "cni/kernel/echo.py",
        "cni/kernel/errand.py",
        "cni/kernel/injection.py",
        "cni/kernel/listening.py",
        "cni/kernel/nflog.py",
        "cni/kernel/nfqueue.py",
        "cni/kernel/notify.py",
        "cni/kernel/resolver.py",
        "cni/kernel/tls.py",
        "cni/kernel/vteps.py",
        "cni/kernel/events.py",
        "cni/kernel/rule_events.py",
        "cni/kernel/netlink/channel.py",
        "cni/kernel/netns.py",
        "cni/agent/caller.py",
        "cni/agent/exporter.py",
        "cni/agent/guard.py",
        "cni/agent/listener.py",
        "cni/agent/peer.py",
        "cni/agent/pool.py",
        "cni/agent/spans.py",
        "cni/member/metrics.py",
    },
    "signal": {
        "cni/kernel/foreign.py",
        "cni/kernel/process.py",
        "cni/kernel/signals.py",
        "cni/agent/caller.py",
        "cni/agent/guard.py",
        "cni/agent/pool.py",
    },
    "yaml": {"cni/policy/folder.py"},
    "idna": {"cni/policy/domains.py"},
    "dns": {"cni/dnsgate/message.py"},
    "selectors": {"cni/dnsgate/run.py"},
    "iptc": {"cni/kernel/legacy.py"},
    "concurrent": {"cni/kernel/process.py"},
    "threading": {
        "cni/cluster/kubernetes/streams.py",  # a watch each
        "cni/kernel/nftables.py",  # a lock
        "cni/kernel/pools.py",  # another
        "cni/kernel/resolver.py",  # who asks a name server, which nothing ends
        "cni/kernel/waiting.py",  # waits for the kernel
        "cni/member/figures.py",  # another
        "cni/member/key.py",
        "cni/member/inbox.py",  # where threads begin, and what they bring
        "cni/member/ledger.py",
        "cni/member/mending.py",
        "cni/member/metrics.py",
        "cni/member/session.py",
    },
    "http": {"cni/kernel/http.py", "cni/kernel/pools.py", "cni/member/metrics.py"},
    "socketserver": {"cni/member/metrics.py"},
    "dataclasses": set(),  # values.py shows them to type checkers only
    "asyncio": {  # hundreds of probes wait at the same time, in one thread
        "cni/discovery/consul.py",
        "cni/discovery/probed.py",
        "cni/discovery/probes.py",
        "cni/discovery/run.py",
        "cni/discovery/servers.py",
    },
    "multiprocessing": set(),
    "urllib": {"cni/kernel/http.py"},
    "msgspec": {"cni/cluster/kubernetes/objects.py"},
    "ssl": {"cni/kernel/tls.py"},
    "opentelemetry": {"cni/agent/otlp.py", "cni/agent/otlp_logs.py"},
    "requests": {"cni/agent/otlp.py"},
    "logging": {"cni/agent/otlp.py"},
}

TOLD_ONCE = {
    "close",
    "let_go",
    "reads",
    "ensure",
    "batch",
    "script",
    "differences",
    "goes_by",
    "besides",
    "beside_rules",
    "remove",
    "describe",
    "declarations",
    "details",
    "place",
    "accepting",
    "mentions",
    "of",
    "found",
}
VAGUE = {"utils", "util", "helpers", "helper", "common", "manager", "misc"}


def name_of(file: Path) -> str:
    return str(file.relative_to(ROOT))


def layer_of(module: str) -> str:
    parts = module.split(".")
    return parts[1] if len(parts) > 1 else "cni"


def own_layer(file: Path) -> str:
    first, *rest = file.relative_to(ROOT).with_suffix("").parts
    return "plugins" if first == "plugins" else layer_of(".".join([first, *rest]).removesuffix(".__init__"))


@cache
def tree_of(file: Path) -> ast.Module:
    return ast.parse(file.read_text(), name_of(file))


def imports(tree: ast.AST) -> Iterator[str]:
    """Every module imported, lazily too, but not for type checkers only."""
    for node in ast.iter_child_nodes(tree):
        if isinstance(node, ast.If) and "TYPE_CHECKING" in ast.unparse(node.test):
            continue
        if isinstance(node, ast.Import):
            yield from (item.name for item in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield from _imported_from(node)
        else:
            yield from imports(node)


def _imported_from(node: ast.ImportFrom) -> Iterator[str]:
    assert not node.level, "imports are absolute"
    for item in node.names:
        module = f"{node.module}.{item.name}"
        yield module if _exists(module) else str(node.module)


def _exists(module: str) -> bool:
    path = ROOT.joinpath(*module.split("."))
    return path.with_suffix(".py").exists() or (path / "__init__.py").exists()


@cache
def imported(file: Path) -> frozenset[str]:
    return frozenset(imports(tree_of(file)))


def calls_of(file: Path, name: str) -> Iterator[ast.Call]:
    nodes = (node for node in ast.walk(tree_of(file)) if isinstance(node, ast.Call))
    return (node for node in nodes if isinstance(node.func, ast.Name) and node.func.id == name)


def functions(file: Path) -> Iterator[ast.FunctionDef]:
    return (node for node in ast.walk(tree_of(file)) if isinstance(node, ast.FunctionDef))


def test_resources_are_read_and_written_in_one_place():
    """Who has a record has resources; how they are spelled in the state file nobody else knows."""
    names = {file: {item.name for node in ast.walk(tree_of(file)) if isinstance(node, ast.ImportFrom)
                    for item in node.names if (node.module or "").startswith("cni.resources")} for file in FILES}  # fmt: skip
    codec = {name_of(file) for file, found in names.items() if found & {"encoded", "decoded"}}
    assert codec == {"cni/resources/__init__.py", "cni/state/records.py"}


@pytest.mark.parametrize("file", FILES, ids=name_of)
def test_imports_point_down(file: Path):
    own = own_layer(file)
    ours = {layer_of(module) for module in imported(file) if module.split(".")[0] == "cni"}
    assert [name for name in sorted(ours - {own}) if LEVEL[name] >= LEVEL[own]] == []


def test_modules_do_not_import_each_other_in_a_circle():
    graph = {}
    for file in MODULES:
        module = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
        graph[module] = {found for found in imported(file) if found.startswith("cni")}
    assert len(list(TopologicalSorter(graph).static_order())) >= len(MODULES)


def test_a_plugin_is_an_executable_and_its_schema():
    names = {file.name.removesuffix(".schema.json") for file in (ROOT / "plugins").glob("*.schema.json")}
    assert {file.name for file in PLUGINS if os.access(file, os.X_OK)} == names == {file.name for file in PLUGINS}


@pytest.mark.parametrize("outside", DOORS)
def test_each_outside_thing_has_its_doors(outside: str):
    users = {name_of(file) for file in FILES if outside in {name.split(".")[0] for name in imported(file)}}
    assert users == DOORS[outside]


@pytest.mark.parametrize(
    ("words", "door"),
    [
        ({"setns", "unshare"}, {"cni/kernel/netns.py"}),
        (
            {"system", "popen", "fork", "execv", "execve", "posix_spawn", "_exit", "abort"},
            {
                "cni/kernel/foreign.py",
                "cni/agent/exporter.py",
                "cni/agent/follower.py",
                "cni/agent/guard.py",
                "cni/agent/mender.py",
                "cni/agent/pool.py",
                "cni/agent/sending.py",
                "cni/agent/serve.py",
                "cni/kernel/process.py",
            },
        ),
    ],
    ids=["namespaces", "processes"],
)
def test_calls_go_through_their_door(words: set[str], door: set[str]):
    users = set()
    for file in FILES:
        if words & {node.attr for node in ast.walk(tree_of(file)) if isinstance(node, ast.Attribute)}:
            users.add(name_of(file))
    assert users == door


def test_a_lock_file_ends_with_who_opened_it():
    """A member opened one for each change of documents, until it had no descriptor left."""
    living = {
        "cni/member/policies.py",
        "cni/member/reconciler.py",
        "cni/state/writers.py",
    }  # as their process, or a store
    closed = {id(arg) for file in FILES for call in calls_of(file, "closing") for arg in call.args}
    left_open = {name_of(file) for file in FILES for call in calls_of(file, "LockFile") if id(call) not in closed}
    assert left_open == living


def test_only_one_place_prints():
    calls = {
        name_of(file)
        for file in FILES
        for node in ast.walk(tree_of(file))
        if isinstance(node, ast.Name) and node.id == "print"
    }
    assert calls == {"cni/command/output.py"}


def test_importing_the_package_does_nothing():
    script = "import sys; before = set(sys.modules); import cni; print(*(set(sys.modules) - before))"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.split() == ["cni"]


def test_asking_rtnetlink_loads_no_pyroute2():
    """Its codec is 45 modules and 13 ms of a cold call; only the rules of TPROXY pay for it."""
    script = "import sys; import cni.kernel.netlink, cni.resources; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(done.stdout.split())
    assert "cni.kernel.netlink.rules" in loaded
    assert "pyroute2" not in loaded


@pytest.mark.parametrize("file", [file for file in MODULES if file.name == "__init__.py"], ids=name_of)
def test_packages_hold_no_code(file: Path):
    allowed = (ast.Expr, ast.Assign, ast.ImportFrom)
    assert [ast.unparse(node) for node in tree_of(file).body if not isinstance(node, allowed)] == []


def test_a_module_is_read_in_one_sitting():
    assert [name_of(file) for file in FILES if len(file.read_text().splitlines()) > 300] == []


def test_functions_are_short():
    lengths = [node.end_lineno - node.lineno + 1 for file in FILES for node in functions(file)]
    assert statistics.median(lengths) <= 10
    assert statistics.quantiles(lengths, n=10)[-1] <= 40


def test_names_say_what_a_module_is():
    assert [name_of(file) for file in FILES if VAGUE & set(file.relative_to(ROOT).with_suffix("").parts)] == []


@pytest.mark.parametrize("file", MODULES, ids=name_of)
def test_what_is_public_has_a_docstring(file: Path):
    tree = tree_of(file)
    assert ast.get_docstring(tree)
    assert [node.name for node in public(tree) if not ast.get_docstring(node)] == []


def public(tree: ast.Module | ast.ClassDef) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    """Public classes, functions and methods; a Protocol's class says what its methods mean."""
    for node in tree.body:
        if not isinstance(node, ast.FunctionDef | ast.ClassDef) or node.name.startswith("_"):
            continue
        inherited = isinstance(tree, ast.ClassDef) and bool(tree.bases) and node.name in TOLD_ONCE
        if inherited or ast.unparse(node.body[0]) == "...":
            continue
        yield node
        if isinstance(node, ast.ClassDef):
            yield from public(node)


def loaded_by(plugin: Path, environ: dict[str, str]) -> set[str]:
    """The modules in the process of a plugin when it ends."""
    script = (
        "import sys\n"
        "try: exec(open(sys.argv[1]).read(), {'__name__': '__main__', '__file__': sys.argv[1]})\n"
        "except SystemExit: print(*sys.modules, file=sys.stderr)"
    )
    environ = {"PATH": os.environ["PATH"], **environ}
    argv = [sys.executable, "-c", script, str(plugin)]
    done = subprocess.run(argv, cwd=ROOT, env=environ, capture_output=True, text=True, input="", check=True)
    assert not done.stdout or json.loads(done.stdout)["cniVersion"] == "1.1.0"
    return set(done.stderr.splitlines()[-1].split())


HEAVY = {"pyroute2", "iptc", "jsonschema", "sqlite3", "subprocess", "socket", "typing", "dataclasses"}


@pytest.mark.parametrize("plugin", PLUGINS, ids=name_of)
@pytest.mark.parametrize(
    ("environ", "kept_out"),
    [
        ({"CNI_COMMAND": "VERSION"}, HEAVY | {"json"}),
        ({"CNI_COMMAND": "ADD"}, HEAVY),
        ({"CNI_COMMAND": "NONSENSE"}, HEAVY),
        ({}, HEAVY),
    ],
    ids=["VERSION", "a missing variable", "an unknown verb", "no environment"],
)
def test_quick_answers_load_nothing_heavy(plugin: Path, environ: dict[str, str], kept_out: set[str]):
    assert kept_out & loaded_by(plugin, environ) == set()


def test_what_resources_offer_is_named_alike_for_people_and_for_python():
    from cni.resources.base import ROOMS

    stub = ast.parse((ROOT / "cni/resources/__init__.pyi").read_text())
    told = {
        str(node.module).removeprefix("cni.resources."): tuple(item.name for item in node.names)
        for node in stub.body
        if isinstance(node, ast.ImportFrom)
    }
    assert told.pop("base") == ("Difference", "Resource", "decoded", "encoded", "key_of", "uses_of")
    assert told == ROOMS


#: What only a call with rules, a policy, interception, an overlay or a cluster enters.
ROOMS_OF_FEW = {
    "netfilter",
    "nftables",
    "compiled",
    "process",
    "held",
    "captured",
    "policy_table",
    "overlay",
    "masquerade",
    "cluster",
    "membership",
    "shared",
    "network",
    "bell",
}
LIBRARIES_OF_FEW = {
    "jsonschema",
    "pyroute2",
    "dataclasses",
    "subprocess",
    "shutil",
    "threading",
    "hashlib",
    "traceback",
    "http",
    "ssl",
}


def test_a_plain_call_loads_only_what_it_enters():
    conf = {"name": "pods", "ipam": {"subnet": "10.1.0.0/24"}}
    script = (
        "import sys, cni.main, cni.verbs, cni.plugin; from cni.protocol.call import Call; "
        f"cni.plugin.load('bridge-vxlan').Config.read({conf}, Call('ADD')); print(*sys.modules)"
    )
    done = subprocess.run([sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {script}"], cwd=ROOT, capture_output=True, text=True, check=True)  # fmt: skip
    loaded = done.stdout.split()
    assert "cni.resources.links" in loaded
    assert {name for name in loaded if name.startswith("cni.") and ROOMS_OF_FEW & {*name.split(".")}} == set()
    assert LIBRARIES_OF_FEW & {*loaded} == set()


def test_a_member_of_etcd_loads_only_what_it_enters():
    """It runs for months, and keeps what it has loaded."""
    script = "import sys, cni.command.main; from cni.command.parser import parser; parser(['join']); import cni.cluster.etcd; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-I", "-c", f"import sys; sys.path.insert(0, {str(ROOT)!r}); {script}"], cwd=ROOT, capture_output=True, text=True, check=True)  # fmt: skip
    loaded = {*done.stdout.split()}
    assert {"cni.member.run", "cni.cluster.etcd.store", "http.client"} <= loaded
    of_others = ("cni.cluster.kubernetes", "cni.main", "cni.verbs", "cni.together", "cni.agent.serve", "cni.member.metrics", "cni.command.cluster.joining", "cni.command.cluster.rotation")  # fmt: skip
    assert {name for name in loaded if name.startswith(of_others)} == set()
    libraries = {"jsonschema", "msgspec", "pyroute2", "iptc", "yaml", "dataclasses", "subprocess"}
    python = {"asyncio", "logging", "traceback", "tempfile", "zipfile", "importlib.metadata", "http.server"}
    assert (libraries | python) & loaded == set()
