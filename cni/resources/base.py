"""What every resource is, and how it is kept in the node's state."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from cni.protocol.result import Result
from cni.resources.world import World

_KINDS: dict[str, type[Resource]] = {}


class Resource:
    """One thing that must exist for an attachment; a frozen dataclass of plain values.

    `ensure` makes it so and tells `world.created` what it had to create; already so is success.
    `differences` names, one line each, where the kernel is not as `ensure` left it.
    `remove` takes it away again; removing nothing is success.
    `describe` is one line for people.

    A `shared` resource serves several attachments: DEL leaves it alone, and a failed ADD takes back
    what it created only while no other call runs. One that also `retires` goes with the last
    attachment that uses it.
    """

    shared: ClassVar[bool] = False
    retires: ClassVar[bool] = False

    def __init_subclass__(cls) -> None:
        _KINDS[cls.__name__] = cls

    def ensure(self, world: World) -> None:
        """Make it so."""
        raise NotImplementedError

    def differences(self, world: World) -> Iterator[str]:
        """Name what is not so."""
        yield from ()

    def remove(self, world: World) -> None:
        """Take it away; the default is for what vanishes with its link."""

    def describe(self) -> str:
        """Say what it is in one line."""
        raise NotImplementedError

    @property
    def place(self) -> object:
        """What it occupies: of two resources with one place, the later `ensure` replaces the other."""
        return self

    @property
    def transaction(self) -> object:
        """What it changes in one step together with its neighbours in a plan; None for what is a step of its own."""
        return None

    def ensure_together(self, step: Sequence[Resource], world: World) -> None:
        """Make so what has one transaction; this resource is the first of it."""
        raise NotImplementedError

    def details(self) -> Iterator[str]:
        """What else to print of it for people, line by line."""
        yield from ()

    def accepting(self, reported: Result) -> Resource:
        """This resource as the chain's final result reports it, where later plugins may change it."""
        return self


def encode(resource: Resource) -> dict[str, Any]:
    """A resource as a JSON object that `decode` reads back."""
    return {"kind": type(resource).__name__, **vars(resource)}


def decode(raw: dict[str, Any]) -> Resource:
    """The resource an object of `encode` stands for. KeyError for a kind this version lacks."""
    fields = {key: tuple(value) if isinstance(value, list) else value for key, value in raw.items() if key != "kind"}
    return _KINDS[raw["kind"]](**fields)
