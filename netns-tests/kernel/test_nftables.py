"""libnftables in this process: which namespace it speaks to, and what it keeps alive."""

from __future__ import annotations

import subprocess
import sys

from lab import ROOT, Lab, sh

#: Ask in a pod, leave it, take its path away, and see whether the other end of its veth lives on.
ALIVE = """
import subprocess, sys, time
from cni.kernel import kept, nftables
from cni.kernel.netns import Netns

def there():
    return not subprocess.run(["ip", "link", "show", "outer"], capture_output=True).returncode

pod = Netns(sys.argv[1])
with pod.entered():
    assert nftables.run("add table ip asked").done
assert "asked" not in nftables.run("list tables").output
pod.close()
subprocess.run(["ip", "netns", "delete", sys.argv[1].rpartition("/")[2]], check=True)
time.sleep(0.2)
print("kept" if there() else "gone")
kept.let_go()
deadline = time.monotonic() + 60
while there() and time.monotonic() < deadline:
    time.sleep(0.01)
print("kept" if there() else "gone")
"""
REHEARSAL = """
from pathlib import Path

from cni.kernel import nftables, netns

before = Path(netns.OWN).stat().st_ino
print(nftables.rehearse("add table ip rehearsed", "list tables").output.strip())
print(nftables.rehearse("add nonsense", "list tables").complaint.splitlines()[0])
assert Path(netns.OWN).stat().st_ino == before
assert "rehearsed" not in nftables.run("list tables").output
"""


#: No descriptor is left for libnftables, which ends who asks it then.
REFUSED = """
import os, resource, sys

from cni.errors import Lacking
from cni.kernel import foreign, nftables

assert nftables.present()
nftables.Channel = lambda _: type("Nothing", (), {"close": lambda self: None})()
soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
for _ in range(2):
    left = os.dup(0)
    os.close(left)
    resource.setrlimit(resource.RLIMIT_NOFILE, (left, hard))
    try:
        nftables.run("list tables")
    except Lacking as error:
        print(error.msg)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
assert nftables.run("list tables").done
sys.stdout.flush()
sys.exit(foreign.leave(0))
"""


def in_a_process(script: str, *words: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", script, *words], cwd=ROOT, text=True, capture_output=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


def test_a_pod_is_held_until_it_is_let_go(lab: Lab):
    pod = lab.pod()
    sh("ip", "link", "add", "outer", "type", "veth", "peer", "inner", "netns", pod.name)
    assert in_a_process(ALIVE, pod.path) == ["kept", "gone"]


def test_a_process_outlives_a_library_that_ends_it(lab: Lab):
    assert (
        in_a_process(REFUSED)
        == ["libnftables.so.1 ended, for want of a socket or memory, or of an answer it knows"] * 2
    )


def test_a_rehearsal_leaves_nothing(lab: Lab):
    listed, complaint = in_a_process(REHEARSAL)
    assert listed == "table ip rehearsed"
    assert complaint.startswith("Error: syntax error")


def test_what_is_listed_has_numbers_and_nothing_that_was_counted(lab: Lab):
    """A service's name is each machine's own (services(5)), and what was counted no part of what there is."""
    script = "add table inet t\nadd chain inet t c\nadd rule inet t c tcp dport 443 counter accept\n"
    code = f"from cni.kernel import nftables; print(nftables.rehearse({script!r}, 'list chain inet t c').output)"
    assert "\t\ttcp dport 443 counter accept\n" in sh(sys.executable, "-c", code).stdout
