"""A member that is played: it says who the host is, and grants blocks in a given order, by writing what a member writes."""

from __future__ import annotations

import ipaddress
import threading
from collections.abc import Callable, Iterable
from contextlib import closing
from typing import Any, Self, TypeVar

from lab import PATIENCE, Host

from cni.cluster.blocks import block_of
from cni.cluster.model import Block
from cni.naming import vtep_mac
from cni.state import FILE, Store
from cni.state.membership import HELD, Member, Unsaid, Wish

T = TypeVar("T")


def me(host: Host, vtep: str = "192.0.2.11", **keys: Any) -> Member:
    """Who a host is in its cluster."""
    return Member(host.name, f"machine of {host.name}", "a life", vtep, vtep_mac("", host.name), **keys)


def asked(host: Host, question: Callable[[Store], T]) -> T:
    """What a host's state answers, or has done to it in one transaction."""
    with closing(Store(host.folder / FILE, PATIENCE)) as store:
        store.prepare()
        with store.transaction():
            store.outlive()
            return question(store)


def said(host: Host, network: str = "net") -> dict[str, Unsaid]:
    """What the cluster is told of a host's addresses."""
    return {item.address: item for item in asked(host, lambda store: store.said_of(network))}


class Played:
    """It grants what is wished for out of `spans`, as long as there are some, once it is told to. Use it with `with`."""

    def __init__(self, host: Host, spans: Iterable[str], **keys: Any) -> None:
        self.host, self.spans = host, list(spans)
        self.faults: list[BaseException] = []
        self.may = threading.Event()
        self.may.set()
        self._ended = threading.Event()
        asked(host, lambda store: store.put_member(me(host, **keys)))
        self._thread = threading.Thread(target=self._run)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()
        assert not self.faults

    def put(self, network: str, span: str, state: str = HELD) -> None:
        """Have a block."""
        asked(self.host, lambda store: self._put(store, network, span, state))

    def _put(self, store: Store, network: str, span: str, state: str = HELD) -> None:
        member = store.member()
        assert member
        store.put_block(Block(network, span, member.node, member.machine), state)

    def _run(self) -> None:
        try:
            with closing(Store(self.host.folder / FILE, PATIENCE)) as store:
                while not self._ended.wait(0.002):
                    if self.may.is_set() and (store.wishes() or any(why is None for _, why in store.shared())):
                        with store.transaction():
                            self._turn(store)
        except BaseException as error:  # noqa: BLE001 - told when it ends
            self.faults.append(error)

    def _turn(self, store: Store) -> None:
        for network, refused in store.shared():
            if refused is None:
                store.refuse_network(network.name, "")
        for wish in [item for item in store.wishes() if not item.answer]:
            span = self._span(store, wish)
            if span:
                self._put(store, wish.network, span)
            store.answer(wish, "" if span else "no block is free")

    def _span(self, store: Store, wish: Wish) -> str:
        fitting = [span for span in self.spans if ipaddress.ip_network(span).version == wish.family]
        if wish.address:
            (network, _), *_ = store.shared(wish.network)
            asked_for = block_of(network, ipaddress.ip_address(wish.address))
            fitting = [span for span in fitting if span == asked_for]
        for span in fitting[:1]:
            self.spans.remove(span)
        return next(iter(fitting), "")
