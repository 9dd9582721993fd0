from __future__ import annotations

from typing import Any

import pytest

from cni.errors import DecodingFailure, IncompatibleVersion, InvalidConfig
from cni.protocol.config import folded, parse, refuse_wrong_header, version_of
from cni.protocol.schema import schema_of
from cni.protocol.versions import SUPPORTED


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"{",
        b"nonsense",
        b'{"a": 1} x',
        b'{"mtu": NaN}',
        b'{"mtu": Infinity}',
        b'{"mtu": -Infinity}',
        b'{"a": "\xff"}',
        b"[" * 100_000,
        b'{"a":' * 100_000,
        b'{"mtu": ' + b"9" * 5000 + b"}",
    ],
    ids=[
        *("empty", "cut off", "a word", "trailing text", "NaN", "Infinity", "-Infinity", "not UTF-8"),
        *("deep arrays", "deep objects", "a number without end"),
    ],
)
def test_what_is_no_json_is_refused(text: bytes):
    with pytest.raises(DecodingFailure, match=r"^stdin: the network configuration is (not JSON: |nested too deeply)"):
        parse(text)


@pytest.mark.parametrize(
    ("text", "kind"),
    [(b"[]", "an array"), (b'"x"', "a string"), (b"null", "null"), (b"5", "a number"), (b"true", "a boolean")],
)
def test_what_is_no_object_is_refused_by_its_kind(text: bytes, kind: str):
    with pytest.raises(DecodingFailure, match=f"^stdin: the network configuration is {kind}, not an object$"):
        parse(text)


def test_an_object_is_decoded():
    assert parse(b'{"name": "n\\u00e9"}') == parse('{"name": "né"}'.encode()) == {"name": "né"}


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_what_go_does_not_read_is_refused(encoding: str):
    with pytest.raises(DecodingFailure, match=r"^stdin: the network configuration is not JSON: "):
        parse('{"name": "né"}'.encode(encoding))


def test_a_number_without_end_is_refused_in_our_words():
    with pytest.raises(DecodingFailure, match=r": a number of 5000 digits$"):
        parse(b"[" + b"9" * 5000 + b"]")


@pytest.mark.parametrize("version", SUPPORTED)
def test_every_supported_version_is_taken(version: str):
    assert version_of({"cniVersion": version}) == version


@pytest.mark.parametrize("conf", [{}, {"cniVersion": ""}, {"cniVersion": None}], ids=["absent", "empty", "null"])
def test_no_version_means_the_first_as_in_libcni(conf: dict[str, Any]):
    assert version_of(conf) == "0.1.0"


@pytest.mark.parametrize("version", ["0.5.0", "1.0", "v1.0.0", "1.0.0\n", "2.0.0", 1.0, ["1.0.0"], True], ids=repr)
def test_other_versions_are_refused_with_the_supported_ones(version: Any):
    with pytest.raises(IncompatibleVersion) as caught:
        version_of({"cniVersion": version})
    assert repr(version) in caught.value.msg
    assert caught.value.details == f"supported: {', '.join(SUPPORTED)}"


@pytest.mark.parametrize(("version", "verb"), [("0.3.1", "CHECK"), ("1.0.0", "GC"), ("1.0.0", "STATUS"), ("", "CHECK")])
def test_a_verb_its_version_lacks_is_refused(version: str, verb: str):
    with pytest.raises(IncompatibleVersion, match=f"has no {verb}"):
        refuse_wrong_header({"cniVersion": version, "name": "pods"}, verb)


@pytest.mark.parametrize(
    ("version", "verb"), [("0.1.0", "ADD"), ("0.1.0", "DEL"), ("0.4.0", "CHECK"), ("1.1.0", "GC"), ("1.1.0", "STATUS")]
)
def test_a_verb_its_version_knows_passes(version: str, verb: str):
    refuse_wrong_header({"cniVersion": version, "name": "pods"}, verb)


@pytest.mark.parametrize("name", [None, "", 0], ids=["null", "empty", "zero"])
def test_a_missing_name_is_refused(name: Any):
    with pytest.raises(InvalidConfig, match=r"^\$\.name: .*missing"):
        refuse_wrong_header({"cniVersion": "1.0.0", "name": name}, "ADD")


@pytest.mark.parametrize("name", ["pods\n", "a/b", "../x", "-a", "a b", "é", 5, ["a"]], ids=ascii)
def test_other_names_are_refused(name: Any):
    with pytest.raises(InvalidConfig, match=r"^\$\.name: "):
        refuse_wrong_header({"cniVersion": "1.0.0", "name": name}, "ADD")


@pytest.mark.parametrize(
    ("mapping", "found"),
    [({"ips": 1}, 1), ({"IPs": 1}, 1), ({"IPS": 1}, 1), ({"ip": 1}, None), ({}, None), (None, None)],
    ids=repr,
)
def test_runtime_keys_are_found_in_any_case(mapping: dict[str, int] | None, found: int | None):
    assert folded(mapping, "ips") == found


@pytest.mark.parametrize("plugin", ["bridge-vxlan", "agent-ipam"])
def test_schemas_are_schemas_and_hold_the_runtimes_keys(plugin: str):
    from jsonschema import Draft202012Validator

    schema = schema_of(plugin)
    Draft202012Validator.check_schema(schema)
    assert {"cniVersion", "name", "type", "runtimeConfig", "prevResult"} <= set(schema["properties"])


def test_every_key_of_a_schema_is_described():
    properties = schema_of("bridge-vxlan")["properties"]
    assert [key for key, schema in properties.items() if not {"description", "unsupported"} & set(schema)] == []


@pytest.mark.parametrize("text", ["1e400", "-1e400", "9" * 309, '{"a": [1e309]}'])
def test_a_number_that_go_cannot_hold_is_refused(text: str):
    with pytest.raises(DecodingFailure, match=r"a number"):
        parse(f'{{"name": "a", "mtu": {text}}}'.encode())


@pytest.mark.parametrize("depth", [100, 990, 100_000])
@pytest.mark.parametrize(("left", "right"), [("[", "]"), ('{"a":', "}")])
def test_deep_nesting_is_refused_before_anything_walks_it(depth: int, left: str, right: str):
    with pytest.raises(DecodingFailure, match="nested more than 100 levels deep"):
        parse(f'{{"args": {left * depth}1{right * depth}}}'.encode())


def test_nesting_that_somebody_may_want_is_taken():
    assert parse(f'{{"args": {"[" * 90}{"]" * 90}, "more": [{"[]," * 200} 1]}}'.encode())
