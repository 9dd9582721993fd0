"""stdin, stdout, signals and the exit code: what every executable does around the story.

VERSION and a wrong environment are answered from here with nothing heavy imported; everything else is
imported when the call is known to need it. This is the only place that catches what is unforeseen.
"""

import gc
import os
import sys

from cni.errors import CniError, Internal, Interrupted, IoFailure, Stranded, refusal
from cni.protocol.call import Call
from cni.protocol.versions import ANSWER, LATEST, SUPPORTED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from typing import Any

    from cni.verbs import Deliver

MAX_CONFIG_BYTES = 16 << 20
_SHORT = {'"': '\\"', "\\": "\\\\", "\b": "\\b", "\t": "\\t", "\n": "\\n", "\f": "\\f", "\r": "\\r"}


def cold(executable: str) -> int:
    """Serve one call by a process that ends with it; returns the exit code.

    It leaves its garbage to the kernel: what it loads is no garbage, and would be looked through a dozen times while it is
    loaded and twice when the interpreter ends, which takes a fifth of the call. Programs it starts do not hold its installation
    (launcher.c), which they may outlive.
    """
    _, held, number = sys.prefix.partition("/proc/self/fd/")
    try:
        if held:
            os.set_inheritable(int(number), False)
    except OSError:
        pass  # they hold it for a while, then
    gc.disable()
    try:
        code = main(executable)
        foreign = sys.modules.get("cni.kernel.foreign")
        return foreign.leave(code) if foreign else code
    finally:
        gc.freeze()


def main(executable: str, environ: "Mapping[str, str]" = os.environ, stdout: "Stdout | None" = None) -> int:
    """Serve the CNI call in `environ` by the plugin in the file `executable`, and print its document; returns the exit code."""
    name = os.path.basename(executable)
    if not environ.get("CNI_COMMAND"):
        return _introduce(name)
    answered = stdout or Stdout()
    try:
        call = Call.read(environ)
        if call.command == "VERSION":
            answered.write(ANSWER)
        else:
            _serve(executable, call, answered)
    except (CniError, Stranded) as error:
        return answered.fail(error)
    except BaseException as error:
        unforeseen = Internal(
            f"unforeseen: {type(error).__name__}: {error}", "the traceback is on stderr and in the log"
        )
        return answered.fail(_foreseen(error) or unforeseen)
    return 0


class Stdout:
    """The one JSON document a call prints, and the version to print it in.

    It goes to stdout, or to `elsewhere` together with the exit code it stands for; that raises OSError where it is not printed.
    What was printed stands: nothing follows it, and its code is the call's. A closed stdout is seen before anything is changed; its number is kept from being given to a file.
    """

    def __init__(self, elsewhere: "Callable[[int, bytes], None] | None" = None) -> None:
        self.version = LATEST
        self._put = elsewhere or _print
        self._broken = not elsewhere and _is_closed()
        self._told: int | None = None
        #: Why the call failed, whether or not somebody was told.
        self.failure: CniError | Stranded | None = None

    def refuse_closed(self) -> None:
        """Raise IoFailure where a result would reach nobody."""
        if self._broken:
            raise IoFailure("stdout is closed: nobody would get the result")

    def write(self, text: str, code: int = 0) -> None:
        """Print a document. Raises IoFailure."""
        self.refuse_closed()
        try:
            self._put(code, text.encode())
        except OSError as error:
            self._broken = True
            raise IoFailure(f"stdout: {error.strerror}") from None
        self._told = code

    def fail(self, error: CniError | Stranded) -> int:
        """Print an error, if somebody reads it and nothing was printed; the exit code. It loads nothing: there may be no descriptor left for it."""
        self.failure = error
        if self._told is not None:
            return self._told
        texts = {"msg": error.msg} | ({"details": error.details} if error.details else {})
        said = "".join(f', "{key}": {_quoted(text)}' for key, text in texts.items())
        try:
            self.write(f'{{"cniVersion": {_quoted(self.version)}, "code": {error.code}{said}}}\n', 1)
        except IoFailure:
            return 1
        return 1


def _quoted(text: str) -> str:
    """A string of JSON in ASCII, as json.dumps spells it."""
    return f'"{"".join(map(_spelled, text))}"'


def _spelled(char: str) -> str:
    number = ord(char)
    if number > 0xFFFF:
        return _spelled(chr(0xD7C0 + (number >> 10))) + _spelled(chr(0xDC00 | number & 0x3FF))
    return _SHORT.get(char) or (char if " " <= char <= "~" else f"\\u{number:04x}")


def _is_closed() -> bool:
    try:
        os.fstat(1)
    except OSError:
        while os.open(os.devnull, os.O_RDWR) < 1:  # 0 is given first, where stdin is closed too
            pass
        return True
    return False


def _print(_: int, data: bytes) -> None:
    while data:
        data = data[os.write(1, data) :]


def _serve(executable: str, call: Call, stdout: Stdout) -> None:
    from cni.kernel import signals
    from cni.plugin import name_of
    from cni.state.tally import counted

    signals.handle()
    stdout.refuse_closed()
    name = name_of(executable)
    with counted(name, call.command):
        _answer(name, call, stdout)


def _answer(name: str, call: Call, stdout: Stdout) -> None:
    import json

    from cni.naming import OWN_IPAM
    from cni.protocol import config

    netconf = config.parse(_stdin())
    if name == OWN_IPAM and netconf.get("ipam") and isinstance(netconf["ipam"], dict):
        netconf["ipam"]["type"] = OWN_IPAM  # it may be installed under another IPAM's name; the section is its own
    version = netconf.get("cniVersion") or SUPPORTED[0]
    if version in SUPPORTED:
        stdout.version = version  # what is wrong with the rest is told in it
    config.refuse_wrong_header(netconf, call.command)
    _tell_story(name, call, netconf, lambda result: _deliver(stdout, json.dumps(result, allow_nan=False)))


def _tell_story(name: str, call: Call, netconf: "dict[str, Any]", deliver: "Deliver") -> None:
    import time

    from cni import log
    from cni.kernel import signals
    from cni.plugin import load
    from cni.protocol.schema import given
    from cni.verbs import VERBS

    began = time.monotonic()
    facts = {"network": netconf["name"], "container": call.container, "ifname": call.ifname, "pod": call.pod}
    facts |= _trace_of(call)
    try:
        VERBS[call.command](load(name), call, given(netconf, name), deliver)
    except BaseException as error:
        signals.ignore()
        told = _foreseen(error) or error
        log.event(name, call.command, told, seconds=round(time.monotonic() - began, 4), **facts)
        raise told from error.__cause__
    if call.command != "STATUS":
        log.event(name, call.command, seconds=round(time.monotonic() - began, 4), **facts)


def _trace_of(call: Call) -> "dict[str, str]":
    """What the log says of who traces a call; nothing is loaded where nobody does."""
    if not (call.environ.get("TRACEPARENT") or call.environ.get("BAGGAGE")):
        return {}
    from cni.protocol import trace

    return trace.told(call.environ)


def _deliver(stdout: Stdout, text: str) -> None:
    """Print the result; from then on no signal can undo what the runtime has been told."""
    from cni.kernel import signals

    with signals.uninterrupted():
        stdout.write(text + "\n")
        signals.ignore()


def _introduce(name: str) -> int:
    """Tell a person who starts a plugin by hand what it is, in the reference's words (skel, PluginMainFuncs); the exit code."""
    import sys

    from cni import __version__

    said = f"CNI {name} plugin of agent-cni {__version__}; a container runtime calls it, see agent-cni --help\n"
    try:
        if sys.stderr:
            sys.stderr.write(f"{said}CNI protocol versions supported: {', '.join(SUPPORTED)}\n")
            sys.stderr.flush()
    except OSError:
        return 0  # nobody reads it
    return 0


def _foreseen(error: BaseException) -> CniError | None:
    """A signal, or what the machine refused, in our own terms; nothing else but a bug is no CniError."""
    if isinstance(error, KeyboardInterrupt):
        return Interrupted("the call was ended by a signal; what it did is undone")
    return refusal(error)


def _stdin() -> bytes:
    """All of standard input. Raises IoFailure."""
    chunks, size = [], 0
    try:
        while chunk := os.read(0, 1 << 16):
            chunks.append(chunk)
            size += len(chunk)
            if size > MAX_CONFIG_BYTES:
                raise IoFailure(f"stdin: more than {MAX_CONFIG_BYTES >> 20} MiB")
    except OSError as error:
        raise IoFailure(f"stdin: {error.strerror}") from None
    return b"".join(chunks)
