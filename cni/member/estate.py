"""This host's blocks: had, kept, lost and given up, in the store and in the state, so that each step can be the last.

The store is asked before the state says that a block is had, and after it says that a block leaves: whatever a process that was
ended has left, the next one finds in either and goes on.
"""

from __future__ import annotations

import ipaddress
import math
import time
from collections.abc import Callable, Iterable, Iterator

from cni import log
from cni.cluster.blocks import block_of, host_address, next_block
from cni.cluster.model import LAYER_2, Block, Endpoint, Network
from cni.cluster.pools import Pool
from cni.cluster.store import ClusterStore, Session
from cni.errors import Conflict
from cni.member import figures, survivors
from cni.member.conflists import Conflists, Written
from cni.member.ledger import Ledger
from cni.member.steward import differing, free, is_crowded, is_roomy, of_pool, short, spare
from cni.state import Store
from cni.state.membership import HELD, LEAVING, LOST, UNSURE, Holding, Wish

#: How many claims of one pool are tried in a row; the next turn goes on.
_TRIES = 64
_IDLE_SECONDS = 3600.0


class Estate:
    """What a host does about its blocks; `idle` seconds is how long two may be empty. With blocks it has pods, by its `conflists` or by
    what was `written` for its runtime.
    """

    def __init__(
        self,
        store: ClusterStore,
        ledger: Ledger,
        idle: float = _IDLE_SECONDS,
        conflists: Conflists | None = None,
        written: Written | None = None,
    ) -> None:
        self._conflists, self._written = conflists, written
        self.store = store
        self.ledger = ledger
        self._idle = idle
        self._since: dict[tuple[str, str], float] = {}
        #: The networks this process has asked for; the store compares its claims with what it was told then.
        self._declared: set[str] = set()
        #: The networks this process has a block of as a guest; since when it is not to; and when it had to end.
        self._visited: set[str] = set()
        self._overstayed: dict[str, float] = {}
        self._sent_away: dict[str, float] = {}

    def look_after(self, session: Session, state: Store, clock: Callable[[], float] = time.monotonic) -> None:
        """One turn. Raises Unreachable and SessionLost, after which another turn finishes what this one began."""
        if self._written:
            self._written.share(state)
        for network, refused in state.shared():
            self._agree(session, state, network, refused)
        self._keep(session, state)
        agreed = {network.name: network for network, refused in state.shared() if refused == ""}
        self._grant(session, state, agreed)
        if self._conflists:
            self._conflists.keep(state, self.store.assigned(session), lambda: self.store.serves(session))
        if self.store.assigns:
            return
        for network in agreed.values():
            self._have_ahead(session, state, network)
        self._be_guest(session, state, clock())
        self._let_go(session, state, clock())

    def defend(self, session: Session, state: Store, block: Block) -> None:
        """The store does not have a block as this host's, of which it may have lost its memory. Raises Unreachable and SessionLost."""
        if not self._claim(session, state, block):
            self._lose(state, block)

    def _lose(self, state: Store, block: Block) -> None:
        """A block is another host's by now: nothing is given of it or said of it, and it is kept in mind while pods have
        addresses of it.
        """
        with state.transaction():
            for holding in _like(state, block):
                if holding.leased:
                    state.put_block(block, LOST)
                    state.unlearn(block)
                    why = f"{holding.leased} of its addresses are pods' of this host, which are cut off"
                    log.warning(
                        "member", f"the block {block.span} is another host's by now: {why}", network=block.network
                    )
                else:
                    state.drop_block(block)
                    state.silence(block)

    # --- networks

    def _agree(self, session: Session, state: Store, network: Network, refused: str | None) -> None:
        """Have the cluster take a network as it is here, or know why not."""
        known = self.ledger.network(network.name)
        if refused == "" and known == network and network.name in self._declared:
            return
        known = self.store.declare(session, network)
        self._declared.add(network.name)
        self.ledger.note([known])
        if (why := differing(network, known)) != refused:
            with state.transaction():
                state.refuse_network(network.name, why)
            if why:
                log.warning("member", why, network=network.name)

    # --- what there is

    def _keep(self, session: Session, state: Store) -> None:
        """Have in the state what the store says is this host's, and in the store what the state says."""
        known = {holding.block: holding for holding in state.blocks()}
        ours = {*self.ledger.own_blocks(session.node.machine)}
        for block in sorted(ours - known.keys(), key=lambda block: block.key):
            self._claim(session, state, block)
        for block, holding in known.items():
            if holding.state == LEAVING:
                self._give_up(session, state, block)
            elif holding.state == LOST and not holding.leased:
                with state.transaction():
                    state.drop_block(block)
            elif holding.state == LOST and self.ledger.block(block.network, block.span) in (None, block):
                self._claim(session, state, block)
            elif holding.state == UNSURE or (holding.state == HELD and block not in ours):
                self.defend(session, state, block)

    def _claim(self, session: Session, state: Store, block: Block) -> bool:
        """Have a block, in the store and then here; others may speak to this host by its own address in it."""
        try:
            had = self.store.claim(session, block)
        except Conflict:  # the network is another since; the next turn asks which
            self._declared.discard(block.network)
            raise
        figures.CLAIMS.add(outcome="claimed" if had else "taken")
        if not had:
            return False
        self.ledger.note([block])
        network, anothers = self._network(state, block.network), survivors.of_another_network([block])
        with state.transaction():
            state.put_block(block, HELD)
            survivors.take_up_anothers(state, anothers)
            if network and network.mode == LAYER_2 and network.vni:
                state.say([Endpoint(block.network, host_address(network, block.span), block.node, session.node.mac)])
        return True

    def _network(self, state: Store, name: str) -> Network | None:
        return self.ledger.network(name) or next((network for network, _ in state.shared(name)), None)

    # --- what there is to be

    def _grant(self, session: Session, state: Store, agreed: dict[str, Network]) -> None:
        """Answer what calls wait for."""
        refusals = {network.name: refused for network, refused in state.shared()}
        for wish in state.wishes():
            if wish.answer:
                continue
            network = agreed.get(wish.network)
            answer = self._granted(session, state, network, wish) if network else refusals.get(wish.network) or ""
            if answer is None:
                continue
            with state.transaction():
                state.answer(wish, answer)

    def _granted(self, session: Session, state: Store, network: Network, wish: Wish) -> str | None:
        """Why a call cannot have what it waits for; empty: it can, by now. None: the cluster is still to say which blocks are this host's."""
        if wish.address:
            return self._granted_address(session, state, network, wish.address)
        pools = [pool for pool in network.pools if ipaddress.ip_network(pool.subnet).version == wish.family]
        for pool in pools:
            if free(network, of_pool(pool, state.blocks(network.name))):
                return ""
        if self.store.assigns:
            given = [one.block.span for one in state.blocks(network.name) if one.block.addresses.version == wish.family]
            return f"no address is free in what this host was given: {', '.join(given)}" if given else None
        if any(self._one_more(session, state, network, pool) for pool in pools):
            return ""
        return f"no block is free in {' and '.join(pool.subnet for pool in pools) or f'IPv{wish.family}'}"

    def _granted_address(self, session: Session, state: Store, network: Network, address: str) -> str:
        span = block_of(network, ipaddress.ip_address(address))
        if span is None:
            return f"{address} is in no subnet of {network.name}"
        block = Block(network.name, span, session.node.name, session.node.machine)
        if self._claim(session, state, block):
            return ""
        owner = self.ledger.block(network.name, span)
        return f"{address} is in a block of {owner.node if owner else 'another host'}"

    def _have_ahead(self, session: Session, state: Store, network: Network) -> None:
        for pool in short(network, state.blocks(network.name)):
            while pool in short(network, state.blocks(network.name)):
                if not self._one_more(session, state, network, pool):
                    break

    def _one_more(self, session: Session, state: Store, network: Network, pool: Pool) -> bool:
        """Whether another block of a pool was had."""
        taken = {block.span for block in self.ledger.blocks(network.name)}
        taken |= {holding.block.span for holding in state.blocks(network.name)}
        for _ in range(_TRIES):
            span = next_block(network, pool, session.node.name, taken)
            if span is None:
                return False
            if self._claim(session, state, Block(network.name, span, session.node.name, session.node.machine)):
                return True
            taken.add(span)
        return False

    # --- networks that only other hosts have pods of

    def _be_guest(self, session: Session, state: Store, now: float) -> None:
        """Have a block of each: without an address there this host is answered by nobody. Where blocks are few they are for pods."""
        shared = {network.name for network, _ in state.shared()}
        for network in self.ledger.networks():
            ended = now - self._sent_away.get(network.name, -math.inf) < self._idle
            if network.name in shared or not network.vni or ended or not self.ledger.is_lived_in(network.name):
                continue
            for pool in network.pools:
                held, known = of_pool(pool, state.blocks(network.name)), self.ledger.blocks(network.name)
                if not held and is_roomy(network, pool, known) and self._one_more(session, state, network, pool):
                    self._visited.add(network.name)

    def _guests(self, state: Store, now: float) -> Iterator[Block]:
        """The blocks a guest is to give up: of networks that are others by now, or that nobody has pods of, or whose blocks get few.
        Of what a host has had before, pods may come back after its boot.
        """
        names = state.guest_of()
        blocks = [one.block for one in state.blocks() if one.block.network in names and one.state == HELD]
        self._overstayed = {
            name: self._overstayed.get(name, now) for name in names if self._is_in_the_way(name, blocks)
        }
        for block in blocks:
            network, since = self.ledger.network(block.network), self._overstayed.get(block.network, now)
            if network is None or block_of(network, block.addresses[0]) != block.span:
                yield block
            elif block.network in self._overstayed and (block.network in self._visited or now - since >= self._idle):
                if self.ledger.is_lived_in(block.network):
                    self._sent_away[block.network] = now
                yield block

    def _is_in_the_way(self, name: str, blocks: list[Block]) -> bool:
        network, known = self.ledger.network(name), self.ledger.blocks(name)
        mine = [network.pool_of(block.addresses[0]) for block in blocks if block.network == name] if network else []
        crowded = any(network and pool and is_crowded(network, pool, known) for pool in mine)
        return crowded or not self.ledger.is_lived_in(name)

    # --- what is not needed

    def _let_go(self, session: Session, state: Store, now: float) -> None:
        """Give up what was not needed for long, and what nothing can be given of: all hosts may have another network by now."""
        for block in (*self._useless(state), *self._guests(state, now)):
            if self._leaves(state, block):
                self._give_up(session, state, block)
        spares = {(one.block.network, one.block.span): one.block for one in self._spares(state)}
        self._since = {place: self._since.get(place, now) for place in spares}
        for place, since in self._since.items():
            if now - since >= self._idle and self._leaves(state, spares[place]):
                self._give_up(session, state, spares[place])

    @staticmethod
    def _useless(state: Store) -> list[Block]:
        """Empty blocks of networks that the cluster has differently, or of which it is the last to keep them so."""
        refused = {network.name for network, why in state.shared() if why}
        return [
            one.block for one in state.blocks() if one.block.network in refused and one.state == HELD and not one.leased
        ]

    def _spares(self, state: Store) -> Iterable[Holding]:
        holdings = state.blocks()
        for name in {holding.block.network for holding in holdings}:
            if network := self._network(state, name):
                yield from spare(network, [one for one in holdings if one.block.network == name])

    def _leaves(self, state: Store, block: Block) -> bool:
        """Whether a block, from now on, gives nothing: nobody has an address of it, and nothing of it is still to be said."""
        with state.transaction():
            leased = any(holding.leased for holding in _like(state, block))
            if leased or state.unsaid_of(block, 1):
                return False
            state.put_block(block, LEAVING)
            return True

    def _give_up(self, session: Session, state: Store, block: Block) -> None:
        self.store.give_up(session, block)
        self.ledger.note(gone=[block.key])
        with state.transaction():
            state.drop_block(block)
            state.silence(block)


def _like(state: Store, block: Block) -> list[Holding]:
    return [holding for holding in state.blocks(block.network) if holding.block.span == block.span]
