"""The suite's own Python environment: this one's share of it, copied to where a node will have it.

The same release gives the same bytes, whoever copies it, wherever and when: bytecode is compiled by a
fresh interpreter with a fixed hash seed, knows the node's paths and is valid without looking at a
source's time (PEP 552), nothing of pip's notes is taken, and times are SOURCE_DATE_EPOCH's where that is set
(reproducible-builds.org).
"""

from __future__ import annotations

import errno
import os
import re
import shutil
import sys
from collections.abc import Iterator
from importlib.util import cache_from_source
from pathlib import Path
from typing import TYPE_CHECKING

from cni.errors import Conflict, ToolFailed, Unavailable
from cni.installation.item import date, open_folder
from cni.installation.place import PYTHON, VERSION, Place
from cni.kernel import process
from cni.kernel.folders import unheld
from cni.kernel.writing import exchanged, unfinished

if TYPE_CHECKING:
    from importlib.metadata import Distribution

NAME = "agent-cni"
#: How long calls may take to end that are of the release before, in seconds; most do in one.
_PATIENCE = 30
LAUNCHER = Path("bin/agent-cni-launcher")
_PACKAGES = Path(f"lib/python{VERSION}/site-packages")
_SHARE = Path("share/agent-cni")
_NOTES = {"RECORD", "INSTALLER", "REQUESTED", "direct_url.json"}
_COMMAND = """#!{prefix}/bin/python3 -I
from cni.command.main import main

raise SystemExit(main())
"""
_ALONE = "home = {home}\ninclude-system-site-packages = false\n"
_COMPILE = """
import compileall, py_compile, sys
from pathlib import Path
new, prefix, packages = sys.argv[1:]
mode = py_compile.PycInvalidationMode.UNCHECKED_HASH
fine = compileall.compile_dir(new + "/" + packages, quiet=1, stripdir=new, prependdir=prefix, invalidation_mode=mode)
for schema in sorted(Path(new, packages, "cni/plugins").glob("*.schema.json")):  # compileall knows no file without suffix
    file = str(schema).removesuffix(".schema.json")
    py_compile.compile(file, dfile=prefix + file.removeprefix(new), doraise=True, invalidation_mode=mode)
sys.exit(not fine)
"""


def copy(place: Place) -> bool:
    """Put the environment at the prefix, in one exchange with what was there; whether anything changed.

    Raises Conflict where something else is there, Unavailable where there is nothing to copy from.
    """
    target = place.now(place.prefix)
    if target.exists() and target.samefile(sys.prefix):
        return False
    refuse_foreign(target)
    open_folder(target.parent)
    new = unfinished(target)
    if not _retired(new):
        raise Conflict(f"calls of the release before the last are at work still, out of {new}: try again later")
    try:
        _write(new, place)
        if _contents(new) == _contents(target):
            return False
        exchanged(new, target)
    finally:
        _retired(new)
    return True


def take(target: Path) -> bool:
    """Delete a copy, which is away at once, and what is left of one that somebody was killed at; whether there was one.

    What nobody takes for a copy nobody would take away.
    """
    new = unfinished(target)
    remove(new)
    if not is_ours(target):
        return False
    try:
        target.rename(new)
    except OSError as error:
        if error.errno != errno.EBUSY:  # a mount point
            raise
        return remove(target)
    return remove(new)


def _retired(tree: Path) -> bool:
    """Take away what is installed no more, once no call is at work out of it (launcher.c); whether it is gone. Else the next installation
    takes it.
    """
    if tree.is_symlink() or not tree.is_dir():
        remove(tree)
        return True
    with unheld(tree, _PATIENCE) as free:
        if free:
            remove(tree)
    return free


def _contents(folder: Path) -> dict[Path, bytes]:
    """Every file and link below a folder, and what it holds."""
    files = (path for path in folder.rglob("*") if path.is_symlink() or path.is_file())
    return {
        path.relative_to(folder): bytes(path.readlink()) if path.is_symlink() else path.read_bytes() for path in files
    }


def refuse_foreign(target: Path) -> None:
    """Raise Conflict where the prefix holds something that no installation of ours made."""
    if os.path.lexists(target) and not is_ours(target) and not (target.is_dir() and not any(target.iterdir())):
        raise Conflict(f"{target} is there and is not agent-cni's")


def is_ours(target: Path) -> bool:
    """Whether a folder is the copy of an installation."""
    return (target / "bin/agent-cni").exists() and (target / "pyvenv.cfg").exists()


def remove(target: Path) -> bool:
    """Delete a link, or a folder, or all that is in it where it is a mount point; whether there was one."""
    if target.is_symlink():
        target.unlink()
        return True
    if not target.is_dir():
        return False
    for item in target.iterdir():
        shutil.rmtree(item) if item.is_dir() and not item.is_symlink() else item.unlink()
    try:
        target.rmdir()
    except OSError as error:
        if error.errno != errno.EBUSY:
            raise
    return True


def shared(folder: str) -> dict[str, Path]:
    """The files this release brings in a folder of share/agent-cni: path below it, and where it is now."""
    below = _SHARE / folder
    found = {path: source for source, path in _members(_distribution(NAME)) if path.is_relative_to(below)}
    return {str(path.relative_to(below)): source for path, source in sorted(found.items())}


def has_launcher() -> bool:
    """Whether this release was built where there is a C compiler."""
    return any(path == LAUNCHER for _, path in _members(_distribution(NAME)))


def _write(new: Path, place: Place) -> None:
    for found in _needed():
        members = list(_members(found))
        for source, path in members:
            _put(new / path, source.read_bytes(), 0o755 if path.parts[0] == "bin" else 0o644)
        _put_record(new, [path for _, path in members])
    _put(new / "pyvenv.cfg", _ALONE.format(home=place.python.parent).encode(), 0o644)
    _put(new / "bin/agent-cni", _COMMAND.format(prefix=place.prefix).encode(), 0o755)
    (new / "bin/python3").symlink_to(place.python)
    if not _took_bytecode(new):
        _compile(new, place)
    date(*new.rglob("*"), new)


def _members(found: Distribution) -> Iterator[tuple[Path, Path]]:
    """Each file of a distribution that a node needs, and its path below the prefix."""
    for file in found.files or ():
        path = Path(os.path.normpath(_PACKAGES / file))
        kept = path.is_relative_to(_PACKAGES) and path.suffix != ".pyc" and path.name not in _NOTES
        if kept or path == LAUNCHER or path.is_relative_to(_SHARE):
            yield Path(str(found.locate_file(file))), path


def _needed() -> Iterator[Distribution]:
    """The suite and all it needs, each once; what it has a use for where somebody installed it, too."""
    waiting, seen = [NAME], set()
    while waiting:
        name = waiting.pop(0)
        if name in seen or not (found := _installed(name)):
            continue
        seen.add(name)
        waiting += [_name(line) for line in found.requires or () if name == NAME or not _is_extra(line)]
        yield found


def _installed(name: str) -> Distribution | None:
    """A distribution, or None for one of another platform."""
    try:
        return _distribution(name)
    except Unavailable:
        if name in {_name(line) for line in _distribution(NAME).requires or () if not _is_extra(line)}:
            raise
        return None


def _distribution(name: str) -> Distribution:
    from importlib.metadata import PackageNotFoundError, distribution  # 2 MiB that the agent has no use for

    try:
        return distribution(name)
    except PackageNotFoundError:
        raise Unavailable(f"{name} is not installed in {sys.prefix}: make install, or pipx install agent-cni") from None


def _is_extra(requirement: str) -> bool:
    return "extra ==" in requirement


def _name(requirement: str) -> str:
    found = re.match(r"[\w.-]+", requirement)
    assert found is not None
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def _put_record(new: Path, members: list[Path]) -> None:
    """Put down a distribution's RECORD, without the hashes it may leave out, so that a copy can be copied on."""
    metadata = next(path for path in members if path.match("*.dist-info/METADATA"))
    lines = sorted(f"{os.path.relpath(path, _PACKAGES)},," for path in members)
    _put(new / metadata.with_name("RECORD"), "".join(f"{line}\n" for line in lines).encode(), 0o644)


def _put(path: Path, content: bytes, mode: int) -> None:
    open_folder(path.parent)
    path.write_bytes(content)
    path.chmod(mode)


def _took_bytecode(new: Path) -> bool:
    """Whether this environment's own bytecode is what a copy needs: it is a copy for that place itself, as an installer's image has it,
    and a node's start does not wait for a compiler then.
    """
    own = Path(sys.prefix)
    told = (Path("pyvenv.cfg"), Path("bin/agent-cni"))
    if any(not (own / file).is_file() or (own / file).read_bytes() != (new / file).read_bytes() for file in told):
        return False
    found = {Path(name): own / name for name in map(cache_from_source, map(str, _sources(new)))}
    if not all(source.is_file() for source in found.values()):
        return False
    for path, source in found.items():
        _put(new / path, source.read_bytes(), 0o644)
    return True


def _sources(new: Path) -> list[Path]:
    """What is compiled of a copy: modules, and the plugins, which have a schema beside them."""
    below = [path.relative_to(new) for path in (new / _PACKAGES).rglob("*") if path.suffix in (".py", ".json")]
    plugins = [path for path in below if path.match("cni/plugins/*.schema.json")]
    return [path for path in below if path.suffix == ".py"] + [
        path.with_name(path.name.removesuffix(".schema.json")) for path in plugins
    ]


def _compile(new: Path, place: Place) -> None:
    argv = [str(PYTHON), "-sS", "-c", _COMPILE, str(new), str(place.prefix), str(_PACKAGES)]
    done = process.run(argv, environ={"PATH": process.SYSTEM_PATH, "PYTHONHASHSEED": "0"}, seconds=600)
    if done.returncode:
        raise ToolFailed(f"{PYTHON} cannot compile {new}", done.stdout + done.stderr)
    for path in new.rglob("__pycache__/**/*"):
        path.chmod(0o644)
    for path in new.rglob("__pycache__"):
        path.chmod(0o755)
