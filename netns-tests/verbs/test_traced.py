"""A call that is part of somebody's trace: its line in the log says of which, and whoever is asked for addresses is told, too."""

from __future__ import annotations

import json
from pathlib import Path

from lab import AGENT_CNI, BIN_DIR, Host, Pod, sh

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CARRIED = {
    "TRACEPARENT": f"00-{TRACE}-00f067aa0ba902b7-01",
    "TRACESTATE": "vendor=1",
    "BAGGAGE": "tenant=a,ring=2",
}
#: Answers as an IPAM, and notes who it was told it is a part of.
DELEGATE = """#!/bin/sh
cat >/dev/null; echo "$CNI_COMMAND $TRACEPARENT $TRACESTATE $BAGGAGE" >>{notes}
[ $CNI_COMMAND != ADD ] || echo '{{"cniVersion": "1.1.0", "ips": [{{"address": "10.1.0.9/24"}}]}}'
"""


def lines_of(pod: Pod) -> list[dict[str, str]]:
    return json.loads(sh(AGENT_CNI, "trace", pod.container, "--json").stdout)


def test_the_log_says_of_which_trace_a_call_is(settled: Host, pod: Pod, conf: dict):
    settled.add(conf, pod, **CARRIED)
    settled.delete_pod(conf, pod)
    added, deleted = lines_of(pod)
    carried = {"trace_id": TRACE, **{name.lower(): value for name, value in CARRIED.items()}}
    assert {key: added[key] for key in carried} == carried
    assert not carried.keys() & deleted.keys()
    found = json.loads(sh(AGENT_CNI, "trace", TRACE, "--json").stdout)
    assert added in found
    assert deleted not in found


def test_so_does_the_line_of_one_that_failed(settled: Host, pod: Pod, conf: dict):
    said = settled.cni("ADD", conf | {"mtu": 9}, pod, **CARRIED)
    assert said.code
    assert [line["traceparent"] for line in lines_of(pod)] == [CARRIED["TRACEPARENT"]]
    assert json.loads(said.stderr)["trace_id"] == TRACE


def test_a_delegate_is_told(settled: Host, pod: Pod, conf: dict, tmp_path: Path):
    notes, delegate = tmp_path / "notes", tmp_path / "noting"
    delegate.write_text(DELEGATE.format(notes=notes))
    delegate.chmod(0o755)
    foreign, env = conf | {"ipam": {"type": "noting"}}, CARRIED | {"CNI_PATH": f"{BIN_DIR}:{tmp_path}"}
    settled.add(foreign, pod, **env)
    settled.delete_pod(foreign, pod, **env)
    told = " ".join(CARRIED.values())
    assert notes.read_text().splitlines() == [f"ADD {told}", f"DEL {told}"]
