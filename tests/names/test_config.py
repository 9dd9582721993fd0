"""The `names` section, and where names come from: CNI_ARGS, runtimeConfig, args, annotations, nerdctl's own files."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from cni.errors import CniError, InvalidConfig, InvalidEnvironment, UnsupportedField
from cni.names import nerdctl
from cni.names.config import Names
from cni.names.pod import resolved, section_of
from cni.protocol.call import Call
from cni.protocol.config import validate
from cni.protocol.result import DNS, IPConfig, Result

ANNOTATIONS = "io.kubernetes.cri.pod-annotations"
POD = "IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web"


def conf(**keys: Any) -> dict[str, Any]:
    ipam = {"ranges": [[{"subnet": "10.1.0.0/24"}]]}
    return {
        "cniVersion": "1.1.0", "name": "net", "type": "bridge-vxlan", "isGateway": True, "ipam": ipam, "names": {}, **keys,
    }  # fmt: skip


def names(said: str = "", container: str = "c1", **keys: Any) -> Names:
    netconf = conf(**keys)
    validate(netconf, "bridge-vxlan")
    found = section_of(netconf, Call("ADD", container, "/run/netns/p", "eth0", said))
    assert found
    return found


def refused(error: type[CniError], said: str = "", **keys: Any) -> str:
    with pytest.raises(error) as raised:
        names(said, **keys)
    return raised.value.msg


def test_without_the_section_there_are_none():
    assert section_of({"name": "net"}, Call("ADD")) is None


def test_a_pod_is_known_by_what_it_was_started_as():
    assert names(POD).known_as == ("web.shop.net", "web.net", "web")
    assert names(POD).search == ("shop.net", "net")


def test_podman_says_a_name_and_aliases_for_each_network():
    found = names(
        "IgnoreUnknown=1;K8S_POD_NAME=db", runtimeConfig={"aliases": {"net": ["sql", "sql.old"], "other": ["no"]}}
    )
    assert found.known_as == ("db.net", "sql.net", "sql.old.net", "db", "sql", "sql.old")
    assert found.search == ("net",)


def test_a_runtime_may_say_aliases_as_a_list_and_in_any_case():
    assert names(POD, runtimeConfig={"Aliases": ["sql"]}).known_as[:2] == ("web.shop.net", "sql.shop.net")


def test_a_namespace_that_is_the_name_is_none():
    assert names("K8S_POD_NAMESPACE=db;K8S_POD_NAME=db").known_as == ("db.net", "db")


def test_a_pod_of_kubernetes_that_is_called_like_its_namespace_is_no_operators():
    like = "IgnoreUnknown=1;K8S_POD_NAMESPACE=evil;K8S_POD_NAME=evil"
    taken = {"names.agent-cni.dev/aliases": "www.example.com,web.shop"}
    assert names(like, runtimeConfig={ANNOTATIONS: taken}).known_as == (
        "evil.evil.net", "www.example.com.evil.net", "web.shop.evil.net", "evil.net", "evil",
    )  # fmt: skip
    assert names(f"{like};K8S_POD_UID=1").known_as == ("evil.evil.net", "evil.net", "evil")
    assert names(f"{like};K8S_POD_UID=").known_as == ("evil.net", "evil")


@pytest.mark.parametrize("said", ["abc", 5, {"a": 1}])
def test_aliases_of_a_network_are_a_list(said: Any):
    assert "$.runtimeConfig.aliases" in refused(InvalidConfig, POD, runtimeConfig={"aliases": {"net": said}})


def test_annotations_and_args_say_more():
    told = {"names.agent-cni.dev/hostname": "front", "names.agent-cni.dev/aliases": "a, b"}
    found = names(POD, runtimeConfig={ANNOTATIONS: told}, args={"cni": {"hostname": "h", "aliases": ["c"]}})
    assert [name for name in found.known_as if "." not in name] == ["web", "h", "front", "c", "a", "b"]


def test_a_hostname_may_be_among_the_arguments():
    assert names("HOSTNAME=box").known_as == ("box.net", "box")


def test_a_pod_has_some_names_and_not_thousands():
    told = lambda many: {ANNOTATIONS: {"names.agent-cni.dev/aliases": ",".join(f"a{it}" for it in range(many))}}  # noqa: E731
    assert len(names(POD, runtimeConfig=told(63)).known_as) == 3 * 64
    assert "65 names for one pod; 64 are the most" in refused(InvalidConfig, POD, runtimeConfig=told(64))


def test_who_says_no_name_has_none():
    assert names().known_as == ()


def test_a_pods_name_that_is_none_is_left_out():
    assert names("IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=we b").known_as == ()


@pytest.mark.parametrize(
    ("keys", "where"),
    [
        ({"runtimeConfig": {"aliases": ["a b"]}}, "$.runtimeConfig.aliases: 'a b'"),
        ({"runtimeConfig": {"aliases": {"net": ["a\n10.0.0.1 b"]}}}, "$.runtimeConfig.aliases"),
        ({"runtimeConfig": {"aliases": [7]}}, "$.runtimeConfig.aliases: 7"),
        ({"args": {"cni": {"hostname": "-"}}}, "$.args.cni.hostname"),
        (
            {"runtimeConfig": {ANNOTATIONS: {"names.agent-cni.dev/hostname": "a..b"}}},
            "annotation names.agent-cni.dev/hostname",
        ),
        (
            {"runtimeConfig": {ANNOTATIONS: {"names.agent-cni.dev/aliases": "ok, 10.1.0.1"}}},
            "annotation names.agent-cni.dev/aliases",
        ),
        ({"names": {"domain": "a b"}}, "$.names.domain: 'a b' is no domain"),
        ({"name": "net-"}, "$.names.domain: 'net-' is said nowhere"),
        (
            {"name": "n" * 256, "names": {"domain": "d"}},
            "$.name: 256 characters; the network's folder of names can have 255",
        ),
        ({"isGateway": False}, "$.names: needs isGateway"),
        ({"ipam": {}}, "$.names: needs ipam"),
        ({"dns": {"nameservers": ["8.8.8.8"]}}, "$.dns.nameservers: excludes names"),
    ],
)
def test_what_is_wrong_is_named(keys: dict[str, Any], where: str):
    assert refused(InvalidConfig, **keys).startswith(where)


def test_health_without_names_is_refused():
    with pytest.raises(InvalidConfig, match="health: belongs to names"):
        section_of({"name": "net", "health": {"tcp": 80}}, Call("ADD"))


def test_a_hostname_among_the_arguments_that_is_none_is_their_fault():
    assert refused(InvalidEnvironment, "HOSTNAME=a..b").startswith("CNI_ARGS: HOSTNAME")


def test_a_key_nobody_knows_is_refused():
    assert "$.names.domian" in refused(UnsupportedField, names={"domian": "x"})


def test_the_domain_may_be_said():
    assert names(POD, names={"domain": "Pods.Example."}).known_as[0] == "web.shop.pods.example"


class TestNerdctl:
    @pytest.fixture(autouse=True, params=["1935db59/names/default", "1935db59/default"])
    def store(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, request: pytest.FixtureRequest) -> Path:
        monkeypatch.setattr(nerdctl, "ROOT", tmp_path)
        folder = tmp_path / request.param
        folder.mkdir(parents=True)
        (folder / "a-folder").mkdir()
        (folder / "shop-web").write_text("ab12\n")
        (folder / "other").write_text("cd34")
        return folder

    def test_a_container_is_called_as_its_files_say(self):
        found = names("IgnoreUnknown=1;NERDCTL_CNI_DHCP_HOSTNAME=ab12host", "default-ab12")
        assert found.known_as == ("shop-web.net", "ab12host.net", "shop-web", "ab12host")

    @pytest.mark.parametrize("container", ["default-ff", "k8s.io-ab12", "ab12", "default-"])
    def test_another_is_not(self, container: str):
        assert names("IgnoreUnknown=1;NERDCTL_CNI_DHCP_HOSTNAME=h", container).known_as == ("h.net", "h")

    def test_who_is_not_nerdctls_is_not_looked_for(self):
        assert names(POD, "default-ab12").known_as[0] == "web.shop.net"


class TestResolver:
    LEASE = Result(
        ips=(IPConfig("10.1.0.5/24", "10.1.0.1"), IPConfig("fd00::5/64", "fd00::1")),
        dns=DNS(("9.9.9.9",), search=("corp",)),
    )

    def test_it_is_the_gateway_of_each_family(self):
        assert resolved(names(POD), self.LEASE, None) == DNS(
            ("10.1.0.1", "fd00::1"), "net", ("shop.net", "net", "corp")
        )

    def test_what_the_configuration_says_besides_stays(self):
        said = DNS(domain="d", search=("net", "x"), options=("ndots:2",))
        assert resolved(names(POD), self.LEASE, said) == DNS(
            ("10.1.0.1", "fd00::1"), "d", ("shop.net", "net", "x"), ("ndots:2",)
        )

    def test_without_names_it_is_as_it_was(self):
        assert resolved(None, self.LEASE, None) is None
