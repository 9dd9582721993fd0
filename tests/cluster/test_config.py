from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cni.cluster.config import ClusterConfig, EtcdConfig, KubernetesConfig, host_name, read, schema
from cni.errors import InvalidConfig, Unavailable
from cni.protocol.config import validator_of
from cni.values import fields

ETCD = {"endpoints": ["https://192.0.2.1:2379"]}
WHOLE = ClusterConfig(
    "node-a",
    EtcdConfig(
        ("https://192.0.2.1:2379", "https://[2001:db8::1]:2379"), "/ca.pem", "/cert.pem", "/key.pem", "u", "/pw", "/x/y"
    ),
    vtep="192.0.2.11",
    session=10,
    free_after=600,
    encryption="wireguard",
    wireguard_port=51821,
    metrics="192.0.2.11:9402",
    metrics_cert="/tls.crt",
    metrics_key="/tls.key",
    metrics_client_ca="/ca.crt",
)


KUBERNETES = ClusterConfig(
    "node-a",
    KubernetesConfig("https://192.0.2.1:6443", "/token", "/ca.pem", "/c.pem", "/k.pem"),
    uplinks=("eth0", "eth1"),
    conflists="/conflists",
)


def file_of(folder: Path, document: Any) -> Path:
    path = folder / "cluster.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document))
    return path


@pytest.mark.parametrize("config", [WHOLE, ClusterConfig("n", EtcdConfig(("http://127.0.0.1:2379",))), KUBERNETES])
def test_what_is_written_is_read_and_is_roots_alone(tmp_path: Path, config: ClusterConfig):
    path = tmp_path / "there/cluster.json"
    config.write(path)
    config.write(path)
    assert ClusterConfig.load(path) == config
    assert path.stat().st_mode & 0o7777 == 0o600
    assert [item.name for item in path.parent.iterdir()] == ["cluster.json"]


def test_what_was_not_given_is_not_written():
    assert ClusterConfig("n", EtcdConfig(("http://e:2379",))).document == {
        "node": "n",
        "etcd": {"endpoints": ["http://e:2379"]},
    }


def test_the_schema_has_a_key_for_each_field():
    known = schema()["properties"]
    assert len(known) == len(fields(ClusterConfig)) + 1  # a store is etcd or Kubernetes
    for config, kind in ((WHOLE, "etcd"), (KUBERNETES, "kubernetes")):
        assert len(known[kind]["properties"]) == len(fields(type(config.store)))
        assert config.document[kind].keys() == known[kind]["properties"].keys()
        assert validator_of(schema()).is_valid(config.document)
    assert WHOLE.document.keys() | KUBERNETES.document.keys() == known.keys()


def test_a_pod_is_told_what_its_node_is_called(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("NODE_NAME", raising=False)
    assert ClusterConfig.of({"kubernetes": {}}) == ClusterConfig(host_name().lower(), KubernetesConfig())
    monkeypatch.setenv("NODE_NAME", "node-7")
    assert ClusterConfig.of({"kubernetes": {}}).node == "node-7"
    assert ClusterConfig.of({"kubernetes": {}, "node": "node-8"}).node == "node-8"
    assert ClusterConfig.of({"etcd": ETCD}).node == host_name()


def test_what_says_nothing_is_not_given(tmp_path: Path):
    said = {"node": None, "vtep": "", "freeAfter": None, "etcd": ETCD | {"cert": "", "key": None}}
    assert ClusterConfig.load(file_of(tmp_path, said)) == ClusterConfig(
        host_name(), EtcdConfig(tuple(ETCD["endpoints"]))
    )


@pytest.mark.parametrize(
    ("said", "words"),
    [
        ("", "$: it is not JSON: it is empty"),
        ("{", "$: it is not JSON: "),
        ("[]", "$: it is no JSON object"),
        ({}, "$: neither etcd nor kubernetes: "),
        ({"etcd": ETCD, "kubernetes": {}}, "$.etcd and $.kubernetes: a cluster has one store"),
        ({"kubernetes": {"cert": "/c"}}, "$.kubernetes.key: missing"),
        ({"kubernetes": {"server": "http://e", "cacert": "/ca"}}, "$.kubernetes.server: http://e is without TLS"),
        ({"kubernetes": {"server": "e:6443"}}, "$.kubernetes.server: 'e:6443' is no URL of a server"),
        ({"etcd": ETCD, "vtep": "192.0.2.1", "uplinks": ["eth0"]}, "$.vtep: excludes uplinks"),
        ({"etcd": ETCD, "uplinks": []}, "$.uplinks: "),
        ({"etcd": ETCD, "uplinks": ["eth0", "eth0"]}, "$.uplinks: "),
        ({"etcd": ETCD, "uplinks": ["a/b"]}, "$.uplinks[0]: "),
        ({"kubernetes": {}, "freeAfter": 60}, "$.freeAfter: it is Kubernetes that gives nodes their addresses"),
        ({"etcd": {}}, "$.etcd: 'endpoints' is a required property"),
        ({"etcd": {"endpoints": []}}, "$.etcd.endpoints: "),
        ({"etcd": {"endpoints": ["etcd:2379"]}}, "$.etcd.endpoints[0]: 'etcd:2379' is no URL of a server"),
        ({"etcd": {"endpoints": ["https://e:2379/v3"]}}, "$.etcd.endpoints[0]: "),
        ({"etcd": {"endpoints": ["https://e:99999"]}}, "has no port from 1 to 65535"),
        ({"etcd": {"endpoints": ["https://[::g]:1"]}}, "$.etcd.endpoints[0]: "),
        ({"etcd": {"endpoints": ["https://u:p@e:1"]}}, "$.etcd.endpoints[0]: "),
        ({"etcd": {"endpoints": ["http://e"], "cacert": "/ca"}}, "$.etcd.endpoints: http://e is without TLS"),
        ({"etcd": ETCD | {"cert": "/c"}}, "$.etcd.key: missing"),
        ({"etcd": ETCD | {"key": "/c"}}, "$.etcd.cert: missing"),
        ({"etcd": ETCD | {"user": "u"}}, "$.etcd.passwordFile: missing"),
        ({"etcd": ETCD | {"passwordFile": "/p"}}, "$.etcd.user: missing"),
        ({"etcd": ETCD | {"cacert": "ca.pem"}}, "$.etcd.cacert: 'ca.pem' is no absolute path"),
        ({"etcd": ETCD | {"prefix": "/a/"}}, "$.etcd.prefix: "),
        ({"etcd": ETCD | {"prefix": "/a\n"}}, "$.etcd.prefix: "),
        ({"etcd": ETCD | {"caCert": "/a"}}, "$.etcd.caCert: unknown key, value \"/a\" (did you mean 'cacert'?)"),
        ({"etcd": ETCD, "freeafter": 1}, "$.freeafter: unknown key, value 1 (did you mean 'freeAfter'?)"),
        ({"etcd": ETCD, "endpoints": []}, "$.endpoints: unknown key, value [] (did you mean 'etcd.endpoints'?)"),
        ({"etcd": ETCD, "node": "a b"}, "$.node: "),
        ({"etcd": ETCD, "vtep": "127.0.0.1"}, "$.vtep: 127.0.0.1 is no address others can send to"),
        ({"etcd": ETCD, "vtep": "192.0.2.1/24"}, "$.vtep: "),
        ({"etcd": ETCD, "session": 1}, "$.session: "),
        ({"etcd": ETCD, "session": "15"}, "$.session: "),
        ({"etcd": ETCD, "freeAfter": 59}, "$.freeAfter: 59 s is less than 4 sessions, 60 s"),
        ({"etcd": ETCD, "session": 30, "freeAfter": 60}, "$.freeAfter: 60 s is less than 4 sessions, 120 s"),
        ({"etcd": ETCD, "encryption": "ipsec"}, '$.encryption: "ipsec" is none of "wireguard"'),
        ({"etcd": ETCD, "metrics": "0.0.0.0:9402"}, "$.metrics: '0.0.0.0:9402' is no loopback address and port"),
        ({"etcd": ETCD, "metrics": "127.0.0.1"}, "$.metrics: "),
        ({"etcd": ETCD, "metrics": "127.0.0.1:1", "metricsCert": "/c"}, "$.metricsKey: missing"),
        ({"etcd": ETCD, "metrics": "127.0.0.1:1", "metricsKey": "/k"}, "$.metricsCert: missing"),
        ({"etcd": ETCD, "metrics": "127.0.0.1:1", "metricsClientCa": "/c"}, "$.metricsCert: missing"),
        ({"etcd": ETCD, "metricsCert": "/c", "metricsKey": "/k"}, "$.metrics: missing"),
        ({"etcd": ETCD, "metrics": "192.0.2.1:1", "metricsCert": "/c", "metricsKey": "/k"}, "any other needs metricsClientCa"),
        ({"etcd": ETCD, "metrics": "[::1]:0"}, "$.metrics: "),
        ({"etcd": ETCD, "node": "a\0"}, "$.node: "),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named_with_its_key(tmp_path: Path, said: Any, words: str):
    path = file_of(tmp_path, said)
    with pytest.raises(InvalidConfig) as refused:
        ClusterConfig.load(path)
    assert refused.value.msg.startswith(f"{path}: $")
    assert words in refused.value.msg


def test_every_fault_is_said_at_once():
    _, faults = read(json.dumps({"etcd": ETCD | {"cert": "c"}, "vtep": "x", "session": 0}).encode())
    assert [line.split(":")[0] for line in faults] == ["$.etcd.cert", "$.session", "$.vtep"]


def test_without_a_file_it_is_said_how_to_join(tmp_path: Path):
    with pytest.raises(
        Unavailable, match=r"in no cluster, there is no .*cluster.json: agent-cni join --etcd URL, or --kubernetes$"
    ):
        ClusterConfig.load(tmp_path / "cluster.json")
