"""What show, doctor and metrics say of the names of this node's pods."""

from __future__ import annotations

import json
from contextlib import nullcontext
from pathlib import Path
from typing import Any

import pytest

from cni.command.doctor import named
from cni.kernel import hostsdir, process
from cni.kernel.hostsdir import CONF, NOT_PROBED, Entry
from cni.member import census, exposition
from cni.naming import Attachment
from cni.state.daemons import NAMES, alone

PROBE = '{"tcp": 80}'


@pytest.fixture(autouse=True)
def pods() -> None:
    for name, health, unhealthy in (
        ("db", "", ""), ("new", PROBE, NOT_PROBED), ("well", PROBE, ""), ("sick", PROBE, "2026-01-01 00:00:00 UTC: port 80: Connection refused"),
    ):  # fmt: skip
        made = Entry(
            Attachment("net", name, "eth0"),
            ("10.1.0.2", "fd00::2"),
            (f"{name}.net", name),
            f"shop/{name}",
            health,
            unhealthy,
        )
        hostsdir.put(made.path, made.text)
    hostsdir.put(hostsdir.FOLDER / "net" / CONF, "#domain net\n")
    hostsdir.put(hostsdir.FOLDER / ".consul", "[]")


def test_show_says_how_each_is_and_why(agent: Any, folder: Path):
    folder.mkdir()
    shown = json.loads(agent("show", "--json", "--data-dir", folder).out)["names"]
    assert {(row["container"], row["health"], row["why"].partition("UTC: ")[2]) for row in shown} == {
        ("db", "not probed", ""), ("new", "not yet", ""), ("well", "healthy", ""), ("sick", "unhealthy", "port 80: Connection refused"),
    }  # fmt: skip
    assert {key: shown[0][key] for key in ("network", "ifname", "addresses")} == {
        "network": "net", "ifname": "eth0", "addresses": ["10.1.0.2", "fd00::2"],
    }  # fmt: skip
    text = agent("show", "--data-dir", folder).out
    assert "sick.net, sick" in text
    assert "port 80: Connection refused" in text


def test_figures_count_those_that_are_probed_and_not_answered():
    text = exposition.text(census.of_node()).decode()
    for line in ('names_pods{network="net"} 4', 'names_probed{network="net"} 3', 'names_unhealthy{network="net"} 2'):
        assert f"agent_cni_{line}\n" in text


@pytest.mark.parametrize(
    ("installed", "runs", "there", "said", "mend"),
    [
        (False, False, [], "dnsmasq is not installed: nobody answers names of net", "apt-get install dnsmasq-base"),
        (True, False, [], "nobody keeps a server for names of net, or probes their pods", "systemctl start agent-cni-names.service, or agent-cni names"),
        (True, True, [], "no dnsmasq answers names of net", "why: journalctl -u agent-cni-names, or /var/log/agent-cni/names.log"),
        (True, True, [7], "", ""),
    ],
)  # fmt: skip
def test_the_doctor_says_who_is_missing(
    monkeypatch: pytest.MonkeyPatch, installed: bool, runs: bool, there: list[int], said: str, mend: str
):
    monkeypatch.setattr(process, "find", lambda name, before="": f"/sbin/{name}" if installed else None)
    monkeypatch.setattr(process, "running", lambda program, word: iter(there))
    with alone(NAMES) if runs else nullcontext():
        assert [tuple(item) for item in named.faults()] == ([(said, mend)] if said else [])


def test_the_doctor_names_a_consul_that_is_away(monkeypatch: pytest.MonkeyPatch):
    hostsdir.put(hostsdir.FOLDER / "net" / CONF, "#domain net\n#consul http://127.0.0.1:9\n")
    monkeypatch.setattr(process, "running", lambda program, word: iter([7]))
    monkeypatch.setattr(process, "find", lambda name, before="": f"/sbin/{name}")
    with alone(NAMES):
        (fault,) = named.faults()
    assert fault.line.startswith("pods are not registered with Consul: http://127.0.0.1:9: no connection")


def test_a_node_without_names_has_nothing_to_be_mended():
    hostsdir.drop([hostsdir.FOLDER / "net" / CONF])
    assert [*named.faults()] == []
