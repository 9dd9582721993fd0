#!/usr/bin/env python3
"""The blocks of the documentation, line by line: what somebody who reads a page would type or write, and what is said of it.

`tools/blocks.py` lists the lines that no test runs, and why. `tests/test_docs.py` holds that table to the pages, and
`netns-tests/pages/test_blocks.py` runs all others.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")])
#: Kinds of blocks that are typed, and the kind that is a configuration; those of no kind are pictures of letters.
TYPED, WRITTEN = ("sh", "console"), ("json",)

#: Lines that no test of blocks runs, by how they begin, and by whom they are run, or why they are not.
NOT_RUN = {
    "make demo": "the demonstration is a test of its own, which takes a minute",
    "make test": "it runs this",
    "make .venv/ready": "tests, which run as they run this",
    "make install DESTDIR=": "make image-test bakes an image so",
    "kubectl ": "takes a Kubernetes: make kube-test",
    "ip link delete flannel.1": "takes a cluster with flannel: tools/kube/kube.py check flannel migrated",
    "for program in iptables ip6tables": "the same",
    "$program -D FORWARD": "the same",
    "$program -t nat -D POSTROUTING": "the same",
    "done": "the same",
    "rm -rf /etc/cni/net.d/10-flannel.conflist": "the same",
    "curl -s 127.0.0.1:9402/readyz": "a member in Kubernetes: make kube-test",
    "agent-cni install --root /mnt/image": "netns-tests/installation/test_install.py installs into roots",
    "agent-cni install --as bridge --as host-local --bin-dir /opt/agent/bin": "netns-tests/runtimes/test_lists.py, make podman-test",
    "nerdctl ": "make nerdctl-test",
    "agent-cni join --etcd https://": "three etcds with TLS: netns-tests/cluster/test_store.py",
    "agent-cni join --uplinks": "hosts with two links: netns-tests/cluster/test_uplinks.py",
    "agent-cni join --metrics 192.0.2.11": "certificates of somebody's authority: tests/member/test_metrics_tls.py",
    "curl -s --cacert ca.crt": "the same",
    "agent-cni reach": "it needs two pods: netns-tests/command/test_reach.py",
    "agent-cni flows": "it needs flows: netns-tests/flows/test_flows.py",
    "systemctl enable --now agent-cni-flows": "it starts a daemon: netns-tests/installation/test_systemd.py",
    "etcdctl ": "it asks for a password: netns-tests/cluster/test_store.py has an etcd with users",
    "tools/isolated .venv/bin/python3 tools/simulate.py": "it takes figures, on a quiet machine",
}

#: Configurations that are no plugin's, likewise.
NOT_ADDED = dict.fromkeys(('{"otlp"', '{"flows"'), "agent.json: tests/agent/test_settings.py")


@dataclass(frozen=True)
class Block:
    """A fenced block: its page, what kind it is, the line of text before it, and its lines."""

    page: str
    kind: str
    lead: str
    lines: list[str] = field(hash=False)

    @property
    def text(self) -> str:
        return "\n".join(self.lines) + "\n"


@dataclass
class Typed:
    """A line that is typed somewhere, and what the page shows of the answer."""

    where: str
    command: str
    answer: list[str]

    @property
    def why_not(self) -> str:
        """Why no test of blocks runs it; empty where one does."""
        return next((why for begins, why in NOT_RUN.items() if self.command.startswith(begins)), "")


def blocks(page: Path) -> list[Block]:
    """The fenced blocks of a page in their order."""
    found, lead, block = [], "", None
    for line in page.read_text().splitlines():
        fence = re.fullmatch(r"\s*```(\w*)", line)
        if fence and block is None:
            block = Block(str(page.relative_to(ROOT)), fence[1], lead, [])
            found.append(block)
        elif fence:
            block = None
        elif block is not None:
            block.lines.append(line.strip() if block.kind in TYPED else line)
        elif line.strip():
            lead = line
    return found


def typed(block: Block) -> Iterator[Typed]:
    """What is typed of a block; a prompt says on which host: ``$`` on the page's own, ``other$`` on another."""
    last = None
    for line in block.lines if block.kind in TYPED else ():
        prompt = re.match(r"(\w*)\$ ", line) if block.kind == "console" else re.match("(?=.)()", line)
        if prompt:
            last = Typed(prompt[1], line[prompt.end() :], [])
            yield last
        elif last and line:
            last.answer.append(line)


def written(block: Block) -> tuple[str, str]:
    """The file that a configuration is, by the text before it, and on which host; empty where it is none."""
    said = re.search(r"`(/[^`]+)`(?: on the (\w+) host)?[^`]*:$", block.lead)
    return (said[1], said[2] or "") if said and block.kind in WRITTEN else ("", "")


def why_not_added(block: Block) -> str:
    """Why no pod is attached by a configuration; empty where one is."""
    return next((why for begins, why in NOT_ADDED.items() if block.text.startswith(begins)), "")


if __name__ == "__main__":
    for item in (item for page in PAGES for item in blocks(page)):
        for line in typed(item):
            if line.why_not:
                print(f"{item.page}: {line.command}\n    {line.why_not}")
