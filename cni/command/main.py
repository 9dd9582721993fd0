"""agent-cni, the operator's command."""

from __future__ import annotations

import argparse
import errno
import os
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

from cni.command.output import complain, print_json
from cni.command.parser import parser
from cni.errors import CniError, Stranded, refusal
from cni.kernel.foreign import leave

_CANNOT_BE_WRITTEN = (errno.ENOSPC, errno.EPIPE, errno.EIO, errno.EBADF, errno.EFBIG)


def main(argv: Sequence[str] | None = None) -> int:
    """Run one subcommand; anything wrong is one clear line on stderr, and with --json an object on stdout."""
    with _whole_output():
        words = sys.argv[1:] if argv is None else argv
        code = max(map(_run, _one_by_one(parser(words).parse_args(words))))
    return leave(code)


def _one_by_one(options: argparse.Namespace) -> list[argparse.Namespace]:
    """The same options for each of several files: what is wrong with one is no matter of the others."""
    return (
        [argparse.Namespace(**vars(options), file=file) for file in options.files] if "files" in options else [options]
    )


def _run(options: argparse.Namespace) -> int:
    try:
        return int(options.run(options))
    except CniError as error:
        where = f"{options.file}: " if "file" in options else ""
        cause = f" ({error.details.splitlines()[0]})" if error.details else ""
        _complain(options, f"{where}{error.msg}{cause}", error)
    except Stranded as error:
        _complain(options, error.msg, error)
    except OSError as error:
        if error.errno in _CANNOT_BE_WRITTEN and error.filename is None:  # stdout's; a file's has a name
            raise
        _complain(options, f"{error.filename}: {error.strerror}" if error.filename else str(error.strerror), error)
    except (MemoryError, ImportError) as error:
        told = refusal(error) or error
        _complain(options, str(told), told)
    except Exception as error:
        _complain(options, f"a bug, please report it: {type(error).__name__}: {error}", error)
    return 1


@contextmanager
def _whole_output() -> Iterator[None]:
    """Say what nobody would get to read; Python would say so when it ends, in its own words, or not at all."""
    if sys.stdout is None:
        sys.exit("agent-cni: stdout is closed")
    try:
        try:
            yield
        finally:
            sys.stdout.flush()
    except KeyboardInterrupt:
        sys.exit(130)
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        if not isinstance(error, BrokenPipeError):  # who read it has enough
            complain(f"agent-cni: stdout: {error.strerror}")
        sys.exit(1)


def _complain(options: argparse.Namespace, line: str, error: Exception | Stranded) -> None:
    """One line; with --verbose all that is known of it, and where in the program it was."""
    refused = isinstance(error, PermissionError) or isinstance(error.__cause__, PermissionError)
    line += " (are you root?)" if refused and os.geteuid() else ""
    complain(f"agent-cni: {line}")
    if getattr(options, "json", False):
        print_json({"error": line})
    if not options.verbose:
        return
    notes = getattr(error, "__notes__", [])
    complain(*(f"  {more}" for more in (*getattr(error, "details", "").splitlines(), *notes, *_way(error))))


def _way(error: Exception | Stranded) -> list[str]:
    import traceback  # a daemon would keep it, and the tokenizer with it

    steps = traceback.extract_tb(error.__traceback__)
    kind = f"{type(error).__name__}, code {error.code}" if isinstance(error, CniError) else type(error).__name__
    return [kind, *(f"{step.filename}:{step.lineno} in {step.name}" for step in steps)]


if __name__ == "__main__":
    sys.exit(main())
