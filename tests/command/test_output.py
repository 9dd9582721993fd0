"""Texts of runtimes and pods on an operator's terminal: printed, and never obeyed."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any
from xml.etree import ElementTree as ET

import pytest

from cni.command.output import shown
from cni.naming import Attachment
from cni.state import Record, Store

EVIL = "shop/\x1b[2J\x07\x9b1m\r\n<&\"'\u202e\x7f"


def harmless(text: str) -> bool:
    return all(char.isprintable() or char == "\n" for char in text)


@pytest.fixture
def evil(folder: Path, attach: Callable[..., Record], log_folder: Path) -> Record:
    """An attachment and its log line with such texts wherever a runtime may put them."""
    record = attach("abc1", "10.1.0.5")
    bad = record.having(
        attachment=Attachment("pods", "abc2", "eth0"),
        pod=EVIL,
        netns=f"/nowhere/{EVIL.encode('ascii', 'ignore').decode()}",
    )
    store = Store.open(folder)
    with store.transaction():
        store.put(bad)
    store.close()
    log_folder.mkdir()
    line = {
        "time": "2026",
        "plugin": "bridge-vxlan",
        "verb": "ADD",
        "container": "abc2",
        "error": EVIL,
        "network": EVIL + "\udcff\ud800",
    }
    (log_folder / "bridge-vxlan.log").write_text(json.dumps(line) + "\n" + '{"container": "abc2", "seconds": NaN}\n')
    return bad


@pytest.mark.usefixtures("evil")
@pytest.mark.parametrize(
    "argv",
    [
        ("show",),
        ("show", "--json"),
        ("show", "--graph", "-"),
        ("ipam",),
        ("ipam", "10.1.0.5"),
        ("ipam", "10.1.0.5", "--json"),
        ("trace", "abc2"),
        ("trace", "abc2", "--json"),
        ("trace", "\x1b[2J"),
        ("refresh",),
        ("gc",),
        ("doctor",),
        ("doctor", "--json"),
        ("validate", "/nowhere/\x1b[2J"),
    ],
    ids=" ".join,
)
def test_no_command_prints_what_a_terminal_obeys(agent: Any, folder: Path, argv: tuple[str, ...]):
    own = ("--data-dir", folder) if argv[0] in ("show", "gc", "refresh", "ipam", "doctor") else ()
    said = agent(*argv, *own)
    assert harmless(said.out)
    assert harmless(said.err)
    if "--json" in argv:
        json.loads(said.out, parse_constant=pytest.fail)


@pytest.mark.usefixtures("evil")
def test_the_name_is_still_to_be_read(agent: Any, folder: Path):
    out = agent("show", "--data-dir", folder).out
    assert r"shop/\x1b[2J\x07\x9b1m\r\n<&" in out
    assert r"\u202e\x7f" in out


@pytest.mark.usefixtures("evil")
def test_json_keeps_the_name_as_it_is(agent: Any, folder: Path):
    shown_pods = [item["pod"] for item in json.loads(agent("show", "--json", "--data-dir", folder).out)["attachments"]]
    assert EVIL in shown_pods


@pytest.mark.usefixtures("evil")
def test_a_drawing_is_well_formed(agent: Any, folder: Path, tmp_path: Path):
    assert agent("show", "--graph", tmp_path / "node.svg", "--data-dir", folder).status == 0
    ET.fromstring((tmp_path / "node.svg").read_text())


@pytest.mark.parametrize("command", ["validate", "explain"])
def test_keys_and_values_of_a_file_are_printed_safely(agent: Any, write: Any, command: str):
    conf = {"cniVersion": "1.1.0", "name": "pods", "type": "bridge-vxlan", "\x1b[2J": "\x1b[2J", "bridge": "a\x1bb"}
    said = agent(command, write(conf))
    assert said.status == 1
    assert harmless(said.out + said.err)


def test_what_prints_is_left_alone():
    assert shown("größe ☃ 10.1.0.5/24 \\ 'x'") == "größe ☃ 10.1.0.5/24 \\ 'x'"
