"""What the kernel tells of rules that others changed; ours, and what is not about our tables, is passed over."""

from __future__ import annotations

import subprocess

from lab import ROOT, Host

LISTENING = """
import sys
from cni.kernel.rule_events import RuleEvents
events = RuleEvents()
print("listening", flush=True)
for line in sys.stdin:
    for changed in events.heard(0.3):
        print(changed.process, *sorted(changed.names), sep=";")
    print("", flush=True)
"""
OURS = "from cni.kernel import nftables; assert nftables.run({!r}).done"
TABLE = "add table inet agent_cni_policy; add chain inet agent_cni_policy in-1; add rule inet agent_cni_policy in-1 drop; add set inet agent_cni_policy s { type ipv4_addr; }"


def heard(process: subprocess.Popen[str]) -> list[str]:
    assert process.stdin
    assert process.stdout
    process.stdin.write("now\n")
    process.stdin.flush()
    return list(iter(lambda: process.stdout.readline().strip(), ""))


def python(host: Host, text: str) -> None:
    host.run(ROOT / ".venv/bin/python3", "-c", text)


def test_only_what_others_do_to_our_tables_is_told(host: Host):
    with host.start(ROOT / ".venv/bin/python3", "-c", LISTENING) as process:
        assert process.stdout
        assert process.stdout.readline() == "listening\n"
        python(host, OURS.format(TABLE))
        assert heard(process) == []
        host.run("nft", "add table inet other; add chain inet other c; delete table inet other")
        assert heard(process) == []
        host.run("nft", "add element inet agent_cni_policy s { 192.0.2.1 }")
        assert heard(process) == ["nft;set inet agent_cni_policy s"]
        host.run("nft", "flush chain inet agent_cni_policy in-1")
        assert heard(process) == ["nft;chain inet agent_cni_policy in-1"]
        host.run("nft", "flush ruleset")
        assert heard(process) == [
            "nft;chain inet agent_cni_policy in-1;set inet agent_cni_policy s;table inet agent_cni_policy"
        ]
        process.stdin.close()
