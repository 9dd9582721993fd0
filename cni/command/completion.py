"""What a shell completes of this command."""

from __future__ import annotations

import argparse

from cni.command.output import print_json, print_text

SHELLS = ("bash", "zsh", "tcsh")


def completion(options: argparse.Namespace) -> int:
    """Print what lets a shell complete this command: eval "$(agent-cni completion bash)"."""
    import shtab  # for this alone

    for command in options.commands.values():
        for action in command._actions:  # noqa: SLF001 - they are told of files one by one
            if action.type not in {None, int}:
                setattr(action, "complete", shtab.FILE)  # noqa: B010 - shtab's name for it, and not argparse's
    script = shtab.complete(options.parser, options.shell)
    print_json({"shell": options.shell, "script": script}) if options.json else print_text(script)
    return 0
