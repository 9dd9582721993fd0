"""Dataclasses, as far as this suite uses them, for a call that has no time to make them.

`dataclasses` writes each class's methods as text and compiles it, for which it needs `inspect` and `ast`: half a millisecond a
class and four to begin with, in a process that lives for fifty and makes sixty of them. Here the methods are closures over
the fields. What they do is the same, and the same for type checkers, which are shown the standard library's own names;
``tests/test_values.py`` compares the two. Left out is what nobody here uses: order, slots, InitVar, `init` and `repr` of a
field, `eq` and the like of a class.
"""

from __future__ import annotations

from operator import attrgetter, itemgetter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from dataclasses import dataclass, field, fields, replace
    from typing import Any

__all__ = ["dataclass", "field", "fields", "replace"]

_MISSING: Any = object()
_FIELDS = "__value_fields__"


class Field:
    """One field: `type` is its annotation; without `compare` it is left out of equality and hash."""

    def __init__(self, default: Any = _MISSING, default_factory: Any = _MISSING, *, compare: bool = True) -> None:
        self.name = ""
        self.type: Any = None
        self.default = default
        self.default_factory = default_factory
        self.compare = compare


def _dataclass(cls: type[Any] | None = None, /, *, frozen: bool = False, kw_only: bool = False) -> Any:
    """Give a class `__init__`, `__eq__`, `__hash__` and `__repr__` by its annotations; one that is frozen refuses assignment."""

    def made(cls: type[Any]) -> type[Any]:
        known = {**getattr(cls, _FIELDS, {}), **{name: _field_of(cls, name) for name in _annotated(cls)}}
        setattr(cls, _FIELDS, known)
        methods = _methods(cls, known, frozen=frozen, kw_only=kw_only)
        for name in methods.keys() - vars(cls).keys():
            setattr(cls, name, methods[name])
        return cls

    return made(cls) if cls else made


def _fields(value: Any) -> tuple[Field, ...]:
    """The fields of a class or of one of its values, in order."""
    return tuple(getattr(value, _FIELDS).values())


def _replace(value: Any, /, **changes: Any) -> Any:
    """A value with some fields changed."""
    kept = {name: getattr(value, name) for name in getattr(value, _FIELDS) if name not in changes}
    return type(value)(**kept, **changes)


def _annotated(cls: type[Any]) -> list[str]:
    """The names a class itself annotates, but for class variables."""
    annotations: Mapping[str, Any] = vars(cls).get("__annotations__", {})
    return [name for name, said in annotations.items() if not str(said).removeprefix("typing.").startswith("ClassVar")]


def _field_of(cls: type[Any], name: str) -> Field:
    """A field; its default is left in the class, as one would expect of a class with such a line."""
    given = vars(cls).get(name, _MISSING)
    found = given if isinstance(given, Field) else Field(given)
    found.name, found.type = name, vars(cls)["__annotations__"][name]
    if found.default is not _MISSING:
        setattr(cls, name, found.default)
    elif given is not _MISSING:
        delattr(cls, name)
    return found


def _methods(cls: type[Any], known: dict[str, Field], *, frozen: bool, kw_only: bool) -> dict[str, Any]:
    names = tuple(known)
    compared = _taken(attrgetter, [name for name in names if known[name].compare])

    def told(self: Any) -> str:
        return f"{type(self).__qualname__}({', '.join(f'{name}={getattr(self, name)!r}' for name in names)})"

    def equal(self: Any, other: Any) -> bool:
        return compared(self) == compared(other) if other.__class__ is self.__class__ else NotImplemented

    def hashed(self: Any) -> int:
        return hash(compared(self))

    return {
        "__init__": _init_of(cls, known, kw_only=kw_only),
        "__repr__": told,
        "__eq__": equal,
        "__hash__": hashed if frozen else None,
        "__match_args__": () if kw_only else names,
        **({"__setattr__": _refuse, "__delattr__": _refuse} if frozen else {}),
    }


def _taken(getter: Callable[..., Callable[[Any], Any]], names: list[str]) -> Callable[[Any], tuple[Any, ...]]:
    """What `attrgetter` or `itemgetter` takes by some names, as a tuple however many there are."""
    if len(names) > 1:
        return getter(*names)
    each = [getter(name) for name in names]
    return lambda value: tuple(take(value) for take in each)


def _init_of(cls: type[Any], known: dict[str, Field], *, kw_only: bool) -> Callable[..., None]:
    names = list(known)
    whole = -1 if kw_only else len(names)
    complete = _completing(cls, known, positional=0 if kw_only else len(names))
    after = getattr(cls, "__post_init__", None)

    def init(self: Any, /, *given: Any, **named: Any) -> None:
        if named or len(given) != whole:
            given = complete(given, named)
        self.__dict__.update(zip(names, given, strict=False))
        if after:
            after(self)

    return init


def _completing(
    cls: type[Any], known: dict[str, Field], positional: int
) -> Callable[[tuple[Any, ...], dict[str, Any]], tuple[Any, ...]]:
    """How what a value is made with becomes the values of all its fields, in order."""
    names, pick = list(known), _taken(itemgetter, list(known))
    defaults = {name: item.default for name, item in known.items() if item.default is not _MISSING}
    factories = {name: item.default_factory for name, item in known.items() if item.default_factory is not _MISSING}
    ends = {
        at: tuple(map(defaults.get, names[at:])) for at in range(positional + 1) if defaults.keys() >= {*names[at:]}
    }

    def complete(given: tuple[Any, ...], named: dict[str, Any]) -> tuple[Any, ...]:
        if not named and len(given) in ends:
            return given + ends[len(given)]
        if named.keys() == known.keys() and not given:
            return pick(named)
        values = defaults | named
        if given:
            values |= zip(names, given, strict=False)
        for name, make in factories.items():
            if name not in values:
                values[name] = make()
        twice = given and not named.keys().isdisjoint(names[: len(given)])
        if values.keys() != known.keys() or len(given) > positional or twice:
            raise TypeError(f"{cls.__qualname__}({', '.join(names)}) is given {given} and {named}")
        return pick(values)

    return complete


def _refuse(self: object, name: str, *value: object) -> None:
    raise AttributeError(f"cannot assign to or delete field {name!r} of a frozen {type(self).__qualname__}")


if not TYPE_CHECKING:
    dataclass, field, fields, replace = _dataclass, Field, _fields, _replace
