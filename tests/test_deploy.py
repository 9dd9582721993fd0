"""What is written here and run elsewhere: the installer's container file, the cluster's manifest and the agent's unit."""

from __future__ import annotations

import json
import os
import re
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from cni import __version__
from cni.cluster.kubernetes import items
from cni.cluster.kubernetes.api import ACCOUNT
from cni.command.parser import parser
from cni.conflist.file import judged
from cni.conflist.template import filled
from cni.kernel.process import SYSTEM_PATH
from cni.overlay.wireguard import DEVICE
from cni.policy import judgement
from cni.policy.judgement import Other
from cni.values import replace
from tests.fakes.book import ListedBook

ROOT = Path(__file__).parent.parent
LINT = ROOT / ".cache/lint/bin"
MANIFEST = ROOT / "deploy/agent-cni.yaml"
REMOVAL = ROOT / "deploy/uninstall.yaml"
TUNNEL = ROOT / "deploy/encrypted/tunnel.yaml"
FLOWS = ROOT / "deploy/flows.yaml"
ALLOWED = ROOT / "deploy/names-allowed.yaml"
UNIT = ROOT / "tools/systemd/system/agent-cni.service"
OBJECTS: dict[str, Any] = {item["kind"]: item for item in yaml.safe_load_all(MANIFEST.read_text())}
CONFIG, DAEMON_SET = OBJECTS["ConfigMap"], OBJECTS["DaemonSet"]


def linted(*argv: object) -> subprocess.CompletedProcess[str]:
    return subprocess.run([str(item) for item in argv], capture_output=True, text=True, check=False)


def containers() -> list[dict[str, Any]]:
    spec = DAEMON_SET["spec"]["template"]["spec"]
    return [*spec["initContainers"], *spec["containers"]]


def test_hadolint_finds_nothing():
    done = linted(LINT / "hadolint", ROOT / "deploy/Containerfile")
    assert (done.returncode, done.stdout) == (0, "")


@pytest.mark.parametrize("version", ["1.30", "1.34", "1.37"])
def test_the_manifests_are_ones_of_each_kubernetes(version: str):
    done = linted(LINT / "kubernetes-validate", "--strict", "-k", version, MANIFEST, REMOVAL, TUNNEL, FLOWS)
    assert done.returncode == 0, done.stdout + done.stderr


def test_its_conflist_is_valid_as_each_node_will_have_it(tmp_path: Path):
    for name, text in CONFIG["data"].items():
        made = filled(json.loads(text), ["10.244.7.0/24"])
        assert made == json.loads(text), "of the default nothing is to be filled in"
        (tmp_path / name).write_text(text)
        assert [(item["ours"], item["faults"]) for item in judged(tmp_path / name)] == [(True, []), (False, [])]
        assert made["cniVersion"] == "1.0.0", "containerd 1.6 knows no newer one"


def options_of(container: dict[str, Any]) -> list[str]:
    """What agent-cni is given."""
    return list(container["args"] if "args" in container else container["command"][3:])


def test_its_commands_are_understood():
    for container in containers():
        assert parser().parse_args(options_of(container))
        for probe in ("readinessProbe", "livenessProbe"):
            if command := container.get(probe, {}).get("exec", {}).get("command"):
                assert parser().parse_args(command[3:]).probe


def test_the_member_finds_what_is_mounted_for_it():
    (member,) = [item for item in containers() if item["name"] == "member"]
    mounts = {mount["name"]: mount["mountPath"] for mount in member["volumeMounts"]}
    asked = parser().parse_args(options_of(member))
    assert f"/host{asked.conflists}" == mounts["conflists"]
    assert mounts["account"] == "/host" + str(ACCOUNT).replace("/var/run/", "/run/"), (
        "/var/run is a link in the node's /"
    )
    (port,) = member["ports"]
    assert asked.metrics == f"127.0.0.1:{port['containerPort']}"


def test_the_gate_may_do_what_its_unit_lets_it():
    """But for programs' own namespaces by /proc: a kubelet's pods have theirs in /run/netns, which it has to see as they come."""
    (gate,) = [item for item in containers() if item["name"] == "dnsgate"]
    (line,) = re.findall(r"(?m)^CapabilityBoundingSet=(.*)$", UNIT.with_name("agent-cni-dnsgate.service").read_text())
    given = {f"CAP_{name}" for name in gate["securityContext"]["capabilities"]["add"]}
    assert given - {"CAP_SYS_CHROOT"} == {*line.split()} - {"CAP_SYS_PTRACE"}
    assert gate["securityContext"]["capabilities"]["drop"] == ["ALL"]
    assert {"name": "host", "mountPath": "/host", "mountPropagation": "HostToContainer"} in gate["volumeMounts"]


def test_a_node_is_reached_by_the_address_the_api_says():
    """The default route's may be another one; and what a container is told when it begins the API may say otherwise later."""
    (member,) = [item for item in containers() if item["name"] == "member"]
    given = {item["name"]: item["valueFrom"]["fieldRef"]["fieldPath"] for item in member["env"]}
    asked = parser().parse_args(options_of(member))
    assert (asked.vtep, given[asked.node.strip("$()")]) == ("", "spec.nodeName")


def test_what_runs_is_bounded_and_asked_for_its_health():
    spec = DAEMON_SET["spec"]["template"]["spec"]
    for container in containers():
        assert "memory" in container["resources"]["limits"]
        assert "cpu" not in container["resources"]["limits"]
    for container in spec["containers"]:
        assert {"readinessProbe", "livenessProbe"} <= container.keys()
    assert spec["priorityClassName"] == "system-node-critical"
    assert spec["tolerations"] == [{"operator": "Exists"}]
    assert DAEMON_SET["spec"]["updateStrategy"]["rollingUpdate"] == {"maxUnavailable": 1}


def test_what_a_member_may_change_of_nodes_is_bounded_for_its_own_account():
    """That each bound holds `make kube-test` tries with a token of a node (rights)."""
    policy, binding, account = (
        OBJECTS[kind] for kind in ("ValidatingAdmissionPolicy", "ValidatingAdmissionPolicyBinding", "ServiceAccount")
    )
    assert binding["spec"] == {"policyName": policy["metadata"]["name"], "validationActions": ["Deny"]}
    (who,) = policy["spec"]["matchConditions"]
    name, namespace = account["metadata"]["name"], account["metadata"]["namespace"]
    assert who["expression"] == f'request.userInfo.username == "system:serviceaccount:{namespace}:{name}"'
    patched = {
        resource
        for rule in OBJECTS["ClusterRole"]["rules"]
        for resource in rule["resources"]
        if not {"get", "list", "watch"} >= {*rule["verbs"]}
    }
    (rule,) = policy["spec"]["matchConstraints"]["resourceRules"]
    assert {*rule["resources"]} == patched, "whatever it may write"
    said = " ".join(item["expression"] for item in policy["spec"]["validations"])
    assert {*re.findall(r'startsWith\("(.*?)"\)', said)} == {items.DOMAIN}
    assert {*re.findall(r'type != "(.*?)"', said)} == {items.UNAVAILABLE}


def test_its_volumes_and_image_are_there():
    spec = DAEMON_SET["spec"]["template"]["spec"]
    mounted = {mount["name"] for item in containers() for mount in item["volumeMounts"]}
    assert mounted == {volume["name"] for volume in spec["volumes"]}
    assert {item["image"] for item in containers()} == {f"agent-cni:{__version__}"}
    assert spec["serviceAccountName"] == OBJECTS["ServiceAccount"]["metadata"]["name"]
    (subject,) = OBJECTS["ClusterRoleBinding"]["subjects"]
    assert (subject["name"], subject["namespace"]) == ("agent-cni", "kube-system")


MODES = sorted(file.parent.name for file in (ROOT / "deploy").glob("*/kustomization.yaml"))


def mode(name: str) -> dict[str, Any]:
    return dict(yaml.safe_load((ROOT / "deploy" / name / "kustomization.yaml").read_text()))


@pytest.mark.parametrize("name", MODES)
def test_a_mode_is_made_of_the_default(name: str):
    """What kubectl makes of it `make kube-test` applies; here, that it names what there is."""
    said = mode(name)
    if name == "l3":
        assert said["resources"] == ["agent-cni.yaml"]
        assert MANIFEST.resolve() == ROOT / "deploy/l3/agent-cni.yaml"
        return
    assert said["resources"] == ["../l3", *{"strict": ["names.yaml"], "encrypted": ["tunnel.yaml"]}.get(name, [])]
    for made in said.get("configMapGenerator", ()):
        assert (made["name"], made["namespace"], made["behavior"]) == ("agent-cni", "kube-system", "replace")
        assert made["files"] == list(CONFIG["data"]), "the same file, so that it takes the other's place on nodes"
    for patch in said.get("patches", ()):
        target = OBJECTS[patch["target"]["kind"]]
        for change in yaml.safe_load(patch["patch"]):
            place: Any = target
            for step in change["path"].strip("/").split("/")[:-1]:
                place = place[int(step) if step.isdecimal() else step]
            assert place


@pytest.mark.parametrize("file", sorted((ROOT / "deploy").glob("*/*.conflist")), ids=lambda file: file.parent.name)
def test_a_modes_conflist_is_valid_and_differs_in_what_it_is_for(file: Path):
    assert [item["faults"] for item in judged(file)] == [[], []]
    default = json.loads(next(iter(CONFIG["data"].values())))["plugins"][0]
    own = json.loads(file.read_text())["plugins"][0]
    keys = {key for key in own.keys() | default.keys() if own.get(key) != default.get(key)}
    assert (
        keys
        == {"l2": {"vxlan"}, "routed": {"vxlan"}, "strict": {"policy"}, "mesh": {"sidecar", "capabilities"}}[
            file.parent.name
        ]
    )


@pytest.mark.parametrize("name", MODES)
def test_kubectl_builds_every_mode(name: str):
    kubectl = Path(os.environ.get("KUBE_RIG") or ROOT / ".cache/kube") / "bin/kubectl"
    if not kubectl.exists():
        pytest.skip("`make kube-test` builds kubectl")
    done = linted(kubectl, "kustomize", ROOT / "deploy" / name)
    assert done.returncode == 0, done.stderr
    everything = list(yaml.safe_load_all(done.stdout))
    apart = [item for item in everything if item["metadata"]["name"] == "agent-cni-tunnel"]
    assert apart == (list(yaml.safe_load_all(TUNNEL.read_text())) if name == "encrypted" else [])
    made = {item["kind"]: item for item in everything if item not in apart}
    assert made.keys() == OBJECTS.keys() | ({"NetworkPolicy"} if name == "strict" else set())
    said = mode(name)
    config, spec = made["ConfigMap"], made["DaemonSet"]["spec"]["template"]["spec"]
    assert config["metadata"]["name"] == spec["volumes"][0]["configMap"]["name"] == "agent-cni"
    for given in said.get("configMapGenerator", ()):
        for file in given["files"]:
            assert config["data"][file] == (ROOT / "deploy" / name / file).read_text()
    moved = {"agent-cni.dev/moved": "yes"} if name == "node-by-node" else {}
    assert spec["nodeSelector"] == {"kubernetes.io/os": "linux"} | moved
    said_of_encryption = parser().parse_args(options_of(spec["containers"][1])).encryption
    assert said_of_encryption == ("wireguard" if name == "encrypted" else ""), "who goes back is not encrypted any more"


def test_what_serves_a_tunnel_is_not_rolled_out_with_the_rest():
    """That no request is lost then `make kube-test` asks (deploy/encrypted, rollout)."""
    tunnel = yaml.safe_load(TUNNEL.read_text())
    rolled, kept = (item["spec"]["selector"]["matchLabels"] for item in (DAEMON_SET, tunnel))
    assert tunnel["spec"]["updateStrategy"] == {"type": "OnDelete"}
    assert rolled.keys() == kept.keys()
    assert rolled != kept
    (container,) = tunnel["spec"]["template"]["spec"]["containers"]
    (member,) = [item for item in containers() if item["name"] == "member"]
    assert container["securityContext"] == member["securityContext"], (
        "else a member cannot end one that hangs (ptrace(2))"
    )
    assert f"wireguard-go --foreground {DEVICE}\n" in container["command"][-1]
    assert f"PATH={SYSTEM_PATH} " in container["command"][-1]


def test_what_records_flows_may_do_what_a_member_may_and_is_none_of_the_rest():
    flows = yaml.safe_load(FLOWS.read_text())
    (container,) = flows["spec"]["template"]["spec"]["containers"]
    (member,) = [item for item in containers() if item["name"] == "member"]
    assert container["securityContext"] == member["securityContext"]
    assert container["image"] == member["image"]
    assert parser().parse_args(options_of(container)).record
    assert "memory" in container["resources"]["limits"]
    assert flows["spec"]["selector"]["matchLabels"] != DAEMON_SET["spec"]["selector"]["matchLabels"]


@pytest.mark.parametrize(
    ("other", "verdict"),
    [
        (Other("", None, "tcp", 443, "api.example.com"), True),
        (Other("", None, "tcp", 443, "x.example.org"), True),
        (Other("", None, "tcp", 80, "api.example.com"), False),
        (Other("", None, "tcp", 443, "example.org"), False),
        (Other("198.51.100.1", None, "tcp", 443), False),
        (Other("198.51.100.1", None, "udp", 53), False),
        (Other("10.244.0.9", None, "tcp", 53), False),
        (Other("10.244.0.2", None, "udp", 53), True),
        (Other("10.244.0.2", None, "tcp", 9153), False),
    ],
)
def test_the_example_of_names_lets_through_what_it_says(other: Other, verdict: bool):
    def of(namespace: str, name: str, address: str, **labels: str) -> dict[str, Any]:
        metadata = {"namespace": namespace, "name": name, "labels": labels}
        return {"kind": "Pod", "metadata": metadata, "status": {"podIP": address}}

    space = {
        "kind": "Namespace",
        "metadata": {"name": "kube-system", "labels": {"kubernetes.io/metadata.name": "kube-system"}},
    }
    own, names = (
        of("shop", "web", "10.244.0.3", egress="named"),
        of("kube-system", "names", "10.244.0.2", **{"k8s-app": "kube-dns"}),
    )
    book = ListedBook(own, names, space, yaml.safe_load(ALLOWED.read_text()))
    pod, far = book.pod("shop", "web"), book.pod("kube-system", "names")
    assert pod
    assert far
    asked = replace(other, pod=far) if other.address in far.addresses else other
    found = judgement.judged(book, pod, "egress", asked)
    assert (found.allowed, found.documents) == (verdict, ("ClusterNetworkPolicy named",))


def allowed(key: str) -> set[str]:
    (line,) = re.findall(rf"(?m)^{key}=(.*)$", UNIT.read_text())
    return set(line.split())


def test_its_unit_lets_the_agent_into_every_kind_of_namespace_that_the_code_enters():
    code = "".join(file.read_text() for file in (ROOT / "cni").rglob("*.py"))
    entered = {kind.lower() for kind in re.findall(r"CLONE_NEW([A-Z]+)", code)}
    by_programs = {
        kind for rest in re.findall(r'"(?:nsenter|unshare)"([^]]*)\]', code) for kind in re.findall(r"--(\w+)", rest)
    }
    kinds = {"cgroup", "ipc", "mnt", "net", "pid", "time", "user", "uts"}
    assert allowed("RestrictNamespaces") == (entered | by_programs) & kinds >= {"net", "user"}
    families = {f"AF_{name}" for name in re.findall(r"\bsocket\.AF_(\w+)", code)}
    assert families <= allowed("RestrictAddressFamilies")
