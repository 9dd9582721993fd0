"""What is known of pods on other hosts, for who has no documents open."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import closing

from cni.state import uses
from cni.state.documents import FILE, Documents
from cni.state.elsewhere import Far


def far_pods(names: Iterable[tuple[str, str]] | None, addresses: Iterable[str]) -> list[tuple[str, Far]]:
    """The addresses that pods have on other hosts, by namespace and name, or all have, and whose some addresses are there; nothing where nobody knows."""
    if not (uses.DEFAULT_FOLDER / FILE).exists():
        return []
    with closing(Documents.open()) as documents:
        return documents.far_pods(names, addresses)


def far_revision() -> int:
    """What is another when another host's pod has, or has not, an address."""
    if not (uses.DEFAULT_FOLDER / FILE).exists():
        return 0
    with closing(Documents.open()) as documents:
        return documents.far_revision()
