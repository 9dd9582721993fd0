"""Which certificates end soon: those of files this host is told of, and those by which its store proves who it is."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from contextlib import suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import NamedTuple

from cni.agent.settings import Settings
from cni.cluster.config import ClusterConfig, EtcdConfig
from cni.errors import CniError
from cni.kernel import certificates
from cni.kernel.http import Door
from cni.resources import Difference

#: Who renews certificates by hand needs a while; cert-manager does it when a third of their time is left.
WARNED_DAYS = 14
_SECONDS = 2.0
_RENEW = "renew it: put the new certificate, and its key, in the files' place, which are read again"


class _File(NamedTuple):
    """One that this host is told of, and by which file. Of authorities one that goes on is enough; a chain ends with its first."""

    path: str
    said_in: str
    is_of_authorities: bool


def certificate_faults(options: argparse.Namespace) -> Iterator[Difference]:
    """Each that has ended, or does within two weeks, and each file that cannot be read. A configuration that cannot be is another's to name."""
    with suppress(CniError):
        if options.config.exists():
            yield from _of_store(options.config, ClusterConfig.load(options.config))
    with suppress(CniError):
        if otlp := Settings.load().otlp:
            yield from _of_files("agent.json", otlp.cacert, otlp.cert)


def _of_store(path: Path, config: ClusterConfig) -> Iterator[Difference]:
    store = config.store
    yield from _of_files(path.name, store.cacert, store.cert)
    yield from _of_files(path.name, config.metrics_client_ca, config.metrics_cert)
    urls = store.endpoints if isinstance(store, EtcdConfig) else [*filter(None, (store.server,))]
    door = Door(urls, cacert=store.cacert, cert=store.cert, key=store.key) if urls else None
    for url, end in door.proven_until(_SECONDS) if door else ():  # who proves nothing is named beside the cluster
        yield from _told(f"the certificate of {url}", datetime.fromtimestamp(end, UTC), "renew it where it is served")


def _of_files(said_in: str, cacert: str, cert: str) -> Iterator[Difference]:
    for file in (_File(cacert, said_in, True), _File(cert, said_in, False)):
        if file.path:
            yield from _of_file(file)


def _of_file(file: _File) -> Iterator[Difference]:
    what = f"{file.path} ({file.said_in})"
    try:
        ends = certificates.ends(Path(file.path))
    except OSError as error:
        yield Difference(f"{what} cannot be read: {error.strerror}", "put it there: it is read as soon as it is")
    except ValueError as error:
        yield Difference(f"{what}: {error}", "put a certificate there, as PEM: it is read as soon as it is")
    else:
        yield from _told(what, max(ends) if file.is_of_authorities else min(ends), _RENEW)


def _told(what: str, end: datetime, mend: str) -> Iterator[Difference]:
    left = end - datetime.now(UTC)
    if left.total_seconds() < 0:
        yield Difference(f"{what} ended on {end:%Y-%m-%d %H:%M} UTC: new connections are refused", mend)
    elif left.days < WARNED_DAYS:
        yield Difference(f"{what} ends on {end:%Y-%m-%d %H:%M} UTC, in {left.days} days", mend)
