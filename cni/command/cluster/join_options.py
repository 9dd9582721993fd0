"""The options of `agent-cni join`, which say what cluster.json has."""

from __future__ import annotations

import argparse

from cni.command.arguments import file_or_none, number


def add(command: argparse.ArgumentParser) -> None:
    """What a host may be told of the store and of itself."""
    _add_store(command)
    _add_host(command)


def _add_store(command: argparse.ArgumentParser) -> None:
    store = command.add_argument_group("the store")
    store.add_argument("--etcd", nargs="+", metavar="URL", help="where it answers, such as https://192.0.2.1:2379")
    store.add_argument("--kubernetes", action="store_true", help="it is the Kubernetes API, as a pod of it knows it")
    store.add_argument("--server", metavar="URL", help="where the API answers, if not where pods are told")
    store.add_argument("--token", type=file_or_none, metavar="FILE", help="file with the API's bearer token")
    for option, what in (
        ("--cacert", "file with the authorities that sign its certificates"),
        ("--cert", "file with this host's certificate"),
        ("--key", "file with its private key"),
        ("--password-file", "file with the user's password"),
    ):
        store.add_argument(option, type=file_or_none, metavar="FILE", help=what)
    store.add_argument("--user", help="etcd's user, where it has some")
    store.add_argument("--prefix", help="what all keys begin with: another is another cluster; default /agent-cni")


def _add_host(command: argparse.ArgumentParser) -> None:
    host = command.add_argument_group("this host")
    host.add_argument("--node", help="its name there, default the host name")
    host.add_argument(
        "--vtep",
        metavar="ADDRESS",
        help="where others send to, default the Node's InternalIP, without one the address of the default route",
    )
    host.add_argument("--uplinks", nargs="+", metavar="LINK", help="take the first behind which somebody answers")
    host.add_argument("--encryption", choices=("", "wireguard"), help="between hosts, default none")
    host.add_argument("--wireguard-port", type=number, metavar="PORT", help="default 51820")
    host.add_argument("--rotate-key", action="store_true", help="have another WireGuard key, and do nothing else")
    host.add_argument("--session", type=number, metavar="SECONDS", help="without a word it is away after, default 15")
    host.add_argument(
        "--free-after", type=number, metavar="SECONDS", help="away, its addresses are free after; default 0: never"
    )
    host.add_argument(
        "--conflists", type=file_or_none, metavar="FOLDER", help="put its conflists once pods can be served"
    )
    host.add_argument("--metrics", metavar="ADDRESS:PORT", help="answer Prometheus there, on a loopback address")
    for option, what in (
        ("--metrics-cert", "file with the certificate by which it is encrypted"),
        ("--metrics-key", "file with its private key"),
        ("--metrics-client-ca", "file with the authorities of who may ask; the address may be any then"),
    ):
        host.add_argument(option, type=file_or_none, metavar="FILE", help=what)
