"""A folder of objects: what is read, in whatever list, and what nobody may read as nothing."""

from __future__ import annotations

import json
import os
import resource
import time
from collections.abc import Callable
from pathlib import Path
from threading import Thread
from typing import Any

import pytest
import yaml
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from cni.errors import InvalidConfig
from cni.policy import config, folder
from cni.policy.config import faults_in, section_of
from cni.policy.feeds import book_of, reading_once
from cni.policy.model import Allowance, Policy
from cni.protocol.call import Call

CALL = Call("ADD", args="IgnoreUnknown=1;K8S_POD_NAMESPACE=shop;K8S_POD_NAME=web-0")
FOLDER = """
apiVersion: v1
kind: List
items:
- {kind: Pod, metadata: {namespace: shop, name: web-0, labels: {app: web}}, status: {podIP: 10.1.0.5}}
- {kind: Pod, metadata: {namespace: shop, name: db-0}, status: {podIPs: [{ip: 10.1.0.6}]}}
---
kind: NetworkPolicy
metadata: {namespace: shop, name: one}
spec: {podSelector: {matchLabels: {app: web}}, ingress: [{from: [{podSelector: {}}]}]}
"""


def test_a_folder_adds_up_with_the_section(tmp_path: Path):
    (tmp_path / "all.yaml").write_text(FOLDER)
    (tmp_path / "notes.txt").write_text("{")
    section = {"policyDir": str(tmp_path), "ingress": ["192.0.2.0/24"]}
    made = section_of({"policy": section}, CALL)
    assert made
    assert made.egress is None
    book = book_of(f"folder {tmp_path}")
    answers = [made.allows("ingress", peer, "tcp", 80, book) for peer in ("192.0.2.1", "10.1.0.6", "10.9.9.9")]
    assert answers == [True, True, False]


def test_an_empty_folder_selects_nobody(tmp_path: Path):
    assert section_of({"policy": {"policyDir": str(tmp_path)}}, CALL) == Policy()
    shut = section_of({"policy": {"policyDir": str(tmp_path), "defaultDeny": True}}, CALL)
    assert shut == Policy(ingress=(), egress=())


def test_a_selected_direction_is_shut_also_when_no_rule_is_left(tmp_path: Path):
    (tmp_path / "deny.json").write_text(
        '{"kind": "NetworkPolicy", "metadata": {"namespace": "shop"}, "spec": {"podSelector": {}}}'
    )
    assert section_of({"policy": {"policyDir": str(tmp_path)}}, CALL) == Policy(ingress=())


DENY = {
    "apiVersion": "networking.k8s.io/v1",
    "kind": "NetworkPolicy",
    "metadata": {"namespace": "shop", "name": "deny", "creationTimestamp": "2024-02-30T00:00:00Z"},
    "spec": {"podSelector": {}, "policyTypes": ["Ingress"]},
}
BARE = {key: DENY[key] for key in ("metadata", "spec")}


def listing(kind: str, *items: Any, version: str = "networking.k8s.io/v1") -> dict[str, Any]:
    return {"kind": kind, "apiVersion": version, "metadata": {"resourceVersion": "7"}, "items": list(items)}


SHUTTING: dict[str, str | bytes] = {
    "json": json.dumps(DENY),
    "indented": json.dumps(DENY, indent=4),
    "yaml": yaml.safe_dump(DENY),
    "a list": json.dumps(listing("List", DENY, version="v1")),
    "as the API prints it": json.dumps(listing("NetworkPolicyList", BARE)),
    "the same as YAML": yaml.safe_dump(listing("NetworkPolicyList", BARE)),
    "with kinds": json.dumps(listing("NetworkPolicyList", DENY)),
    "among others": yaml.safe_dump_all([{"kind": "Service", "apiVersion": "v1"}, None, DENY]),
    "begun by a separator": "---\n" + yaml.safe_dump(DENY),
    "byte order mark": b"\xef\xbb\xbf" + yaml.safe_dump(DENY).encode(),
    "byte order mark, JSON": b"\xef\xbb\xbf" + json.dumps(DENY).encode(),
    "PowerShell's": yaml.safe_dump(DENY).encode("utf-16"),
    "carriage returns": yaml.safe_dump(DENY).replace("\n", "\r\n"),
    "without apiVersion": json.dumps({key: DENY[key] for key in ("kind", "metadata", "spec")}),
    "anchors": "spec: {podSelector: &all {}, policyTypes: [&in Ingress], ingress: []}\nkind: NetworkPolicy\n"
    "metadata: {namespace: shop, labels: {a: &b x, b: *b}, annotations: *all}\n",
    "a text by its tag": yaml.safe_dump(DENY).replace("kind: NetworkPolicy", "kind: !!str NetworkPolicy"),
    "no line end": yaml.safe_dump(DENY).rstrip(),
}


@pytest.fixture
def put(tmp_path: Path) -> Callable[[str | bytes], Path]:
    def written(content: str | bytes, name: str = "a.yaml") -> Path:
        (tmp_path / name).write_bytes(content if isinstance(content, bytes) else content.encode())
        return tmp_path

    return written


def shut(where: Path) -> bool:
    found = section_of({"policy": {"policyDir": str(where)}}, CALL)
    assert found in (Policy(), Policy(ingress=()))
    return found == Policy(ingress=())


@pytest.mark.parametrize("name", ["a.yaml", "a.yml", "a.json", "A.YAML"])
@pytest.mark.parametrize("content", SHUTTING.values(), ids=SHUTTING)
def test_objects_are_read_however_they_are_spelled(put: Any, content: str | bytes, name: str):
    assert shut(put(content, name))


def test_lists_of_pods_and_namespaces_as_the_api_prints_them(put: Any, tmp_path: Path):
    pods = [{"metadata": {"namespace": "ops", "name": "a", "labels": {"app": "x"}}, "status": {"podIP": "10.1.0.7"}}]
    pods.append({"metadata": {"namespace": "shop", "name": "web-0"}, "status": {}})
    put(json.dumps(listing("PodList", *pods, version="v1")), "pods.json")
    put(
        json.dumps(listing("NamespaceList", {"metadata": {"name": "ops", "labels": {"team": "o"}}}, version="v1")),
        "ns.json",
    )
    rule = {
        "from": [{"namespaceSelector": {"matchLabels": {"team": "o"}}, "podSelector": {"matchLabels": {"app": "x"}}}]
    }
    put(json.dumps(DENY | {"spec": {"podSelector": {}, "ingress": [rule]}}))
    found = section_of({"policy": {"policyDir": str(tmp_path)}}, CALL)
    assert found
    assert found.allows("ingress", "10.1.0.7", "tcp", 80, book_of(f"folder {tmp_path}"))
    assert not found.allows("ingress", "10.1.0.8", "tcp", 80, book_of(f"folder {tmp_path}"))


def test_a_list_of_none_is_a_document_that_says_so(put: Any):
    for items in ([], None):
        assert not shut(put(json.dumps(listing("NetworkPolicyList") | {"items": items})))


def other(**changes: Any) -> str:
    return json.dumps(DENY | changes)


UNREADABLE: dict[str, tuple[str | bytes, str]] = {
    "emptied": ("", "has no object"),
    "blank": (" \n\n", "has no object"),
    "comments": ("# nothing here\n", "has no object"),
    "separators": ("---\n---\n", "has no object"),
    "null": ("null\n", "has no object"),
    "zeros": (b"\0" * 64, ""),
    "no UTF-8": (b"\xff\xfd", "utf-8"),
    "cut JSON": (json.dumps(DENY)[:-1], ""),
    "cut YAML": ("a: [", "line 2, column 1"),
    "cut in a line": ("kind: NetworkPolicy\nmetadata: {namespace: shop}\nspec:\n  ingress:\n  - from:", "in the middle of a line"),
    "two JSON objects": (json.dumps(DENY) * 2, ""),
    "a list of YAML": ("- 1", "not a Kubernetes object"),
    "a number": ("5", "not a Kubernetes object"),
    "a text": ("No resources found", "not a Kubernetes object"),
    "one of two": (yaml.safe_dump(DENY) + "---\n- 1\n", "document 2: not a Kubernetes object"),
    "no kind": (json.dumps(BARE), "what has no kind"),
    "nothing in it": ("{}", "what has no kind"),
    "a number as kind": (other(kind=5), "5 is no text"),
    "a number as apiVersion": (other(apiVersion=1), "1 is no text"),
    "Status": (json.dumps({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 403}), "a Status is no object"),
    "Table": (json.dumps({"kind": "Table", "apiVersion": "meta.k8s.io/v1", "rows": []}), "a Table is no object"),
    "half objects": (json.dumps(listing("PartialObjectMetadataList", BARE)), "items[0]: a PartialObjectMetadata is no object"),
    "items without kind": (json.dumps(listing("List", BARE, version="v1")), "items[0]: what has no kind"),
    "items that are texts": (json.dumps(listing("PodList", "web", version="v1")), "items[0]: not a Kubernetes object"),
    "items that are none": (json.dumps(listing("List") | {"items": {}}), "items: an object is no list"),
    "no items": ("apiVersion: v1\nkind: List\n", 'a "List" without items'),
    "a list in a list": (json.dumps(listing("List", listing("List", DENY))), "items[0]: "),
    "a list that is cut": (json.dumps({"kind": "Lis", "items": [DENY]}), 'the kind "Lis" is not known'),
    "a list of another name": (json.dumps({"kind": "Policies", "items": [DENY]}), 'a "Policies" has no items here'),
    "Calico's": (other(apiVersion="crd.projectcalico.org/v1"), 'a NetworkPolicy of "crd.projectcalico.org/v1"'),
    "Calico's list": (json.dumps(listing("NetworkPolicyList", BARE, version="projectcalico.org/v3")), "items[0]: a NetworkPolicy of"),
    "beta": (other(apiVersion="extensions/v1beta1"), 'a NetworkPolicy of "extensions/v1beta1"'),
    "core": (other(apiVersion="v1"), 'a NetworkPolicy of "v1"'),
    "Cilium's": (other(kind="CiliumNetworkPolicy", apiVersion="cilium.io/v2"), 'a "CiliumNetworkPolicy" is not understood'),
    "global": (other(kind="GlobalNetworkPolicy", apiVersion="projectcalico.org/v3"), 'a "GlobalNetworkPolicy" is not'),
    "Antrea's": (other(kind="ClusterNetworkPolicy", apiVersion="crd.antrea.io/v1beta1"), 'a ClusterNetworkPolicy of "crd.antrea.io/v1beta1"'),
    "small letters": (other(kind="networkpolicy"), 'a "networkpolicy" is not understood'),
    "a typo": (other(kind="NetworkPolcy"), "did you mean 'NetworkPolicy'?"),
    "plural": (other(kind="NetworkPolicies"), "did you mean 'NetworkPolicy'?"),
    "a pod of others": (other(kind="Pod", apiVersion="example.com/v1"), 'a Pod of "example.com/v1"'),
    "metadata": (other(metadata=[]), "metadata: a list is no object"),
    "namespace": (other(metadata={"namespace": 5}), "metadata.namespace: 5 is no text"),
    "name": (other(metadata={"name": "a\x1b[2J"}), "metadata.name: "),
    "labels": (other(kind="Pod", apiVersion="v1", metadata={"name": "a", "labels": {"v": 1.0}}), "metadata.labels.v: 1.0 is no text"),
    "labels as list": (other(kind="Namespace", apiVersion="v1", metadata={"name": "a", "labels": ["v"]}), "labels: a list is no object"),
    "an address": (other(kind="Pod", apiVersion="v1", status={"podIPs": [{"ip": "10.1.0"}]}), 'podIPs[0]: "10.1.0" is no address'),
    "addresses": (other(kind="Pod", apiVersion="v1", status={"podIPs": "10.1.0.7"}), "podIPs: "),
    "an old pod": (other(kind="Pod", apiVersion="v1", status={"podIP": 7}), "podIP: 7 is no text"),
    "a key twice": ("kind: NetworkPolicy\nspec: {podSelector: {}}\nspec: {}\n", "'spec' stands twice in one object, line 1"),
    "a key twice, JSON": ('{"kind": "NetworkPolicy", "spec": {"ingress": [], "ingress": [{}]}}', "stands twice"),
    "deep": ("[" * 5000, ""),
    "deep, JSON": ("[" * 100_000 + "]" * 100_000, ""),
    "deep, flow": ("a: " + "[" * 50_000 + "]" * 50_000, "line 1: is nested more than 100 levels deep"),
    "deep, flow objects": ("a: " + "{a: " * 50_000 + "}" * 50_000, "line 1: is nested more than 100 levels deep"),
    "deep, block": ("- " * 50_000 + "a", "line 1: is nested more than 100 levels deep"),
    "deep, block objects": ("".join(f"{' ' * at}a:\n" for at in range(2000)) + " " * 2000 + "a: b", "line 101: is nested more than"),
    "deep, keys": ("? " * 50_000 + "a", "is nested more than 100 levels deep"),
    "deep, second document": ("a: b\n---\n" + "- " * 50_000 + "a", "line 3: is nested more than 100 levels deep"),
    "another language": ("!!python/object/apply:os.system [id]\n", "line 1: the tag tag:yaml.org,2002:python/object/apply:os.system is"),
    **{
        f"tag {text}": (f"kind: Pod\na: {text}\n", "line 2: the tag ")
        for text in (
            '!!int ""', '!!int "-"', "!!int x", '!!float ""', '!!float "-"', "!!bool x", "!!null x", "!!timestamp x", "!!set [b]",
            "!!set {b}", "!!binary é", "!!binary x", "!!omap [b]", "!!omap 5", "!!pairs [5]", "!!merge x", "!!value x", "!!map {}",
            "!!seq []", "!!str []", "!!str {=: b}", "!own b", "!<tag:x> b", "! b",
        )
    },
    "a tag of a key": ('!!int "": b\n', "line 1: the tag "),
    "a tag of a document": ("--- !!set\na:\n", "line 1: the tag "),
    "laughs": (
        "a0: &a0 [x, x]\n" + "".join(f"a{at}: &a{at} [{', '.join([f'*a{at - 1}'] * 9)}]\n" for at in range(1, 12)),
        "grows by its aliases by more than 1000000 values",
    ),
    "laughs, merged": (
        "a0: &a0 {x: x}\n" + "".join(f"a{at}: &a{at} {{<<: [{', '.join([f'*a{at - 1}'] * 9)}]}}\n" for at in range(1, 12)),
        "grows by its aliases by more than 1000000 values",
    ),
    "within itself, merged": ("&a {<<: *a}\n", "line 1: *a stands within what it stands for"),
    "deep, by aliases": (
        "kind: Pod\na0: &a0 [x]\n" + "".join(f"a{at}: &a{at} [*a{at - 1}]\n" for at in range(1, 1400)) + "metadata: *a1399\n",
        "metadata: a list is no object",
    ),
    "an alias of nothing": ("kind: *a\n", "undefined alias"),
    "a day nobody had": ("a: 2024-02-30\n", ""),
    "recursion": ("&a {kind: List, items: [*a]}\n", "line 1: *a stands within what it stands for"),
}  # fmt: skip


@pytest.mark.parametrize(("content", "words"), UNREADABLE.values(), ids=UNREADABLE)
def test_what_says_nothing_that_can_be_is_named_and_nobody_is_let_in(put: Any, content: str | bytes, words: str):
    where = put(json.dumps(DENY), "deny.json")
    put(content, "wrong.yaml")
    for command in ("ADD", "STATUS", "REFRESH"):
        with pytest.raises(InvalidConfig) as caught:
            section_of({"policy": {"policyDir": str(where)}}, Call(command, args=CALL.args))
        assert caught.value.msg.startswith(f"policyDir: {where}/wrong.yaml: ")
        assert words in caught.value.msg
        assert caught.value.msg.isprintable()
    assert faults_in(f"folder {where}") == [caught.value.msg]
    for command in ("CHECK", "DEL", "GC"):
        assert section_of({"policy": {"policyDir": str(where)}}, Call(command)) == Policy()
    (where / "wrong.yaml").unlink()
    assert shut(where)
    put(content, "wrong.yaml")
    assert shut(where), "what could be read once holds"
    assert faults_in(f"folder {where}") == [caught.value.msg]


WHOLE = yaml.safe_dump(listing("List", DENY, version="v1"), sort_keys=True)


@pytest.mark.parametrize("at", range(0, WHOLE.index("kind: List"), 3))
def test_a_list_that_is_cut_anywhere_is_never_read_as_less(put: Any, at: int):
    with pytest.raises(InvalidConfig):
        book_of(f"folder {put(WHOLE[:at])}")


def test_other_kinds_are_nothing_to_us(put: Any):
    kinds = [
        "Service",
        "Ingress",
        "ConfigMap",
        "Deployment",
        "Node",
        "PodDisruptionBudget",
        "ServiceList",
        "NetworkSet",
    ]
    assert not shut(
        put(
            yaml.safe_dump_all(
                {"kind": kind, "apiVersion": "v1"} | ({"items": []} if "List" in kind else {}) for kind in kinds
            )
        )
    )


def test_one_object_twice_is_taken_once_and_two_of_one_name_are_refused(put: Any, tmp_path: Path):
    put(json.dumps(DENY), "a.json")
    assert shut(put(json.dumps(DENY | {"status": {"later": True}}), "b.json"))
    put(other(spec={"podSelector": {}, "ingress": [{}]}), "b.json")
    told = f"policyDir: {tmp_path}/b.json: NetworkPolicy shop/deny is another one than in {tmp_path}/a.json"
    assert faults_in(f"folder {tmp_path}") == [told]
    assert shut(tmp_path)
    (tmp_path / "a.json").unlink()
    found = section_of({"policy": {"policyDir": str(tmp_path)}}, CALL)
    assert found == Policy(ingress=(Allowance(),)), "nobody contradicts it any more"


@pytest.mark.parametrize("kind", ["folder", "pipe", "nowhere", "no file"])
def test_what_is_no_file_is_named_and_waits_for_nobody(tmp_path: Path, kind: str):
    odd = tmp_path / "odd.yaml"
    {
        "folder": odd.mkdir,
        "pipe": lambda: os.mkfifo(odd),
        "nowhere": lambda: odd.symlink_to("none"),
        "no file": lambda: odd.symlink_to("/dev/null"),
    }[kind]()
    began = time.monotonic()
    with pytest.raises(InvalidConfig, match=f"policyDir: {odd}"):
        book_of(f"folder {tmp_path}")
    assert time.monotonic() - began < 30


def test_a_folder_that_is_not_there_is_named(tmp_path: Path):
    (tmp_path / "file").write_text("")
    for name in ("nowhere", "file"):
        with pytest.raises(InvalidConfig, match=f"{name} is no folder"):
            book_of(f"folder {tmp_path / name}")


def test_a_file_that_vanishes_or_changes_between_two_looks_is_looked_at_again(
    put: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    put("a: [", "a.yaml")
    put(json.dumps(DENY), "b.json")
    real, looks = folder._content, []

    def racing(file: Path) -> bytes:
        looks.append(file.name)
        if len(looks) == 1:
            file.unlink()
        if len(looks) == 3:
            put(json.dumps(DENY, indent=2), "b.json")
        return real(file)

    monkeypatch.setattr(folder, "_content", racing)
    assert shut(tmp_path)
    assert looks == ["a.yaml", "b.json", "b.json", "b.json"] or looks[0] == "a.yaml"


def test_a_file_that_is_replaced_all_the_time_is_seen_whole(put: Any, tmp_path: Path):
    put(json.dumps(DENY), "a.json")
    done: list[bool] = []

    def replacing() -> None:
        while not done:
            put(json.dumps(DENY), "new.tmp")
            (tmp_path / "new.tmp").rename(tmp_path / "a.json")
            time.sleep(0.005)

    writer = Thread(target=replacing)
    writer.start()
    try:
        assert all(shut(tmp_path) for _ in range(50))
    finally:
        done.append(True)
        writer.join()


def test_within_one_run_a_folder_is_read_once(put: Any, tmp_path: Path):
    put(json.dumps(DENY))
    with reading_once():
        assert shut(tmp_path)
        put("a: [")
        assert shut(tmp_path)
    with reading_once():
        for _ in range(2):
            with pytest.raises(InvalidConfig, match="line 2"):
                book_of(f"folder {tmp_path}")
            put(json.dumps(DENY))
    assert shut(tmp_path)


def test_a_pod_without_a_name_is_not_attached_to_be_held_by_nothing(put: Any, tmp_path: Path):
    put(json.dumps(DENY))
    for args in ("", "K8S_POD_NAME=web-0", "K8S_POD_NAMESPACE=shop"):
        with pytest.raises(
            InvalidConfig, match=r"^\$\.policy\.policyDir: CNI_ARGS has no K8S_POD_NAMESPACE and K8S_POD_NAME"
        ) as caught:
            section_of({"policy": {"policyDir": str(tmp_path)}}, Call("ADD", args=args))
        assert str(tmp_path) in caught.value.msg
    assert section_of({"policy": {"policyDir": str(tmp_path)}}, Call("STATUS")) == Policy()


def test_what_is_wrong_with_a_policy_of_the_pods_namespace_is_in_the_log(
    put: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    told: list[dict[str, Any]] = []
    monkeypatch.setattr(
        config.log, "event", lambda plugin, verb, **facts: told.append(facts | {"plugin": plugin, "verb": verb})
    )
    put(json.dumps(listing("List", DENY | {"spec": {"podSelector": {}, "ingress": [{"form": []}]}})))
    far = DENY | {"metadata": {"namespace": "ops", "name": "far"}, "spec": {"ingress": 1}}
    put(json.dumps(far), "far.json")
    conf = {"type": "macvlan", "policy": {"policyDir": str(tmp_path)}}
    assert section_of(conf, CALL) == Policy(ingress=())
    line = f"policyDir: {tmp_path}/a.yaml: items[0]: NetworkPolicy shop/deny: spec.ingress[0].form: unknown field (did you mean 'from'?)"
    assert told == [{"plugin": "macvlan", "verb": "ADD", "pod": "shop/web-0", "faults": [line]}]
    assert [text.split(": NetworkPolicy ")[1][:8] for text in faults_in(f"folder {tmp_path}")] == [
        "shop/den",
        "ops/far:",
    ]


PIECES = [
    *("!!int ", "!!float ", "!!bool ", "!!set ", "!!timestamp ", "!!omap ", "!!str ", "!", "&a ", "*a ", "<<: ", "=: "),
    *("- ", "? ", ": ", "a: ", "{", "}", "[", "]", ", ", "\n", "\n  ", "\n---\n", "%", "|\n", ">\n", '""', "''", "#"),
    *(
        "0x_",
        "0b_",
        "0_",
        "1:1:1.",
        "._",
        "-",
        "+",
        ".inf",
        "~",
        "yes",
        "2024-02-30",
        "2024-01-01T00:00:00+99:99",
        "9" * 5000,
    ),
]


@settings(max_examples=500, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.lists(st.sampled_from(PIECES), max_size=12))
def test_whatever_a_text_is_it_is_objects_or_an_error_of_ours(put: Any, pieces: list[str]):
    where = put("".join(pieces))
    with reading_once():
        told = faults_in(f"folder {where}")
    assert all(line.startswith(f"policyDir: {where}/a.yaml: ") for line in told)


@pytest.mark.parametrize(
    "text", ["kind: Namespace\nx: .inf", "kind: Namespace\nx: -.INF", "{kind: Namespace, x: .nan}"]
)
def test_a_number_json_has_not_is_refused(tmp_path: Path, text: str):
    """It would be kept as what nobody reads again."""
    (tmp_path / "a.yaml").write_text(text)
    assert folder.read(tmp_path, {}).faults


def test_a_file_longer_than_anybody_writes_is_not_read(tmp_path: Path):
    with (tmp_path / "a.yaml").open("wb") as file:
        file.truncate(1 << 40)
    (fault,) = folder.read(tmp_path, {}).faults.values()
    assert "larger than 256 MiB" in fault


def test_a_file_is_read_where_there_is_little_room(tmp_path: Path):
    """The longest that may be is not asked of memory for one of some lines: beside other limits each call failed, code 999."""
    (tmp_path / "a.yaml").write_text(FOLDER)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (used + (64 << 20), before[1]))
    try:
        found = folder.read(tmp_path, {})
    finally:
        resource.setrlimit(resource.RLIMIT_AS, before)
    assert not found.faults
