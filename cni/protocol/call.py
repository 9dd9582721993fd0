"""One call of a plugin: the CNI_* environment, read and validated before anything else.

Source: CNI specification 1.1.0, section 2 "Execution Protocol", and libcni's validation rules.
Nothing is imported here, not even typing, so a wrong environment is answered as fast as VERSION.
"""

from cni.errors import CniError, InvalidEnvironment

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping

_NEEDED = {
    "ADD": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"),
    "CHECK": ("CNI_CONTAINERID", "CNI_NETNS", "CNI_IFNAME", "CNI_PATH"),
    "DEL": ("CNI_CONTAINERID", "CNI_IFNAME", "CNI_PATH"),
    "GC": ("CNI_PATH",),
    "STATUS": ("CNI_PATH",),
    "VERSION": (),
}

_ARGS = frozenset(
    (
        *("IgnoreUnknown", "IP", "MAC", "GATEWAY", "HOSTNAME"),
        *("K8S_POD_NAMESPACE", "K8S_POD_NAME", "K8S_POD_UID", "K8S_POD_INFRA_CONTAINER_ID"),
    )
)
_WORD = frozenset("ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789")
_NAME = _WORD | frozenset("_.-")

IFNAME_BYTES = 15
_SPACE = 32
_BREAKING = frozenset("\"'`\\;#{}")


class Call:
    """What the runtime asks: the verb, whom for, and where. It is not changed; see `having`.

    `args` is CNI_ARGS as it came; `path` are the folders delegates are searched in.
    `own_netns_allowed` is libcni's CNI_NETNS_OVERRIDE. `environ` is all of it, for whom the call is passed on to.
    """

    def __init__(
        self,
        command: str,
        container: str = "",
        netns: str = "",
        ifname: str = "",
        args: str = "",
        path: tuple[str, ...] = (),
        own_netns_allowed: bool = False,
        environ: "Mapping[str, str] | None" = None,
    ) -> None:
        self.command = command
        self.container = container
        self.netns = netns
        self.ifname = ifname
        self.args = args
        self.path = path
        self.own_netns_allowed = own_netns_allowed
        self.environ = environ or {}

    @classmethod
    def read(cls, environ: "Mapping[str, str]") -> "Call":
        """Read the environment. Raises InvalidEnvironment naming each variable at fault."""
        command = _command(environ)
        needed = _NEEDED[command]
        if missing := [name for name in needed if not environ.get(name)]:
            raise InvalidEnvironment(f"{command} needs {', '.join(missing)} in the environment")
        if "CNI_CONTAINERID" in needed:
            _refuse_bad_container(environ["CNI_CONTAINERID"])
        if command == "ADD":
            _refuse_other_bytes(environ)
        if "CNI_IFNAME" in needed:  # what an earlier release let in is taken away yet
            (refuse_unruly_ifname if command == "ADD" else refuse_bad_ifname)(environ["CNI_IFNAME"], "CNI_IFNAME")
        return cls(
            command,
            environ.get("CNI_CONTAINERID", ""),
            _as_text(environ.get("CNI_NETNS", "")),
            environ.get("CNI_IFNAME", ""),
            _as_text(environ.get("CNI_ARGS", "")),
            tuple(folder for folder in environ.get("CNI_PATH", "").split(":") if folder),
            environ.get("CNI_NETNS_OVERRIDE", "").upper() in ("TRUE", "1"),
            environ,
        )

    def having(self, **changes: str) -> "Call":
        """This call with some fields changed."""
        return Call(**(self.__dict__ | changes))

    def arguments(self) -> dict[str, str]:
        """CNI_ARGS as a mapping. Raises InvalidEnvironment for anything but ``K=V;K=V``, and for keys
        nobody here knows unless ``IgnoreUnknown=1`` is among them.
        """
        pairs = {}
        for item in filter(None, self.args.split(";")):
            key, equals, value = item.partition("=")
            if not key or not equals:
                raise InvalidEnvironment(f"CNI_ARGS: {item!r} is not KEY=VALUE")
            pairs[key] = value
        unknown = [key for key in pairs if key not in _ARGS]
        if unknown and pairs.get("IgnoreUnknown", "").lower() not in ("1", "true"):
            raise InvalidEnvironment(f"CNI_ARGS: unknown {', '.join(unknown)} and no IgnoreUnknown=1")
        return pairs

    @property
    def pod(self) -> str:
        """``namespace/name`` of the Kubernetes pod, or nothing where CNI_ARGS does not say."""
        pairs = dict(item.partition("=")[::2] for item in self.args.split(";"))
        namespace, name = pairs.get("K8S_POD_NAMESPACE", ""), pairs.get("K8S_POD_NAME", "")
        return f"{namespace}/{name}" if namespace and name else ""


def is_name(text: str) -> bool:
    """Whether a container id or network name is one: a letter or digit, then also ``_ . -``."""
    return text[:1] in _WORD and bool(text) and _NAME.issuperset(text)


def refuse_bad_ifname(name: str, where: str, error: type[CniError] = InvalidEnvironment) -> None:
    """Raise `error` unless the kernel would take `name` (net/core/dev.c, dev_valid_name)."""
    if name in ("", ".", ".."):
        raise error(f"{where}: {name!r} is not an interface name")
    if len(name.encode("utf-8", "surrogateescape")) > IFNAME_BYTES:
        raise error(f"{where}: {name!r} is longer than {IFNAME_BYTES} bytes")
    if any(char in "/:%" or char.isspace() or not char.isprintable() for char in name):
        raise error(f"{where}: {name!r} has a character no interface name may have")


def refuse_unruly_ifname(name: str, where: str, error: type[CniError] = InvalidEnvironment) -> None:
    """Raise `error` unless packet rules can name an interface so, and mean it alone.

    The kernel takes more: but a quote ends a word of iptables and nft, and ``+`` or ``*`` at the end stands for any ending.
    """
    refuse_bad_ifname(name, where, error)
    if not _BREAKING.isdisjoint(name) or name[0] in "!-" or name[-1] in "+*":
        raise error(f"{where}: {name!r} would mean something else in a packet rule")


def _command(environ: "Mapping[str, str]") -> str:
    command = environ.get("CNI_COMMAND", "")
    if command not in _NEEDED:
        raise InvalidEnvironment(f"CNI_COMMAND: {command!r} is none of {', '.join(_NEEDED)}")
    return command


def _refuse_other_bytes(environ: "Mapping[str, str]") -> None:
    """What is kept of a call is text; Python keeps other bytes as halves of characters. What a pod is called comes into files of lines."""
    if any(ord(char) < _SPACE for char in environ.get("CNI_ARGS", "")):
        raise InvalidEnvironment(f"CNI_ARGS: {environ['CNI_ARGS']!r} has control characters")
    for name in ("CNI_ARGS", "CNI_NETNS"):
        if any("\ud800" <= char <= "\udfff" for char in environ.get(name, "")):
            raise InvalidEnvironment(f"{name}: {environ[name]!r} has bytes that are no UTF-8")


def _as_text(value: str) -> str:
    """The same where it is one. Nothing is recorded of what is none, so by a verb that ends something it leads nowhere."""
    return value.encode("utf-8", "surrogatepass").decode(errors="replace")


def _refuse_bad_container(container: str) -> None:
    if not is_name(container):
        raise InvalidEnvironment(
            f"CNI_CONTAINERID: {container!r} must be letters, digits, '_', '.', '-' and begin with a letter or digit"
        )
