"""Completion as a shell does it."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest

ASK = 'source /dev/stdin; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _shtab_agent_cni; echo "${COMPREPLY[@]}"'


@pytest.mark.parametrize(
    ("words", "offered"),
    [
        (["inst"], {"install"}),
        (["show", "--gr"], {"--graph"}),
        (["validate", "/etc/hostn"], {"/etc/hostname"}),
        (["completion", ""], {"bash", "zsh", "tcsh"}),
        (["node", "rem"], {"remove"}),
        (["block", "--n"], {"--network", "--node"}),
    ],
)
def test_bash_offers_what_fits(agent: Any, words: list[str], offered: set[str]):
    said = agent("completion", "bash")
    argv = ["bash", "--norc", "-c", ASK, "bash", "agent-cni", *words]
    done = subprocess.run(argv, input=said.out, capture_output=True, text=True, check=True)
    assert set(done.stdout.split()) == offered


def test_as_json(agent: Any):
    said = json.loads(agent("completion", "bash", "--json").out)
    assert (said["shell"], said["script"]) == ("bash", agent("completion", "bash").out.rstrip("\n"))


def test_another_shell_is_wrong_usage(agent: Any):
    assert agent("completion", "fish").status == 2
