"""What a reader of the documentation types and writes does what the page says, on machines that have nothing of ours."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pytest
from lab import AGENT_CNI, ROOT, Host, Lab, Pod, sh
from reader import Reader, blocks

DOCKER = "docs/coming-from-docker.md"
STORE = "http://192.0.2.1:2379"
#: A pod of the shop, as a runtime attaches it on a network of the node.
ADD = """ip netns add {name} && python3 -c '
import json, sys
conf = json.load(open(sys.argv[1]))
print(json.dumps(conf["plugins"][0] | {{"cniVersion": "1.0.0", "name": conf["name"]}}))' /etc/cni/net.d/{file} >{name}.conf &&
for try in $(seq 60); do
    CNI_COMMAND=ADD CNI_CONTAINERID={container} CNI_NETNS=/run/netns/{name} CNI_IFNAME=eth0 CNI_PATH=/opt/cni/bin \\
        CNI_ARGS="IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME={name}" /opt/cni/bin/bridge-vxlan <{name}.conf && break
    sleep 0.5
done
"""
#: Commands that may find something on such a machine.
SAYS_NO = ("agent-cni doctor", "agent-cni validate my.conflist", "agent-cni policy why")


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What `make install` has built of this checkout before, so that it need not fetch and build all of it again."""
    folder = tmp_path_factory.mktemp("build") / "build"
    shutil.copytree(ROOT / ".cache/build", folder, symlinks=True)
    return folder


@pytest.fixture
def reader(lab: Lab, node: Host, build: Path) -> Iterator[Reader]:
    """A reader with two hosts, a machine beside them and one for etcd, which is everybody's gateway, too."""
    hosts = {"": node} | {name: lab.host() for name in ("other", "elsewhere", "store")}
    switch = lab.underlay(*hosts.values())
    sh("ip", "-n", switch.name, "addr", "del", "192.0.2.1/24", "dev", "sw0")
    sh("ip", "-n", hosts["store"].name, "addr", "add", "192.0.2.1/24", "dev", "eth0")
    with ExitStack() as held:
        yield Reader(held, build, hosts)


def does(reader: Reader, command: str, machine: str = "") -> None:
    code, said = reader.machines[machine].types(command)
    assert code == 0, (command, said)


def has_etcd(reader: Reader) -> None:
    does(reader, f"etcd --data-dir /var/lib/etcd --listen-client-urls {STORE} --advertise-client-urls {STORE}", "store")


def has_the_suite(reader: Reader) -> None:
    does(reader, "make install CONF=12-cluster.conflist")


def is_in_a_cluster(reader: Reader) -> None:
    has_etcd(reader)
    has_the_suite(reader)
    does(reader, f"agent-cni join --etcd {STORE}")


def has_a_shop(reader: Reader, file: str = "12-cluster.conflist") -> None:
    for name, container in (("web", "3f2a77"), ("db", "4a1b88")):
        does(reader, ADD.format(name=name, container=container, file=file))


def has_docker(reader: Reader) -> None:
    """Docker's rules on both hosts, which let nothing through that is not its own: neither does what was there before."""
    if reader.machines[""].types("iptables -S DOCKER-USER")[0] == 0:
        return
    docker = "iptables -P FORWARD DROP && iptables -N DOCKER-USER && iptables -A FORWARD -j DOCKER-USER"
    for machine in ("", "other"):
        does(reader, docker, machine)
    does(reader, "! ip netns exec left ping -c 1 -W 1 10.65.2.2")


def has_a_misspelt_list(reader: Reader) -> None:
    has_a_shop(reader)
    conf = {"type": "bridge-vxlan", "isGatway": True, "ipam": {"subnet": "10.1.0.0/24"}}
    text = json.dumps({"cniVersion": "1.0.0", "name": "mine", "plugins": [conf]})
    does(reader, f"echo '{text}' >my.conflist")


def can_be_explained(reader: Reader) -> None:
    does(reader, "sed -i s/isGatway/isGateway/ my.conflist")


@pytest.mark.long
def test_who_comes_from_docker_has_networks_as_there(reader: Reader):
    assert reader.read(ROOT / DOCKER, before={"iptables -I DOCKER-USER -i": has_docker}) > 50
    for name in ("", "other"):
        assert reader.machines[name].host.state() == {"attachments": [], "leases": []}


def is_with_another(reader: Reader) -> None:
    has_a_shop(reader)
    does(reader, "make install CONF=12-cluster.conflist", "other")
    does(reader, f"agent-cni join --etcd {STORE}", "other")
    does(reader, ADD.format(name="cart", container="5c", file="12-cluster.conflist"), "other")
    does(
        reader,
        ADD.replace("ADD", "DEL")
        .replace("ip netns add", "true")
        .format(name="db", container="4a1b88", file="12-cluster.conflist"),
    )
    does(reader, "until agent-cni node | grep -q 'host-b .* 2  *1$'; do sleep 0.2; done")


def has_documents(reader: Reader) -> None:
    """Two pods held by the cluster's documents, of which some are in a folder."""
    is_in_a_cluster(reader)
    machine = reader.machines[""]
    conf = json.loads((ROOT / "conf.d/12-cluster.conflist").read_text())
    conf["plugins"][0]["policy"] = {"cluster": True, "log": True}
    machine.writes("/etc/cni/net.d/12-cluster.conflist", json.dumps(conf))
    ports = {"db": [{"name": "sql", "containerPort": 5432}]}
    pods = [
        {"apiVersion": "v1", "kind": "Pod", "metadata": {"namespace": "shop", "name": name, "labels": {"app": name}},
         "spec": {"containers": [{"name": name, "image": name, "ports": ports.get(name, [])}]}}
        for name in ("web", "db")
    ]  # fmt: skip
    for name, spec in (("old", {}), ("db", {"ingress": [{"ports": [{"port": "sql"}]}]})):
        policy = {
            "apiVersion": "networking.k8s.io/v1",
            "kind": "NetworkPolicy",
            "metadata": {"namespace": "shop", "name": name},
            "spec": {"podSelector": {}} | spec,
        }
        machine.writes(f"/run/machines/{machine.host.name}/policies/{name}.yaml", json.dumps(policy))
        machine.writes(f"/run/machines/{machine.host.name}/new-policy.yaml", json.dumps(policy))
    machine.writes(
        f"/run/machines/{machine.host.name}/policies/pods.json",
        json.dumps({"apiVersion": "v1", "kind": "List", "items": pods}),
    )


def was_in_a_cluster(reader: Reader) -> None:
    is_in_a_cluster(reader)
    does(reader, "kill $! && wait $!; true")


Prepare = dict[str, Callable[[Reader], None]]
PAGES: dict[str, Prepare] = {
    "README.md": {
        "make install CONF=12": has_etcd,
        "agent-cni validate my.conflist": has_a_misspelt_list,
        "agent-cni explain my.conflist": can_be_explained,
    },
    "docs/agent.md": {"agent-cni serve": has_the_suite},
    "docs/cluster.md": {"agent-cni node": is_with_another},
    "docs/etcd.md": {},
    "docs/install.md": {},
    "docs/kubernetes.md": {"agent-cni doctor": has_the_suite},
    "docs/metrics.md": {
        "agent-cni join --metrics": was_in_a_cluster,
        "agent-cni metrics": lambda reader: does(reader, "mkdir -p /var/lib/node_exporter"),
    },
    "docs/names.md": {"agent-cni show": lambda reader: (is_in_a_cluster(reader), has_a_shop(reader))},
    "docs/policy.md": {"agent-cni policy apply": has_documents, "agent-cni policy list": has_a_shop},
}


@pytest.mark.parametrize("page", PAGES)
def test_what_a_page_has_one_type_is_done(reader: Reader, page: str):
    assert reader.read(ROOT / page, SAYS_NO, PAGES[page])


def configurations() -> list[Any]:
    """The configurations of pages that are no files on a machine: those are typed about."""
    every = [block for page in blocks.PAGES for block in blocks.blocks(page) if block.kind in blocks.WRITTEN]
    return [block for block in every if not blocks.written(block)[0] and not blocks.why_not_added(block)]


@pytest.mark.parametrize("block", configurations(), ids=lambda block: f"{block.page} {block.lines[0]}")
def test_a_configuration_of_a_page_attaches_a_pod(lab: Lab, host: Host, pod: Pod, block: Any):
    """A section alone is custom-plugin's; interception without an interface of its own follows a bridge."""
    lab.underlay(host)
    text = block.text if block.text.startswith("{") else f'{{"type": "custom-plugin", {block.text}}}'
    conf = {"cniVersion": "1.0.0", "name": "pods"} | json.loads(text)
    chain = [conf]
    if conf["type"] == "sidecar-redirect":
        annotations = {conf["when"]["annotation"]: "true"}
        conf["runtimeConfig"] = {"io.kubernetes.cri.pod-annotations": annotations}
        chain.insert(
            0, {"cniVersion": "1.0.0", "name": "pods", "type": "bridge-vxlan", "ipam": {"subnet": "10.1.0.0/24"}}
        )
    result: dict[str, Any] = {}
    for item in chain:
        result = host.add(item | ({"prevResult": result} if result else {}), pod)
    assert {ip["address"] for ip in result["ips"]} <= pod.addresses("eth0")
    for item in chain:
        host.check(item, pod, result).ok()
    for item in reversed(chain):
        host.delete_pod(item, pod)
    assert host.state() == {"attachments": [], "leases": []}


def test_a_compose_file_of_a_page_is_known_for_one(host: Host, tmp_path: Path):
    (block,) = (block for page in blocks.PAGES for block in blocks.blocks(page) if block.kind == "yaml")
    (tmp_path / "compose.yaml").write_text(block.text)
    said = host.run(AGENT_CNI, "validate", tmp_path / "compose.yaml", check=False)
    assert (said.returncode, "this is a compose file: docs/coming-from-docker.md" in said.stderr) == (1, True)
