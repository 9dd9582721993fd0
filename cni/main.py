"""stdin, stdout, signals and the exit code: what every executable does around the story.

VERSION and a wrong environment are answered from here with nothing heavy imported; everything else is
imported when the call is known to need it. This is the only place that catches what is unforeseen.
"""

import os

from cni.errors import CniError, Internal, Interrupted, IoFailure, Stranded
from cni.protocol.call import Call
from cni.protocol.versions import ANSWER, LATEST, SUPPORTED

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

    from cni.verbs import Deliver

MAX_CONFIG_BYTES = 16 << 20


def main(executable: str, environ: "Mapping[str, str]" = os.environ) -> int:
    """Serve the CNI call in `environ` by the plugin in the file `executable`; returns the exit code."""
    name = os.path.basename(executable)
    answered = _Stdout()
    if "CNI_COMMAND" not in environ:
        _introduce(name)
    try:
        call = Call.read(environ)
        if call.command == "VERSION":
            answered.write(ANSWER)
        else:
            _serve(name, call, answered)
    except (CniError, Stranded) as error:
        return _failed(answered, error)
    except BaseException as error:
        return _failed(answered, _foreseen(error))
    return 0


class _Stdout:
    """The one JSON document this process prints, and the version to print it in.

    A closed stdout is seen before anything is changed; its number is kept from being given to a file.
    """

    def __init__(self) -> None:
        self.version = LATEST
        self.broken = False
        try:
            os.fstat(1)
        except OSError:
            self.broken = True
            while os.open(os.devnull, os.O_RDWR) < 1:
                pass

    def refuse_closed(self) -> None:
        if self.broken:
            raise IoFailure("stdout is closed: nobody would get the result")

    def write(self, text: str) -> None:
        self.refuse_closed()
        data = text.encode()
        try:
            while data:
                data = data[os.write(1, data) :]
        except OSError as error:
            self.broken = True
            raise IoFailure(f"stdout: {error.strerror}") from None


def _serve(name: str, call: Call, stdout: _Stdout) -> None:
    import json

    from cni.kernel import signals
    from cni.protocol import config

    signals.heed()
    stdout.refuse_closed()
    conf = config.parse(_stdin())
    version = conf.get("cniVersion") or SUPPORTED[0]
    if version in SUPPORTED:
        stdout.version = version
    config.refuse_wrong_header(conf, call.command)
    _tell_story(name, call, conf, lambda result: _deliver(stdout, json.dumps(result, allow_nan=False)))


def _tell_story(name: str, call: Call, conf: "dict[str, Any]", deliver: "Deliver") -> None:
    import time

    from cni import log
    from cni.kernel import signals
    from cni.plugin import load
    from cni.verbs import VERBS

    began = time.monotonic()
    facts = {"network": conf["name"], "container": call.container, "ifname": call.ifname, "pod": call.pod}
    try:
        VERBS[call.command](load(name), call, conf, deliver)
    except BaseException as error:
        signals.ignore()
        log.event(name, call.command, error, seconds=round(time.monotonic() - began, 4), **facts)
        raise
    if call.command != "STATUS":
        log.event(name, call.command, seconds=round(time.monotonic() - began, 4), **facts)


def _deliver(stdout: _Stdout, text: str) -> None:
    """Print the result; from then on no signal can undo what the runtime has been told."""
    from cni.kernel import signals

    with signals.uninterrupted():
        stdout.write(text + "\n")
        signals.ignore()


def _introduce(name: str) -> None:
    """Tell a person who starts a plugin by hand what it is."""
    import sys

    try:
        if sys.stderr:
            sys.stderr.write(f"{name} is a CNI plugin (versions {', '.join(SUPPORTED)}); see agent-cni --help\n")
    except OSError:
        return  # nobody reads it; the answer on stdout matters


def _failed(stdout: _Stdout, error: CniError | Stranded) -> int:
    import json

    document = {"cniVersion": stdout.version, "code": error.code, "msg": error.msg}
    if error.details:
        document["details"] = error.details
    if not stdout.broken:
        stdout.write(json.dumps(document, allow_nan=False) + "\n")
    return 1


def _foreseen(error: BaseException) -> CniError:
    """What is left to catch: a signal, or a bug, whose traceback is in the log by now."""
    if isinstance(error, KeyboardInterrupt):
        return Interrupted("the call was ended by a signal; what it did is undone")
    return Internal(f"unforeseen: {type(error).__name__}: {error}", "the traceback is on stderr and in the log")


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
