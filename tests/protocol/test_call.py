from __future__ import annotations

import pytest

from cni.errors import InvalidConfig, InvalidEnvironment
from cni.protocol.call import Call, refuse_bad_ifname

WHOLE = {
    "CNI_CONTAINERID": "c1",
    "CNI_NETNS": "/run/netns/c1",
    "CNI_IFNAME": "eth0",
    "CNI_PATH": "/opt/cni/bin:/usr/lib/cni",
}
NEEDED = {
    "ADD": list(WHOLE),
    "CHECK": list(WHOLE),
    "DEL": ["CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"],
    "GC": ["CNI_PATH"],
    "STATUS": ["CNI_PATH"],
}


def environ(verb: str = "ADD", **changes: str) -> dict[str, str]:
    return {"CNI_COMMAND": verb, **WHOLE, **changes}


@pytest.mark.parametrize("verb", [*NEEDED, "VERSION"])
def test_each_verb_is_read_from_its_whole_environment(verb: str):
    call = Call.read(environ(verb, CNI_ARGS="IP=10.1.0.5"))
    assert (call.command, call.container, call.netns, call.ifname) == (verb, "c1", "/run/netns/c1", "eth0")
    assert (call.args, call.path) == ("IP=10.1.0.5", ("/opt/cni/bin", "/usr/lib/cni"))


@pytest.mark.parametrize(("verb", "name"), [(verb, name) for verb, names in NEEDED.items() for name in names])
@pytest.mark.parametrize("empty", [False, True], ids=["absent", "empty"])
def test_a_missing_variable_is_named(verb: str, name: str, empty: bool):
    given = environ(verb) | {name: ""}
    if not empty:
        del given[name]
    with pytest.raises(InvalidEnvironment, match=rf"^{verb} needs {name} in the environment$"):
        Call.read(given)


@pytest.mark.parametrize(("verb", "names"), NEEDED.items())
def test_all_missing_variables_are_named_together(verb: str, names: list[str]):
    with pytest.raises(InvalidEnvironment, match=f"^{verb} needs {', '.join(names)} in"):
        Call.read({"CNI_COMMAND": verb})


def test_version_needs_nothing_but_its_name():
    assert Call.read({"CNI_COMMAND": "VERSION"}).command == "VERSION"


def test_del_needs_no_netns():
    given = environ("DEL")
    del given["CNI_NETNS"]
    assert Call.read(given).netns == ""


@pytest.mark.parametrize("verb", ["GC", "STATUS", "VERSION"])
def test_verbs_without_an_attachment_do_not_judge_its_variables(verb: str):
    assert Call.read(environ(verb, CNI_CONTAINERID="../x", CNI_IFNAME="much too long a name")).command == verb


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({}, "CNI_COMMAND: '' is none of"),
        ({"CNI_COMMAND": ""}, "CNI_COMMAND: '' is none of"),
        ({"CNI_COMMAND": "add"}, "'add' is none of ADD, CHECK, DEL, GC, STATUS, VERSION"),
        ({"CNI_COMMAND": "ADD\n"}, r"'ADD\\n' is none of"),
    ],
    ids=["absent", "empty", "lower case", "trailing newline"],
)
def test_a_wrong_verb_is_refused(given: dict[str, str], said: str):
    with pytest.raises(InvalidEnvironment, match=said):
        Call.read(given)


@pytest.mark.parametrize("container", ["c", "0", "a.b_c-d", "A" * 300])
def test_container_ids_of_the_specification_are_taken(container: str):
    assert Call.read(environ(CNI_CONTAINERID=container)).container == container


@pytest.mark.parametrize(
    "container", ["../x", "a/b", ".", "-a", "_a", ".a", "a b", "a\n", "\n", "a\0", "é", "a:b", "a\udcff"], ids=ascii
)
@pytest.mark.parametrize("verb", ["ADD", "CHECK", "DEL"])
def test_other_container_ids_are_refused(verb: str, container: str):
    with pytest.raises(InvalidEnvironment, match=r"^CNI_CONTAINERID: "):
        Call.read(environ(verb, CNI_CONTAINERID=container))


@pytest.mark.parametrize(
    "name",
    ["e", "a" * 15, "é" * 7 + "a", "eth0.100", "...", "a@b", "net-1_2"],
    ids=lambda name: f"{len(name)} {name!a}",
)
def test_interface_names_of_the_kernel_are_taken(name: str):
    assert Call.read(environ(CNI_IFNAME=name)).ifname == name


@pytest.mark.parametrize(
    "name",
    [
        "a" * 16,
        "é" * 8,
        "日本語日本語",
        ".",
        "..",
        "a/b",
        "/",
        "a b",
        "a\t",
        "eth0\n",
        "a:b",
        "a\0b",
        "a\x7f",
        "a\u2028b",
        "a%d",
    ],
    ids=ascii,
)
def test_other_interface_names_are_refused(name: str):
    with pytest.raises(InvalidEnvironment, match=r"^CNI_IFNAME: "):
        Call.read(environ(CNI_IFNAME=name))


def test_an_interface_name_elsewhere_is_blamed_where_it_stands():
    with pytest.raises(InvalidConfig, match=r"^\$\.bridge: 'a{16}' is longer than 15 bytes$"):
        refuse_bad_ifname("a" * 16, "$.bridge", InvalidConfig)


@pytest.mark.parametrize(
    ("text", "pairs"),
    [
        ("", {}),
        (";", {}),
        ("IP=10.1.0.5", {"IP": "10.1.0.5"}),
        ("IP=", {"IP": ""}),
        ("IP=10.1.0.5;MAC=0a:58:0a:01:00:05;", {"IP": "10.1.0.5", "MAC": "0a:58:0a:01:00:05"}),
        ("K8S_POD_NAMESPACE=a;K8S_POD_NAME=b", {"K8S_POD_NAMESPACE": "a", "K8S_POD_NAME": "b"}),
        ("Foo=1;IgnoreUnknown=1", {"Foo": "1", "IgnoreUnknown": "1"}),
        ("IgnoreUnknown=true;Foo=1", {"Foo": "1", "IgnoreUnknown": "true"}),
    ],
)
def test_cni_args_are_read(text: str, pairs: dict[str, str]):
    assert Call("ADD", args=text).arguments() == pairs


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("IP", "'IP' is not KEY=VALUE"),
        ("=1", "'=1' is not KEY=VALUE"),
        ("IP=10.1.0.5;junk;IgnoreUnknown=1", "'junk' is not KEY=VALUE"),
        ("Foo=1;Bar=2", "unknown Foo, Bar and no IgnoreUnknown=1"),
        ("Foo=1;IgnoreUnknown=0", "unknown Foo"),
        ("Foo=1;IgnoreUnknown=false", "unknown Foo"),
    ],
)
def test_other_cni_args_are_refused(text: str, said: str):
    with pytest.raises(InvalidEnvironment, match=f"^CNI_ARGS: {said}"):
        Call("ADD", args=text).arguments()


@pytest.mark.parametrize(
    ("text", "pod"),
    [
        ("IgnoreUnknown=1;K8S_POD_NAMESPACE=default;K8S_POD_NAME=web-0;K8S_POD_UID=9", "default/web-0"),
        ("K8S_POD_NAME=web-0", ""),
        ("K8S_POD_NAMESPACE=default", ""),
        ("K8S_POD_NAMESPACE=;K8S_POD_NAME=web-0", ""),
        ("", ""),
        ("junk;;=;K8S_POD_NAMESPACE=a;K8S_POD_NAME=b", "a/b"),
    ],
)
def test_the_pod_is_told_by_cni_args_however_odd_they_are(text: str, pod: str):
    assert Call("DEL", args=text).pod == pod


@pytest.mark.parametrize(("value", "allowed"), [("", False), ("0", False), ("1", True), ("true", True), ("TRUE", True)])
def test_own_netns_is_allowed_as_libcni_does(value: str, allowed: bool):
    assert Call.read(environ(CNI_NETNS_OVERRIDE=value)).own_netns_allowed is allowed


def test_having_changes_only_what_is_named():
    call = Call.read(environ())
    changed = call.having(container="c2")
    assert (changed.container, changed.ifname, changed.path, call.container) == ("c2", "eth0", call.path, "c1")


UNRULY = ['a"b', '"', "a'b", "a`b", "a\\b", "a;b", "a#b", "a{b", "a}b", "eth+", "+", "eth*", "*", "!eth0", "!", "-eth0"]
RULY = ["eth0", "a+b", "a*b", "a!b", "a-b", "br-1.100", "veth@x", "eth0,", "é", "a=b", "_", "a?", "$x", "(a)", "~"]


@pytest.mark.parametrize("name", UNRULY)
def test_a_name_that_rules_would_read_otherwise_is_refused_at_an_add_only(name: str):
    with pytest.raises(InvalidEnvironment, match=r"^CNI_IFNAME: .* would mean something else in a packet rule$"):
        Call.read(environ(CNI_IFNAME=name))
    for verb in ("CHECK", "DEL"):
        assert Call.read(environ(CNI_COMMAND=verb, CNI_IFNAME=name)).ifname == name


@pytest.mark.parametrize("name", RULY)
def test_a_name_that_rules_can_carry_is_taken(name: str):
    assert Call.read(environ(CNI_IFNAME=name)).ifname == name


@pytest.mark.parametrize("variable", ["CNI_ARGS", "CNI_NETNS", "CNI_IFNAME", "CNI_CONTAINERID"])
def test_bytes_that_are_no_utf_8_are_refused_by_name(variable: str):
    given = environ(**{variable: "K8S_POD_NAME=a\udcffb"})
    with pytest.raises(InvalidEnvironment, match=f"^{variable}: "):
        Call.read(given)


@pytest.mark.parametrize("verb", ["CHECK", "DEL", "GC"])
def test_what_an_add_does_not_take_leads_nowhere(verb: str):
    """Nothing is recorded of it, and no file can be asked for it."""
    call = Call.read(environ(verb, CNI_ARGS="K8S_POD_NAME=\udcff;K8S_POD_NAMESPACE=a", CNI_NETNS="/run/\udcff"))
    assert "\ufffd" in call.netns
    assert "\ufffd" in call.pod
    assert (call.netns + call.args).encode()


@pytest.mark.threat
@pytest.mark.parametrize("name", ["a\n10.0.0.9 bank.example", "a\0b", "\x1b[2J", "a\tb"])
def test_a_pod_is_not_called_what_ends_a_line(name: str):
    """Its name comes into files of lines, beside what its network is answered."""
    with pytest.raises(InvalidEnvironment, match=r"^CNI_ARGS: .*control characters"):
        Call.read(environ(CNI_ARGS=f"K8S_POD_NAMESPACE=shop;K8S_POD_NAME={name}"))
    assert Call.read(environ("DEL", CNI_ARGS=f"K8S_POD_NAME={name}")).args
