"""The CNI protocol as runtimes speak it, on every executable."""

from __future__ import annotations

import json

import pytest
from lab import BIN_DIR, REFERENCE_DIR, ROOT, Host, Lab, Pod, environment, sh

PLUGINS = sorted(file.name for file in (ROOT / "plugins").iterdir() if not file.suffix)
VERSIONS = ["0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0"]


@pytest.mark.parametrize("plugin", PLUGINS)
@pytest.mark.parametrize("stdin", ["", "garbage", '{"cniVersion": "1.0.0"}'])
def test_version_answers_whatever_stdin_holds(host: Host, plugin: str, stdin: str):
    words = {"CNI_NETNS": "dummy", "CNI_IFNAME": "dummy", "CNI_PATH": "dummy", "CNI_CONTAINERID": ""}
    answer = host.cni("VERSION", stdin, plugin=plugin, **words).ok()
    assert answer == {"cniVersion": "1.1.0", "supportedVersions": VERSIONS}


@pytest.mark.parametrize("plugin", PLUGINS)
@pytest.mark.parametrize(
    ("verb", "variable"),
    [
        *[("ADD", name) for name in ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH")],
        *[("CHECK", name) for name in ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH")],
        *[("DEL", name) for name in ("CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH")],
        *[(verb, "CNI_PATH") for verb in ("GC", "STATUS")],
    ],
)
def test_a_missing_variable_is_named(host: Host, pod: Pod, conf: dict, plugin: str, verb: str, variable: str):
    assert variable in host.cni(verb, conf, pod, plugin=plugin, **{variable: ""}).failed(4)


@pytest.mark.parametrize("plugin", PLUGINS)
def test_without_a_command_it_says_what_it_is_as_the_reference_does(host: Host, pod: Pod, conf: dict, plugin: str):
    for reference, name in ((REFERENCE_DIR, "bridge"), (BIN_DIR, plugin)):
        for closed in ("", ">&-", "2>&-", "</dev/null >&- 2>&-"):
            words = {key: value for key, value in environment("ADD", pod).items() if key != "CNI_COMMAND"}
            done = host.run("sh", "-c", f"{reference / name} {closed}", input=json.dumps(conf), env=words, check=False)
            assert (done.returncode, done.stdout) == (0, "")
            first, *_, last = done.stderr.splitlines() if "2>" not in closed else (f"CNI {name} plugin", VERSIONS[-2])
            assert first.startswith(f"CNI {name} plugin")
            assert VERSIONS[-2] in last


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("CNI_COMMAND", "UPDATE"),
        ("CNI_CONTAINERID", "../x"),
        ("CNI_CONTAINERID", "x\n"),
        ("CNI_IFNAME", "0123456789abcdef"),
        ("CNI_IFNAME", "ééééééééx"),
        ("CNI_IFNAME", ".."),
        ("CNI_IFNAME", "a/b"),
        ("CNI_ARGS", "IP"),
        ("CNI_ARGS", "FOO=bar"),
        ("CNI_ARGS", "IP=nonsense"),
        ("CNI_ARGS", "MAC=01:00:00:00:00:01"),
    ],
)
def test_a_wrong_variable_is_named(host: Host, pod: Pod, conf: dict, variable: str, value: str):
    assert variable in host.cni("ADD", conf, pod, **{variable: value}).failed(4)
    assert host.state()["attachments"] == []


@pytest.mark.parametrize("plugin", PLUGINS)
@pytest.mark.parametrize("stdin", ["", "x", "[]", '"text"', "null", "{", "[" * 100000, '{"mtu": NaN}', "\udcff"])
def test_what_is_no_json_object_is_code_6(host: Host, pod: Pod, plugin: str, stdin: str):
    host.cni("ADD", stdin, pod, plugin=plugin).failed(6)


@pytest.mark.parametrize("verb", ["ADD", "DEL", "CHECK"])
@pytest.mark.parametrize("version", ["0.0.1", "2.0.0", "1.0", 1])
def test_an_unknown_version_is_code_1(host: Host, pod: Pod, conf: dict, verb: str, version: object):
    assert str(version) in host.cni(verb, conf | {"cniVersion": version}, pod).failed(1)


@pytest.mark.parametrize(("verb", "version"), [("CHECK", "0.3.1"), ("GC", "1.0.0"), ("STATUS", "1.0.0")])
def test_a_verb_before_its_version_is_code_1(host: Host, pod: Pod, conf: dict, verb: str, version: str):
    assert verb in host.cni(verb, conf | {"cniVersion": version}, pod).failed(1)


@pytest.mark.parametrize("name", [None, "", "-x", "a/b", "x\n", 5])
def test_a_wrong_network_name_is_code_7(host: Host, pod: Pod, conf: dict, name: object):
    assert "$.name" in host.cni("ADD", conf | {"name": name}, pod).failed(7)


def test_unknown_keys_are_code_2_with_key_value_and_a_suggestion(host: Host, pod: Pod, conf: dict):
    message = host.cni("ADD", conf | {"isGatway": True}, pod).failed(2)
    assert "$.isGatway" in message
    assert "true" in message
    assert "'isGateway'" in message


def test_all_schema_errors_are_reported_together(host: Host, pod: Pod, conf: dict):
    wrong = conf | {"mtu": "big", "bridge": 5, "ipam": {"ranges": [[{"subnet": "10.0.0.1/24"}]], "typo": 1}}
    message = host.cni("ADD", wrong, pod).failed(7)
    assert all(path in message for path in ("$.mtu", "$.bridge", "$.ipam.ranges[0][0].subnet", "$.ipam.typo"))


@pytest.mark.parametrize(
    "key", [{"vlan": 100}, {"vlanTrunk": [{"id": 5}]}, {"preserveDefaultVlan": True}, {"macspoofchk": True}]
)
def test_keys_that_do_not_exist_yet_are_code_2(host: Host, pod: Pod, conf: dict, key: dict):
    assert f"$.{next(iter(key))}" in host.cni("ADD", conf | key, pod).failed(2)


@pytest.mark.parametrize("version", VERSIONS)
def test_results_and_errors_come_in_the_configurations_version(settled: Host, pod: Pod, conf: dict, version: str):
    old = conf | {"cniVersion": version}
    result = settled.add(old, pod)
    assert result["cniVersion"] == version
    addresses = (
        [result[key]["ip"] for key in ("ip4", "ip6")] if version < "0.3" else [ip["address"] for ip in result["ips"]]
    )
    assert {address.split("/")[1] for address in addresses} == {"24", "64"}
    assert ("version" in result.get("ips", [{}])[0]) == ("0.3" <= version < "1")
    assert ("dns" in result) == (version < "1")
    assert ("mtu" in result.get("interfaces", [{}])[0]) == (version == "1.1.0")
    assert settled.cni("ADD", old, pod).json["cniVersion"] == version
    settled.delete_pod(old, pod)


def test_runtime_owned_keys_are_accepted(settled: Host, pod: Pod, conf: dict):
    owned = {
        "capabilities": {"mac": True}, "runtimeConfig": {"Mac": "0A:00:00:00:00:07"}, "args": {"cni": {}}, "prevResult": None,
        "dns": {"nameservers": ["192.0.2.53"]}, "cni.dev/attachments": [], "mtu": 1500.0,
    }  # fmt: skip
    result = settled.add(conf | owned, pod)
    assert pod.link("eth0")["address"] == "0a:00:00:00:00:07"
    assert result["dns"] == {"nameservers": ["192.0.2.53"]}
    settled.delete_pod(conf, pod)


def test_the_callers_environment_does_not_reach_the_interpreter(settled: Host, pod: Pod, conf: dict, tmp_path):
    (tmp_path / "json.py").write_text("raise SystemExit('hostile')")
    odd = {
        "PYTHONPATH": str(tmp_path),
        "PYTHONHOME": "/nonexistent",
        "LD_LIBRARY_PATH": "/opt/lib:",
        "PATH": "/nonexistent",
    }
    env = [f"{key}={value}" for key, value in odd.items()]
    words = [
        "CNI_COMMAND=ADD",
        f"CNI_CONTAINERID={pod.container}",
        f"CNI_NETNS={pod.path}",
        "CNI_IFNAME=eth0",
        "CNI_PATH=/x",
    ]
    done = settled.run("/usr/bin/env", "-i", *env, *words, BIN_DIR / "bridge-vxlan", input=json.dumps(conf))
    assert json.loads(done.stdout)["ips"]
    settled.delete_pod(conf, pod)


def test_own_netns_is_refused_before_anything_is_made(host: Host, conf: dict):
    before = host.snapshot()
    for verb in ("ADD", "CHECK"):
        own = {"prevResult": {"cniVersion": "1.1.0"}} if verb == "CHECK" else {}
        assert "own namespace" in host.cni(verb, conf | own, container="c", CNI_NETNS=host.path).failed(8)
    assert host.snapshot() == before


@pytest.mark.parametrize("path", ["/run/netns/nowhere", "/etc/hostname", "/proc/self/ns/uts"])
def test_what_is_no_network_namespace_is_code_8(host: Host, conf: dict, path: str):
    before = host.snapshot()
    assert path in host.cni("ADD", conf, container="c", CNI_NETNS=path).failed(8)
    assert host.snapshot() == before


@pytest.mark.parametrize("kind", ["p", "folder", "/dev/zero"])
def test_what_cannot_be_a_namespace_is_code_8_at_once_and_nothing_to_a_del(host: Host, conf: dict, kind: str):
    path = host.folder / "netns"
    sh(*(("mkdir", path) if kind == "folder" else ("mkfifo", path) if kind == "p" else ("ln", "-s", kind, path)))
    before = host.snapshot()
    given = {"container": "c", "CNI_NETNS": str(path)}
    for verb in ("ADD", "CHECK"):
        own = {"prevResult": {"cniVersion": "1.1.0"}} if verb == "CHECK" else {}
        assert "is not a network namespace" in host.cni(verb, conf | own, **given).failed(8)
    host.cni("DEL", conf, **given).ok()
    assert host.snapshot() == before


@pytest.mark.parametrize("stdin", ["< /", "<&-", "0> /dev/null", "< /dev/zero"])
def test_a_stdin_that_cannot_be_read_is_code_5(host: Host, pod: Pod, stdin: str):
    command = f"{BIN_DIR}/bridge-vxlan {stdin}"
    done = host.run("timeout", "20", "sh", "-c", command, env=environment("ADD", pod), check=False)
    assert done.returncode == 1
    assert json.loads(done.stdout)["code"] == 5, done.stdout
    assert json.loads(done.stdout)["msg"].startswith("stdin: ")


CHANGES = {
    "again, with an empty netns": {},
    "with a key that is no longer valid": {"nonsense": 1},
    "with another bridge": {"bridge": "other0"},
    "without ipam": {"ipam": None},
    "with an ipam that is broken": {"ipam": {"ranges": "x"}},
}


@pytest.mark.parametrize("change", CHANGES)
def test_del_never_fails_for_what_changed_or_is_gone(settled: Host, lab: Lab, conf: dict, change: str):
    pod = lab.pod()
    settled.add(conf, pod)
    changed = conf | CHANGES[change]
    for netns in (pod.path, "", pod.path):
        answer = settled.cni("DEL", changed, pod, CNI_NETNS=netns, CNI_ARGS="odd;=;;x")
        assert (answer.code, answer.stdout) == (0, ""), answer.stderr
    pod.delete()
    settled.cni("DEL", changed, pod).ok()


@pytest.mark.parametrize("plugin", PLUGINS)
def test_del_of_what_was_never_added_succeeds(settled: Host, pod: Pod, conf: dict, plugin: str):
    settled.cni("DEL", conf, pod, plugin=plugin).ok()


def test_every_call_leaves_one_line_in_the_log(settled: Host, pod: Pod, conf: dict):
    settled.add(conf, pod)
    settled.delete_pod(conf, pod)
    lines = sh("cat", "/var/log/agent-cni/bridge-vxlan.log").stdout.splitlines()
    mine = [line for line in map(json.loads, lines) if line.get("container") == pod.container]  # others write there too
    assert [line["verb"] for line in mine] == ["ADD", "DEL"]
    assert all(line["network"] == "net" and line["seconds"] > 0 for line in mine)


@pytest.mark.parametrize(
    ("key", "path"),
    [
        ({"args": {"cni": 5}}, "$.args.cni"),
        ({"args": {"cni": {"mac": "nonsense"}}}, "$.args.cni.mac"),
        ({"runtimeConfig": {"IPs": 5}}, "$.runtimeConfig.IPs"),
        ({"runtimeConfig": {"IPRanges": [[{"subnet": "x"}]]}}, "$.runtimeConfig.IPRanges[0][0].subnet"),
        ({"runtimeConfig": {"ips": ["nonsense"]}}, "$.runtimeConfig.ips"),
    ],
)
def test_what_the_runtime_fills_in_wrongly_is_named(host: Host, pod: Pod, conf: dict, key: dict, path: str):
    assert path in host.cni("ADD", conf | key, pod).failed(7)


def test_a_state_file_that_cannot_be_opened_is_named(host: Host, pod: Pod, conf: dict):
    (host.folder / "state.db").mkdir()
    answer = host.cni("ADD", conf, pod)
    assert answer.json["code"] in (11, 50)
    assert "/run/agent-cni/state.db" in answer.json["msg"]
