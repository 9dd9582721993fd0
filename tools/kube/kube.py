#!/usr/bin/env python3
"""A real Kubernetes cluster of three nodes in namespaces of this machine, with the suite as its network.

build makes Kubernetes' parts (once, half an hour); prepare makes images and installs this checkout for nodes; check asks a
cluster for everything it owes its users, one line each (ok, FAIL, or .. for what is only said), and ends in 1 if any failed;
e2e runs specs of Kubernetes' own, administrators those of ClusterNetworkPolicies; run is a shell, or a program, with KUBECONFIG. KUBE_RIG names a folder where the parts are
built already; KUBE_RIG_LOGS=folder keeps all daemons' logs. Options stand before the network.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path

import administrators
import build
import checks
import dns
import e2e
import images
from cluster import Cluster, Shape
from feed import feeding
from networks import NETWORKS, stage
from shell import BIN, HOME


def main() -> int:
    options = arguments()
    return int(options.do(options))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    verbs = parser.add_subparsers(required=True)
    for name, function in (
        ("build", built),
        ("prepare", prepared),
        ("check", check),
        ("e2e", specs),
        ("administrators", administrators_specs),
        ("run", run),
    ):
        verb = verbs.add_parser(name, help=function.__doc__, description=function.__doc__)
        verb.set_defaults(do=function)
        if name == "build":
            verb.add_argument(
                "parts", nargs="*", choices=[*build.BUILDERS, []], help="all but cyclonus, if none is named"
            )
        if name in {"check", "e2e", "administrators", "run"}:
            of_a_cluster(verb)
        if name == "check":
            verb.add_argument("--pods", type=int, default=24, help="to how many the cluster grows (churn)")
            verb.add_argument(
                "names", nargs="*", choices=[*checks.EVERY, []], help="all that suit the network, if none is named"
            )
        if name == "run":
            verb.add_argument("program", nargs="*", help="a shell, if none is named")
        if name == "administrators":
            verb.add_argument("--focus", default="", help="specs whose name matches; all, if none is said")
            verb.add_argument("--channel", choices=administrators.CHANNELS, default="experimental")
            verb.add_argument("--out", type=Path, default=HOME / "administrators", help="a folder for the log")
        if name == "e2e":
            verb.add_argument("--focus", default="Netpol", help="specs whose name matches")
            verb.add_argument("--skip", default="", help="but for those that match this")
            verb.add_argument("--procs", type=int, default=3, help="how many at a time")
            verb.add_argument("--out", type=Path, default=HOME / "e2e", help="a folder for the report and the log")
    return parser.parse_args()


def of_a_cluster(verb: argparse.ArgumentParser) -> None:
    verb.add_argument("network", choices=NETWORKS)
    verb.add_argument("--proxy", choices=("nftables", "iptables"), default="nftables")
    verb.add_argument("--nodes", type=int, default=3)
    verb.add_argument(
        "--families",
        type=lambda text: tuple(map(int, text)),
        default=(4,),
        help="4, 46, 64 or 6; where members keep the network",
    )
    verb.add_argument("--manifest", type=Path, help="a file, or a folder with a kustomization, applied to the cluster")


def built(options: argparse.Namespace) -> int:
    """Build the parts of a cluster."""
    build.build(*options.parts)
    return 0


def prepared(options: argparse.Namespace) -> int:
    """Install this checkout, which is built, for nodes, and make the images."""
    stage()
    print(*images.every(), sep="\n")
    return 0


def check(options: argparse.Namespace) -> int:
    """Ask a cluster with this network for everything it owes its users."""
    bad: list[str] = []

    def report(what: str, good: bool | None, said: str) -> None:
        print(f"{'  ..' if good is None else '  ok' if good else 'FAIL'}  {what}: {said}", flush=True)
        if good is False:
            bad.append(what)

    kinds = administrators.kinds("experimental") if checks.OF_ADMINISTRATORS & {*options.names} else ()
    with running(options, kinds) as cluster:
        report(f"{options.network}, kube-proxy {options.proxy}", None, f"configured after {cluster.age():.1f} s")
        checks.run(cluster, report, options.names, options.pods)
        report("end", None, f"{cluster.age():.0f} s, {len(bad)} failed")
    return 1 if bad else 0


def specs(options: argparse.Namespace) -> int:
    """Run specs of Kubernetes' own end-to-end tests."""
    with running(options) as cluster:
        dns.ready(cluster)
        return e2e.run(cluster, options.focus, options.skip, options.procs, options.out.resolve())


def administrators_specs(options: argparse.Namespace) -> int:
    """Run the conformance suite of ClusterNetworkPolicies."""
    with running(options, administrators.kinds(options.channel)) as cluster:
        dns.ready(cluster)
        return administrators.run(cluster, options.channel, options.focus, options.out.resolve())


def run(options: argparse.Namespace) -> int:
    """Run a program against a cluster with this network and CoreDNS."""
    with running(options) as cluster:
        if NETWORKS[options.network].plugins or options.manifest:  # else the program is to bring the network
            dns.ready(cluster)
        print(f"cluster is up after {cluster.age():.1f} s", file=sys.stderr, flush=True)
        return subprocess.run(options.program or ["bash"], env=environment(cluster), check=False).returncode


def environment(cluster: Cluster) -> dict[str, str]:
    """What a program needs to ask the cluster, and nsenter --target its nodes."""
    found = os.environ | {
        "KUBECONFIG": str(cluster.keys.folder / "admin.kubeconfig"),
        "PATH": f"{BIN}:{os.environ['PATH']}",
    }
    return found | {f"NODE_{node.name}": str(node.pid) for node in cluster.nodes}


@contextmanager
def running(options: argparse.Namespace, kinds: Sequence[Path] = ()) -> Iterator[Cluster]:
    network = NETWORKS[options.network]
    with ExitStack() as stack:
        shape = Shape(options.nodes, options.proxy, options.families)
        made = Cluster(network, shape, images.made(), options.manifest, kinds)
        cluster = stack.enter_context(made)
        if network.fed:
            stack.enter_context(feeding(cluster, refresh=not network.member))
        yield cluster


if __name__ == "__main__":
    sys.exit(main())
