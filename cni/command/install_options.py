"""What `install` and `uninstall` may be told."""

from __future__ import annotations

import argparse

from cni.command.arguments import absolute, file, of_interpreters
from cni.installation.place import Place
from cni.plugin import STANDS_FOR
from cni.plugin import names as plugin_names


def add_place(command: argparse.ArgumentParser) -> None:
    """Where an installation is."""
    command.add_argument("--root", type=absolute, default=Place.root, help="where the node's / is, for an image")
    command.add_argument("--prefix", type=of_interpreters, default=Place.prefix, help="default %(default)s")
    command.add_argument("--bin-dir", type=absolute, default=Place.bin_dir, help="default %(default)s")
    command.add_argument("--conf-dir", type=absolute, default=Place.conf_dir, help="default %(default)s")
    command.add_argument("--force", action="store_true", help="over somebody else's files, or pods that run")


def add(command: argparse.ArgumentParser) -> None:
    """What one is to be, besides."""
    command.add_argument(
        "--conf",
        metavar="NAME",
        default="",
        help="activate a conflist: one of this release's, or a file with a / in its path",
    )
    command.add_argument(
        "--only",
        action="append",
        choices=plugin_names(),
        help="of the plugins this one, where others' may have the names of the rest; again for each",
    )
    command.add_argument(
        "--called-by", type=file, metavar="FOLDER", help="of the plugins those that the conflists in a folder name"
    )
    command.add_argument(
        "--link", action="store_true", help=f"this command as {Place.command} too, and logrotate told of the logs"
    )
    command.add_argument(
        "--systemd", action="store_true", help="the agent's units, its socket enabled, and drop-ins for networkd too"
    )
    command.add_argument(
        "--as",
        dest="stand_ins",
        action="append",
        default=[],
        choices=sorted(STANDS_FOR),
        help="under a reference plugin's name too, for nerdctl and podman; again for each",
    )
    command.add_argument("--python", type=absolute, default=Place.python, help="the node's, default %(default)s")
