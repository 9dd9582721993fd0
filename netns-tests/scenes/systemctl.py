"""systemctl where there is no systemd: it runs one unit as systemd would, for a host of the lab.

``systemctl.py FOLDER UNIT VERB...``: FOLDER keeps what systemd knows. What the unit says of how its program is started, told to
be ready, confined, and started again is kept; its sandbox of files is mounts, its system calls and capabilities are `confined`'s.
"""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from pathlib import Path

from confined import section_of

OWN = Path(__file__).with_name("confined.py")
PATIENCE = 20
#: Mounts that are read-only, as ProtectSystem=strict has it, but for what the unit names.
STRICT = ("/", "/run", "/var/log", "/etc/agent-cni")


def main(folder: Path, file: Path, *words: str) -> int:
    verb, *rest = [word for word in words if word != "--no-block"]
    (folder / "told").open("a").write(f"{' '.join(words)}\n")
    if verb == "supervise":
        supervise(folder, section_of(file), file)
    if verb == "execute":
        sandbox(section_of(file))
        os.execv(sys.executable, [sys.executable, str(OWN), str(file), *section_of(file)["ExecStart"].split()])
    if verb == "is-active":
        print(state(folder))
        return 0 if state(folder) == "active" else 3
    if verb == "enable":
        (folder / "enabled").touch()
    if verb == "disable":
        (folder / "enabled").unlink(missing_ok=True)
    if verb in ("restart", "stop") or "--now" in rest:
        stop(folder)
    if verb in ("start", "restart") and state(folder) == "inactive":
        start(folder, file)
    return 0


def state(folder: Path) -> str:
    """A word of systemd's."""
    return (folder / "state").read_text() if (folder / "state").exists() else "inactive"


def start(folder: Path, file: Path) -> None:
    """Have it run from now on; who asked goes on at once."""
    (folder / "state").write_text("activating")
    (folder / "supervisor").touch()
    with (folder / "journal").open("a") as log:
        command = [sys.executable, __file__, folder, file, "supervise"]
        subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True)


def stop(folder: Path) -> None:
    """End it, and return when it has."""
    if not (folder / "supervisor").exists():
        return
    (folder / "stopping").touch()
    pid = int((folder / "main").read_text()) if (folder / "main").exists() else 0
    if pid:
        os.kill(pid, signal.SIGTERM)
    until = time.monotonic() + PATIENCE
    while (folder / "supervisor").exists():
        assert time.monotonic() < until, (folder / "journal").read_text()
        time.sleep(0.02)
    (folder / "stopping").unlink()


def supervise(folder: Path, service: dict[str, str], file: Path) -> None:
    """Run the program, and again when it ends, until it is to stop."""
    listener = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
    listener.bind(f"\0{folder}")
    listener.settimeout(0.05)
    environ = {"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "NOTIFY_SOCKET": f"@{folder}"}
    if "WatchdogSec" in service:
        environ["WATCHDOG_USEC"] = f"{service['WatchdogSec']}000000"
    while not (folder / "stopping").exists():
        process = subprocess.Popen(
            ["unshare", "--mount", sys.executable, __file__, folder, file, "execute"], env=environ
        )
        (folder / "main").write_text(str(process.pid))
        while process.poll() is None:
            try:
                said = listener.recv(4096).decode().split("\n")
            except TimeoutError:
                continue
            if "READY=1" in said:
                (folder / "state").write_text("active")
        (folder / "main").unlink()
        (folder / "state").write_text("activating")
        if not (folder / "stopping").exists():
            time.sleep(float(service["RestartSec"]))
    (folder / "state").write_text("inactive")
    (folder / "supervisor").unlink()


def sandbox(service: dict[str, str]) -> None:
    """Leave it to write only what the unit lets it."""
    assert service["ProtectSystem"] == "strict"
    folders = [f"/run/{name}" for name in service["RuntimeDirectory"].split()]
    folders += [f"/var/log/{name}" for name in service["LogsDirectory"].split()]
    for folder in folders:
        Path(folder).mkdir(exist_ok=True, mode=0o700)
        mount("--bind", folder, folder)
    for folder in service["ReadWritePaths"].split():  # which its ExecStartPre has made
        mount("--bind", folder, folder)
    for folder in STRICT:
        mount("-o", "remount,bind,ro", folder)


def mount(*words: str) -> None:
    subprocess.run(["mount", *words], check=True)


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:]))
