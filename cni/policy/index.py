"""The pods of a feed by namespace, label and address: who asks for those that a selector means looks at few others."""

from __future__ import annotations

from collections.abc import Iterable

from cni.policy.labels import Selector
from cni.policy.objects import Pod

_Label = tuple[str, str]


class PodIndex:
    """Pods as their objects have them, kept as the feed goes on."""

    def __init__(self, pods: Iterable[Pod]) -> None:
        self._pods: dict[str, dict[str, Pod]] = {}
        #: Names by namespace and label; of those whose labels are not all known, by None.
        self._named: dict[str, dict[_Label | None, dict[str, None]]] = {}
        self._saying: dict[str, dict[tuple[str, str], None]] = {}
        for pod in pods:
            self.put(pod)

    def put(self, pod: Pod) -> None:
        """Know a pod, instead of what was known of its name."""
        self.drop(pod.namespace, pod.name)
        self._pods.setdefault(pod.namespace, {})[pod.name] = pod
        named = self._named.setdefault(pod.namespace, {})
        for label in _labels(pod):
            named.setdefault(label, {})[pod.name] = None
        for address in pod.addresses:
            self._saying.setdefault(address, {})[pod.namespace, pod.name] = None

    def drop(self, namespace: str, name: str) -> None:
        """Know nothing of a pod."""
        pods = self._pods.get(namespace, {})
        pod = pods.pop(name, None)
        if pod is None:
            return
        named = self._named[namespace]
        for label in _labels(pod):
            named[label].pop(name)
            if not named[label]:  # of a job nobody has its labels again
                del named[label]
        if not pods:
            del self._pods[namespace], self._named[namespace]
        for address in dict.fromkeys(pod.addresses):  # a status may say one twice
            self._saying[address].pop((namespace, name))
            if not self._saying[address]:
                del self._saying[address]

    def namespaces(self) -> list[str]:
        """Those that have pods."""
        return list(self._pods)

    def like(self, namespace: str, selector: Selector) -> list[Pod]:
        """Pods of a namespace: all that a selector means, or may mean, and few others."""
        pods, named = self._pods.get(namespace, {}), self._named.get(namespace, {})
        fewest: set[str] | None = None
        for wanted in selector.requirements:
            if wanted.operator == "In":
                found = {name for value in wanted.values for name in named.get((wanted.key, value), ())}
                fewest = found if fewest is None or len(found) < len(fewest) else fewest
        if fewest is None:
            return list(pods.values())
        return [pods[name] for name in dict.fromkeys([*fewest, *named.get(None, ())])]

    def saying(self, address: str) -> Iterable[tuple[str, str]]:
        """The pods whose objects say that an address is theirs, by namespace and name."""
        return self._saying.get(address, ())


def _labels(pod: Pod) -> list[_Label | None]:
    return [*pod.labels.known.items(), *([] if pod.labels.complete else [None])]
