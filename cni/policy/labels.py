"""Labels, and selectors of them (Kubernetes, "Labels and Selectors"), where not everything may be known."""

from __future__ import annotations

from collections.abc import Mapping

from cni.values import dataclass

#: The operators of an expression, and whether each has values.
OPERATORS = {"In": True, "NotIn": True, "Exists": False, "DoesNotExist": False}


@dataclass(frozen=True)
class Labels:
    """What is known of an object's labels; `complete` if it has no others."""

    known: Mapping[str, str]
    complete: bool = True


#: Every namespace has its name as a label (Kubernetes, "Automatic labelling").
_NAME_LABEL = "kubernetes.io/metadata.name"


def of_namespace(name: str, labels: Labels | None) -> Labels:
    """A namespace's labels; of one without an object its name is known."""
    found = labels or Labels({}, complete=False)
    return Labels({**found.known, _NAME_LABEL: name}, found.complete)


@dataclass(frozen=True)
class Requirement:
    """One condition of a selector; `operator` is one of OPERATORS."""

    key: str
    operator: str
    values: frozenset[str] = frozenset()

    def holds(self, labels: Labels) -> bool | None:
        """Whether labels meet it; None where that is not known."""
        value = labels.known.get(self.key)
        if value is None and not labels.complete:
            return None
        if self.operator in ("In", "NotIn"):
            return (value in self.values) is (self.operator == "In")
        return (value is not None) is (self.operator == "Exists")


@dataclass(frozen=True)
class Selector:
    """Conditions that all must hold; none selects everything. It is not `complete` where some cannot be read."""

    requirements: tuple[Requirement, ...] = ()
    complete: bool = True

    def selects(self, labels: Labels) -> bool | None:
        """Whether it selects an object with these labels; None where what is not known decides."""
        answers = [item.holds(labels) for item in self.requirements]
        if False in answers:
            return False
        return True if self.complete and None not in answers else None


#: Selects all there is.
EVERYTHING = Selector()
