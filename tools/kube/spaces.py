"""The namespaces and cgroups of a run, which end with it whatever happens."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

from shell import HOME, eventually, sh


def isolated() -> tuple[Path, str]:
    """Go on in namespaces of our own; the run's folder and the name of its cgroups. The caller's process only cleans up."""
    if "KUBE_RIG_RUN" in os.environ:
        sh("mount", "-t", "tmpfs", "tmpfs", "/run")
        sh("ip", "link", "set", "lo", "up")
        return Path(os.environ["KUBE_RIG_RUN"]), os.environ["KUBE_RIG_GROUP"]
    HOME.mkdir(parents=True, exist_ok=True)
    folder, group = Path(tempfile.mkdtemp(prefix="run-", dir=HOME)), f"kube-rig-{os.getpid()}"
    own = ("net", "mount", "pid", "ipc", "uts")
    spaces = [*(f"--{kind}" for kind in own), "--fork", "--kill-child", "--mount-proc", "--propagation=private"]
    init = ["bash", "-c", '"$@"; exit $?', "rig", sys.executable, *sys.argv]  # bash reaps what is orphaned
    environment = os.environ | {"KUBE_RIG_RUN": str(folder), "KUBE_RIG_GROUP": group}
    for number in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(number, _leave)
    child = subprocess.Popen(["unshare", *spaces, *init], env=environment)
    try:
        code = child.wait()
    except SystemExit as wish:
        code = wish.code
    finally:
        child.kill()
        child.wait()
        _forget(folder, group)
    sys.exit(code)


def _leave(number: int, _: object) -> None:
    """End by this signal, once: `timeout` sends its own twice, and the second must not end the cleaning up."""
    for each in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal.signal(each, signal.SIG_IGN)
    sys.exit(128 + number)


def remove_groups(name: str) -> None:
    for left in Path("/sys/fs/cgroup").glob(f"*/{name}"):
        for inner, _, _ in os.walk(left, topdown=False):
            eventually(lambda path=inner: Path(path).rmdir() or True, 10)


def _forget(folder: Path, group: str) -> None:
    remove_groups(group)
    kept = os.environ.get("KUBE_RIG_LOGS")
    if kept:
        shutil.copytree(folder / "logs", kept, dirs_exist_ok=True)
    shutil.rmtree(folder, ignore_errors=True)
