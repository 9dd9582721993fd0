"""The rules that would have let through just what was seen, as a configuration or Kubernetes has them."""

from __future__ import annotations

import argparse
from collections.abc import Iterable, Mapping
from contextlib import suppress

from cni.command.flows.options import NETWORK_POLICY
from cni.command.held import books_of, held_of
from cni.command.output import complain, print_json, print_text
from cni.errors import CniError, InvalidConfig
from cni.flows.seen import Flow
from cni.flows.suggest import configuration, documents, spelled, unspoken
from cni.naming import CLUSTER
from cni.policy.book import Book
from cni.policy.feeds import book_of


def suggested(options: argparse.Namespace, found: Iterable[Flow]) -> int:
    """Print them for each pod that was seen: of what was allowed, with --denied of what was not. What no rule can say is said to stderr."""
    by_pod: dict[str, list[Flow]] = {}
    for flow in found:
        if flow.allowed is not options.denied:
            by_pod.setdefault(flow.seen.pod, []).append(flow)
    if not by_pod:
        raise InvalidConfig("no flow was seen to suggest a rule by")
    if options.suggest == NETWORK_POLICY:
        return _as_documents(options, by_pod)
    complain(
        *(f"agent-cni: {pod}: {line}: no rule says that" for pod, some in by_pod.items() for line in unspoken(some))
    )
    sections = {pod: {"policy": configuration(some)} for pod, some in by_pod.items()}
    print_json(next(iter(sections.values())) if options.pod and len(sections) == 1 else sections)
    return 0


def _as_documents(options: argparse.Namespace, by_pod: Mapping[str, list[Flow]]) -> int:
    labels, made, refused = _Labels(options), [], []
    for pod, found in by_pod.items():
        try:
            said, lines = documents(pod, found, labels.of)
        except ValueError as error:
            refused.append(str(error))
            continue
        made += said
        complain(*(f"agent-cni: {pod}: {line}: no document says that" for line in lines))
    complain(*(f"agent-cni: {line}" for line in refused))
    if options.json:
        print_json(made)
    elif made:
        print_text(spelled(made).rstrip())
    return 1 if refused else 0


class _Labels:
    """The labels of pods, as the feeds in use have them, and as the cluster says where this host knows that."""

    def __init__(self, options: argparse.Namespace) -> None:
        held, faults = held_of(options)
        complain(*(f"agent-cni: {line}" for line in faults))
        self._books: list[Book] = books_of(held)
        with suppress(CniError):
            if all(book.feed != CLUSTER for book in self._books):
                self._books.append(book_of(CLUSTER, keep=False))

    def of(self, name: str) -> Mapping[str, str] | None:
        """Those of a pod, where all are known."""
        namespace, _, called = name.partition("/")
        pods = (book.pod(namespace, called) for book in self._books)
        return next((pod.labels.known for pod in pods if pod and pod.labels.complete), None)
