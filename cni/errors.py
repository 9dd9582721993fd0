"""Every failure a caller can see, drawn as one tree.

Each class owns its CNI error code and says who must act::

    CniError
    ├── the caller sent something wrong           (codes of the CNI specification)
    │   ├── IncompatibleVersion   1   a cniVersion, or a verb that version lacks
    │   ├── UnsupportedField      2   a key this plugin does not know
    │   ├── InvalidEnvironment    4   a CNI_* variable
    │   ├── IoFailure             5   stdin or stdout
    │   ├── DecodingFailure       6   stdin is no JSON object
    │   ├── InvalidConfig         7   a value in the configuration
    │   └── InvalidNetns          8   CNI_NETNS is no network namespace, or is our own
    ├── TryAgainLater            11   a lock, a store: the runtime repeats the call
    │   ├── Busy                 11   another call is at it
    │   ├── Lacking              11   the machine has no memory, descriptor, thread or room left for it
    │   ├── Unreachable          11   the cluster's store does not answer, or not in time
    │   │   └── Forbidden        11   it does, and does not let this host do something
    │   ├── SessionLost          11   the store has not heard of this host for too long, and counts it as gone
    │   └── Compacted            11   the store has forgotten what changed since; all is to be read anew
    │       └── Replaced         11   the store is another, or an older copy of itself
    ├── the node cannot serve now                 (answers of STATUS)
    │   ├── Unavailable          50   no ADD can be served
    │   └── Degraded             51   and running pods may be cut off
    ├── the operator must look                    (ours, from 100)
    │   ├── KernelRefused       100   the kernel said no to what a valid configuration asked
    │   ├── Conflict            101   something foreign holds a name or an address we need
    │   ├── AddressTaken        102   a requested address belongs to another attachment
    │   ├── RangeExhausted      103   every address of a range set is leased
    │   ├── Drift               104   CHECK: what exists is not what we made
    │   ├── AlreadyAttached     105   ADD of an attachment that is complete
    │   ├── ToolFailed          106   nft, iptables or a delegate could not run or failed
    │   ├── Incomplete          107   several steps of a removal failed; all are named
    │   ├── Interrupted         108   a signal ended the call; what it did is undone
    │   └── NameTaken           109   another machine of the cluster has this host's name
    └── Internal                999   a bug: the traceback is in the log

    Stranded                    100   no CniError, so that nothing catches it on its way out: see there

What the machine refuses where nobody expects it (`REFUSALS`) is one of these, too, and no bug: see `refusal`.

Source: CNI specification 1.1.0, section 5 "Error", and libcni's `types.Error`.
"""

import errno

TYPE_CHECKING = False
if TYPE_CHECKING:
    from cni.resources import Difference


class CniError(Exception):
    """A failure that becomes one CNI error document.

    `msg` is one line naming what and where; `details` is optional further text.
    """

    code = 999

    def __init__(self, msg: str, details: str = "") -> None:
        super().__init__(msg)
        self.msg = msg
        self.details = details


class IncompatibleVersion(CniError):
    """The configuration's cniVersion is unknown, or lacks the requested verb."""

    code = 1


class UnsupportedField(CniError):
    """A key nobody here understands; the message holds key and value."""

    code = 2


class InvalidEnvironment(CniError):
    """A CNI_* variable is missing or malformed; the message names it."""

    code = 4


class IoFailure(CniError):
    """Standard input could not be read or standard output not written."""

    code = 5


class DecodingFailure(CniError):
    """Standard input (or a delegate's answer) is not one JSON object."""

    code = 6


class InvalidConfig(CniError):
    """A value in the network configuration; the message holds its JSON path."""

    code = 7


class InvalidNetns(CniError):
    """CNI_NETNS does not lead to a network namespace other than our own."""

    code = 8


class TryAgainLater(CniError):
    """A bounded wait ended; the same call may succeed later."""

    code = 11


class Busy(TryAgainLater):
    """Another call is at it, and does or leaves what there is to be done: the only such failure that may be passed over."""


class Unreachable(TryAgainLater):
    """The cluster's store does not answer, or not in time: what was asked for may have been done."""


class Forbidden(Unreachable):
    """The cluster's store does not let this host do something; the message names what, and with what."""


class SessionLost(TryAgainLater):
    """The cluster's store counts this host as gone: what it wants to write is not written."""


class Compacted(TryAgainLater):
    """The cluster's store cannot say any more what changed."""


class Replaced(Compacted):
    """The cluster's store is not the one that was heard, or an older copy of it."""


class Lacking(TryAgainLater):
    """The machine has no memory, descriptor, process or room left for what was asked."""


class Unavailable(CniError):
    """STATUS: this node cannot serve an ADD now."""

    code = 50


class Degraded(CniError):
    """STATUS: no ADD now, and running attachments may have lost connectivity."""

    code = 51


class KernelRefused(CniError):
    """The kernel refused a request; `errno` is its reason, 0 where there is none."""

    code = 100

    def __init__(self, msg: str, errno: int = 0) -> None:
        super().__init__(msg)
        self.errno = errno


class Unfinished(KernelRefused):
    """What was asked for may be there: the kernel was asked and not heard, or refused a later step."""


class Conflict(CniError):
    """Something that is not ours stands where ours must go; it is left untouched."""

    code = 101


class AddressTaken(CniError):
    """The requested address is leased to another attachment, or reserved."""

    code = 102


class RangeExhausted(CniError):
    """No address is left in a range set; the message names it."""

    code = 103


class Drift(CniError):
    """CHECK found `differences`; the message names the attachment and joins them."""

    code = 104

    def __init__(self, attachment: object, differences: "tuple[Difference, ...]") -> None:
        super().__init__(f"{attachment}: {'; '.join(item.line for item in differences)}")
        self.differences = differences


class AlreadyAttached(CniError):
    """This container already has this interface on this network."""

    code = 105


class ToolFailed(CniError):
    """A program we run for the caller is missing or failed; its own words are included."""

    code = 106


class Incomplete(CniError):
    """A removal did all it could; the message joins what failed."""

    code = 107


class Interrupted(CniError):
    """A signal ended the call after its changes were undone."""

    code = 108


class NameTaken(CniError):
    """Another machine of the cluster has this host's name."""

    code = 109


class Internal(CniError):
    """Something unforeseen; the traceback is in the log and on stderr."""

    code = 999


class Stranded(BaseException):
    """This thread is in a pod's namespace and cannot come home (setns(2) refused).

    Whatever would undo, go on or tidy up would do so in there: nothing may catch this but what ends the process.
    """

    code = KernelRefused.code
    details = ""

    def __init__(self, msg: str) -> None:
        super().__init__(msg)
        self.msg = msg


class Delegated(CniError):
    """A delegate plugin's own error, passed on with its own code where that says what failed."""

    def __init__(self, code: int, msg: str, details: str = "") -> None:
        super().__init__(msg, details)
        self.code = code


#: What the machine may refuse anywhere: a file, a descriptor, memory, also for a module that is loaded when it is needed.
REFUSALS = (OSError, MemoryError, ImportError)
_LACKING = (
    errno.EAGAIN, errno.EDQUOT, errno.EINTR, errno.EMFILE, errno.ENFILE, errno.ENOBUFS, errno.ENOMEM, errno.ENOSPC,
)  # fmt: skip


def refusal(error: BaseException) -> CniError | None:
    """What the machine refused, as an error of ours that says what and where; an error of ours is itself, and a bug is none."""
    if isinstance(error, CniError):
        return error
    if not isinstance(error, REFUSALS):
        return None
    if isinstance(error, ModuleNotFoundError):  # of a file that was refused, too
        return ToolFailed(f"{error} (in {_where(error)}): the installation is not whole, or cannot be read")
    number = getattr(error, "errno", None)
    file = f": {error.filename}" if isinstance(error, OSError) and error.filename else ""
    why = getattr(error, "strerror", None) or str(error) or "Cannot allocate memory"
    msg = f"{why}{file} (in {_where(error)})"
    found = Lacking(msg) if not isinstance(error, OSError) or number in _LACKING else KernelRefused(msg, number or 0)
    for note in getattr(error, "__notes__", ()):
        found.add_note(note)
    return found


class _OwnTerms:
    """Whatever the machine refuses within this raises a CniError."""

    def __enter__(self) -> None:
        return

    def __exit__(self, kind: object, error: "BaseException | None", _: object) -> None:
        if isinstance(error, REFUSALS) and (told := refusal(error)):
            raise told from error


own_terms = _OwnTerms()


def _where(error: BaseException) -> str:
    """The last place of ours on the way to an error."""
    at, where = error.__traceback__, "cni"
    while at:
        module = at.tb_frame.f_globals.get("__name__", "")
        where = f"{module}.{at.tb_frame.f_code.co_name}" if module.startswith("cni.") else where
        at = at.tb_next
    return where
