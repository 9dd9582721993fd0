"""Installations, upgrades and removals that are killed at each effect, or refused it, on a node that is a few folders of a mount namespace."""

from __future__ import annotations

import json
import os
import random
import shutil
import subprocess
import tempfile
from pathlib import Path

from cni.naming import OWNER
from crash.story import Told

ROOT = Path(__file__).resolve().parents[2]
STRUCK, SYSTEMCTL = (Path(__file__).with_name(name) for name in ("struck.py", "systemctl.sh"))
PREFIX, BIN_DIR, CONF_DIR = Path("/opt/agent-cni"), Path("/opt/cni/bin"), Path("/etc/cni/net.d")
CONF = '{"cniVersion": "1.1.0", "name": "n", "type": "%s"}'
CONFLIST = json.dumps(
    {"cniVersion": "1.1.0", "name": "n", "plugins": [{"type": "bridge-vxlan", "ipam": {"type": "agent-ipam"}}]}
)
#: What a node has of us is in these alone, and here all of them are in one file system, so that a state is kept and had again by links.
FOLDERS = (
    "/opt",
    "/usr/local/bin",
    "/etc/systemd",
    "/etc/logrotate.d",
    "/etc/cni",
    "/run/systemd",
    "/run/agent-cni",
    "/var/log/agent-cni",
)
INSTALL = ("install", "--systemd", "--link", "--conf", "20-bridge.conflist")
SOCKETS = ("agent-cni.socket", "agent-cni-names.path", "agent-cni-dnsgate.path")
MEMBER = "agent-cni-member.service"
UNITS = Path("/etc/systemd/system")
#: What disks, and who guards them, refuse with.
ERRORS = ("ENOSPC", "EROFS", "EACCES", "EIO")
UNKNOWN_VERB = 4
#: Of the effects on a copy that nobody uses yet, or no more, so many are struck.
OF_HIDDEN = 10

Tree = dict[str, tuple[int, bytes]]


class Stage:
    """A node, and two releases it may have, each a copy in a folder as an installer's image has it."""

    def __init__(self, folder: Path) -> None:
        self.log, self.live, self._states = folder / "log", folder / "live", folder / "states"
        for name in FOLDERS:
            there = self.live / name[1:]
            there.mkdir(parents=True)
            Path(name).mkdir(parents=True, exist_ok=True)
            sh("mount", "--bind", there, name)
        Path("/run/systemd/system").mkdir()
        sh("mount", "--bind", SYSTEMCTL, shutil.which("systemctl"))
        self.images = {name: folder / name for name in ("earlier", "later")}
        self.images["earlier"].mkdir()
        sh(ROOT / ".venv/bin/agent-cni", "install", "--root", self.images["earlier"])
        sh("cp", "-a", self.images["earlier"], self.images["later"])
        become_later(self.images["later"] / PREFIX.relative_to("/"))
        self.save("nothing")
        self.command("earlier", *INSTALL)
        for name in ("/run/agent-cni/state.db", "/var/log/agent-cni/bridge-vxlan.log"):
            Path(name).touch()
        sh("systemctl", "start", MEMBER)
        self.save("earlier")
        self.container = ("install", "--root", str(self.live), "--link", "--called-by", str(folder / "conflists"))

    def contain(self) -> None:
        """Have the node be one that a container has installed the earlier release on."""
        conflists = Path(self.container[-1])
        conflists.mkdir()
        (conflists / "net.conflist").write_text(CONFLIST)
        self.restore("nothing")
        assert self.command("earlier", *self.container).returncode == 0
        self.save("contained")

    def command(
        self, image: str, *words: str, number: int = 0, what: str = "SIGKILL"
    ) -> subprocess.CompletedProcess[str]:
        """A command by the copy in an image, struck at an effect."""
        os.umask(0)
        python = self.images[image] / PREFIX.relative_to("/") / "bin/python3"
        return sh(python, "-I", STRUCK, self.log, number, what, *words, check=False)

    def struck_at(self, chance: random.Random) -> tuple[int, list[int], list[str]]:
        """Of the last command: how many effects it had, which are to be struck, and what each was.

        All those that who uses the node can see, and some of those on a copy that nobody uses yet, or no more.
        """
        effects = self.log.read_text().splitlines()
        is_hidden = ["/" not in it or f"/.{PREFIX.name}." in it for it in effects]
        hidden = [number for number, it in enumerate(is_hidden, 1) if it]
        chosen = {*hidden[:1], *hidden[-1:], *chance.sample(hidden, min(OF_HIDDEN, len(hidden)))}
        seen = [number for number, it in enumerate(is_hidden, 1) if not it]
        return len(effects), sorted(chosen | {*seen}), effects

    def save(self, name: str) -> None:
        """Remember all there is, to go back to."""
        self._states.mkdir(exist_ok=True)
        _copied(self.live, self._states / name)

    def restore(self, name: str) -> None:
        """Have all be as it was then."""
        for folder in FOLDERS:
            there = self.live / folder[1:]
            for item in there.iterdir():
                shutil.rmtree(item) if item.is_dir() and not item.is_symlink() else item.unlink()
            _copied(f"{self._states / name / folder[1:]}/.", there)

    def tree(self) -> Tree:
        """Each file, link and folder with its mode and content."""
        found = {}
        for item in self.live.rglob("*"):
            name = str(item.relative_to(self.live))
            if "run/systemd/known" in name:
                continue
            content = bytes(item.readlink()) if item.is_symlink() else item.read_bytes() if item.is_file() else b""
            found[name] = item.lstat().st_mode, content
        return found


# --- what must be so


def unfit(stage: Stage, expected: set[str], chance: random.Random) -> list[str]:
    """Which plugins are not whole, or do not work; those `expected` are to be there, and those of a conflist that is there."""
    there = {path.name: path.read_text() for path in BIN_DIR.glob("[!.]*")} if BIN_DIR.is_dir() else {}
    for file in CONF_DIR.glob("*.conflist") if CONF_DIR.is_dir() else ():
        expected = expected | {plugin["type"] for plugin in json.loads(file.read_text())["plugins"]} - {"portmap"}
    found = [f"{name} is not there" for name in sorted(expected - {*there})]
    found += [
        f"{name} is half of one"
        for name, text in there.items()
        if not text.endswith("raise SystemExit(cold(__file__))\n")
    ]
    for name in chance.sample(sorted(there), min(1, len(there))):
        env = {"CNI_COMMAND": "NONE", "AGENT_CNI_SOCKET": ""}
        done = sh(BIN_DIR / name, check=False, input=CONF % name, env=env)
        if f'"code": {UNKNOWN_VERB}' not in done.stdout:
            found.append(f"{name} does not work: {done.stdout}{done.stderr}"[:300])
    return found


def unfollowed(stage: Stage, sockets: bool = True) -> list[str]:
    """What systemd does not go by: units it has not read, what it is to start and did not, and daemons of a copy that is gone."""
    known, found = Path("/run/systemd/known"), []
    for unit in UNITS.glob("*.*"):
        loaded = known / "loaded" / unit.name
        if unit.is_file() and (not loaded.exists() or loaded.read_text() != unit.read_text()):
            found.append(f"{unit.name} is another than systemd has read")
    active = {path.name: path.read_text().strip() for path in (known / "active").glob("*")}
    for unit in SOCKETS:
        linked = any(UNITS.glob(f"*.wants/{unit}"))
        if linked != sockets or (unit in active) != sockets:
            found.append(
                f"{unit} is {'' if linked else 'not '}enabled and {'runs' if unit in active else 'does not run'}"
            )
    copy = str(PREFIX.stat().st_ino) if PREFIX.exists() else ""
    found += [f"{MEMBER} runs by a copy that is gone" for unit in (MEMBER,) if active.get(unit, copy) != copy]
    return found


def differing(tree: Tree, wanted: Tree) -> list[str]:
    """What is otherwise than it is to be."""
    names = sorted(name for name in {*tree, *wanted} if tree.get(name) != wanted.get(name))
    return [
        f"{name} {'is left' if name not in wanted else 'is not there' if name not in tree else 'is another'}"
        for name in names[:5]
    ]


def _copied(source: object, target: Path) -> None:
    """By links: what is put down is put down anew. Only a state may have no other name."""
    sh("cp", "-al", source, target)
    for file in target.rglob("state.db"):
        content = file.read_bytes()
        file.unlink()
        file.write_bytes(content)
        file.chmod(0o600)


def become_later(prefix: Path) -> None:
    """Another release: another copy, executables, units and conflist."""
    packages = next(prefix.glob("lib/python3*/site-packages"))
    suite = packages / "cni/installation/suite.py"
    suite.write_text(suite.read_text().replace("{mark}\nfrom", "{mark}\n# of a later release\nfrom"))
    for file in (*prefix.glob("share/agent-cni/systemd/system/*"), *prefix.glob("share/agent-cni/systemd/*.d/*")):
        if file.is_file():
            file.write_text(file.read_text() + "# of a later release\n")
    conflist = prefix / "share/agent-cni/conf.d/20-bridge.conflist"
    conflist.write_text(conflist.read_text() + "\n")
    compiled = "import py_compile, sys; py_compile.compile(sys.argv[1], invalidation_mode=py_compile.PycInvalidationMode.UNCHECKED_HASH)"
    sh(prefix / "bin/python3", "-I", "-c", compiled, suite)


def sh(*argv: object, check: bool = True, **options: object) -> subprocess.CompletedProcess[str]:
    """Run a program."""
    done = subprocess.run(list(map(str, argv)), capture_output=True, text=True, check=False, **options)  # type: ignore[call-overload]
    if check and done.returncode:
        raise AssertionError(f"{argv} -> {done.returncode}\n{done.stdout}{done.stderr}")
    return done


# --- the stories


def tell(story: str, seed: str, kind: type[Struck] | None = None) -> Told:
    """`install killed`, `upgrade refused, every 7th` ...: at each effect, or some of them; `container` is what a DaemonSet's does with a node's /."""
    verb, how, *rest = story.replace(",", "").split()
    step = int(rest[-1].rstrip("thnds")) if rest else 1
    chance = random.Random(f"{story} {seed}")
    with tempfile.TemporaryDirectory(dir="/run") as folder:
        sh("mount", "-t", "tmpfs", "-o", "mode=755", "tmpfs", folder)
        try:
            stage = Stage(Path(folder))
            before, image, words = {
                "install": ("nothing", "earlier", INSTALL), "upgrade": ("earlier", "later", INSTALL), "quiet": ("quiet", "later", INSTALL),
                "uninstall": ("earlier", "later", ("uninstall",)), "container": ("contained", "later", stage.container),
            }[verb]  # fmt: skip
            if before == "quiet":
                sh("systemctl", "disable", "--now", *SOCKETS)
                stage.save("quiet")
            if before == "contained":
                stage.contain()
            told = (kind or Struck)(stage, before, image, words, chance)
            faults = told.all(story, step, list(ERRORS) if how == "refused" else ["SIGKILL"])
        finally:
            sh("umount", "-l", folder)
    said = {"file effects": told.effects} if step == 1 else {}
    return Told(said | {"refusals" if how == "refused" else "kills": told.strikes}, faults)


class Struck:
    """A command that is struck again and again, each time on the node as it was before, and then repeated."""

    def __init__(self, stage: Stage, before: str, image: str, words: tuple[str, ...], chance: random.Random) -> None:
        self._stage, self._before, self._image, self._words, self._chance = stage, before, image, words, chance
        self.effects = self.strikes = 0
        stage.restore(before)
        done = stage.command(image, *words)
        assert done.returncode == 0, f"{done.returncode}: {done.stdout}{done.stderr}"[:150]
        self._wanted = stage.tree()

    def all(self, story: str, step: int, how: list[str]) -> list[str]:
        """A line for each fault."""
        self.effects, chosen, effects = self._stage.struck_at(self._chance)
        found = []
        for number in chosen[self._chance.randrange(step) :: step]:
            what = self._chance.choice(how)
            self.strikes += 1
            found += [
                f"{story}, {what} at effect {number} ({effects[number - 1]}): {fault}"
                for fault in self.once(number, what)
            ]
        return found

    def once(self, number: int, what: str) -> list[str]:
        """What is wrong after it was struck there, and after it was repeated."""
        stage, expected = self._stage, set()
        stage.restore(self._before)
        if self._words[0] != INSTALL[0]:
            sh("ip", "link", "add", "br7", "type", "bridge")
            sh("ip", "link", "set", "br7", "alias", OWNER)
        if self._before != "nothing" and self._words[0] == INSTALL[0]:
            expected = {path.name for path in BIN_DIR.iterdir()}
        done = self._strike(number, what)
        found = unfit(stage, expected, self._chance) if self._words[0] == INSTALL[0] else []
        if what != "SIGKILL" and (done.returncode, done.stderr.count("\n")) != (1, 1):
            found.append(f"it ends with {done.returncode}: {done.stdout}{done.stderr}")
        if "a bug" in done.stderr or "Traceback" in done.stderr:
            found.append(done.stderr)
        again = self._repeated()
        if again.returncode:
            return [*found, f"again it ends with {again.returncode}: {again.stdout}{again.stderr}"]
        found += differing(stage.tree(), self._wanted)
        if sh("ip", "link", "del", "br7", check=False).returncode == 0:
            found.append("br7 is left")
        if self._words[0] == INSTALL[0]:
            found += unfit(stage, expected, self._chance)
        if self._words == INSTALL:
            found += unfollowed(stage, self._before != "quiet")
        return found

    def _strike(self, number: int, what: str) -> subprocess.CompletedProcess[str]:
        return self._stage.command(self._image, *self._words, number=number, what=what)

    def _repeated(self) -> subprocess.CompletedProcess[str]:
        """As an operator would: what takes away is the checkout's make, which goes by the copy that is there."""
        if self._words[0] == INSTALL[0]:
            return self._stage.command(self._image, *self._words)
        return sh("make", "--no-print-directory", "-C", ROOT, "uninstall", check=False)
