"""What an operator hears of the DNS gate: whether it works, what it lost, and what is left of it."""

from __future__ import annotations

import json
import sqlite3
from contextlib import ExitStack
from typing import Any

from lab import AGENT_CNI, Host, Lab
from resolver import Gate
from town import Town

WEB = {"egress": [{"to": [{"domainNames": ["api.example.com"]}], "ports": [{"port": 80}]}]}


def said(host: Host, area: str) -> list[dict[str, Any]]:
    return json.loads(host.run(AGENT_CNI, "doctor", "--json", check=False).stdout)[area]


def causes(host: Host) -> list[tuple[str, list[str]]]:
    return [(item["cause"], item["pods"]) for item in said(host, "dnsgate")]


def test_a_gate_that_is_away_or_hangs_is_told_with_the_pods_that_wait(lab: Lab, host: Host):
    with ExitStack() as held:
        town = Town(host, lab, "routed", held)
        assert causes(host) == []
        town.member(WEB)
        ((cause, pods),) = causes(host)
        assert (cause, len(pods)) == ("gate-absent", 1)
        assert host.run(AGENT_CNI, "dnsgate", "--probe", check=False).returncode == 1
        with Gate(host):
            assert causes(host) == []
            assert host.run(AGENT_CNI, "dnsgate", "--probe").stdout == "a DNS gate judges what pods of this host ask\n"
        assert [cause for cause, _ in causes(host)] == ["gate-absent"]


def test_what_is_left_of_a_pod_that_nobody_knows_is_told_and_its_mends_take_it_away(lab: Lab, host: Host):
    with ExitStack() as held:
        town = Town(host, lab, "bridged", held)
        known, lost = town.member(WEB), town.member(WEB)
        assert said(host, "leftovers") == []
        forgotten(host, lost.pod.name)
        mends = [item["mend"] for item in said(host, "leftovers") if "DNS" in item["what"]]
        assert [mend.split()[0] for mend in mends] == ["rm", "nft"]
        for mend in mends:
            host.run("sh", "-c", mend)
        assert [item for item in said(host, "leftovers") if "DNS" in item["what"]] == []
        assert host.cni("CHECK", known.conf | {"prevResult": known.result}, known.pod).code == 0
        forgotten(host, known.pod.name)
        ours = [item["mend"] for item in said(host, "leftovers") if "agent_cni_dns" in item["what"]]
        assert ours == ["nft delete table inet agent_cni_dns"]


def forgotten(host: Host, pod: str) -> None:
    """As by a state that was lost."""
    with sqlite3.connect(host.folder / "state.db") as state:
        done = state.execute("DELETE FROM attachment WHERE netns LIKE ?", (f"%{pod}",))
    assert done.rowcount == 1
