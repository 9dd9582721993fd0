"""What can exist. A new kind of resource is a new frozen dataclass here, named in ROOMS and in __init__.pyi; every verb then knows it.

A module of this package is loaded when somebody asks for one of its names (PEP 562), so that a call loads the kinds it has.
"""

from cni.resources.base import ROOMS, Difference, Resource, decoded, encoded, key_of, named, uses_of

__getattr__ = named
__all__ = [  # noqa: PLE0604 - __init__.pyi has them all
    "Difference",
    "Resource",
    "decoded",
    "encoded",
    "key_of",
    "uses_of",
    *(name for names in ROOMS.values() for name in names),
]
