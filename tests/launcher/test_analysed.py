"""The launcher under Clang's static analyser, which follows its paths through all functions. Its runs under sanitizers are in test_launcher.py."""

from __future__ import annotations

import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent.parent
SOURCE = (ROOT / "launcher/launcher.c").read_text()
CLANG_TIDY = ROOT / ".cache/lint/bin/clang-tidy"
#: All but one, which has nobody call memcpy(3), for functions that no libc here has.
CHECKS = "-*,clang-analyzer-*,-clang-analyzer-security.insecureAPI.DeprecatedOrUnsafeBufferHandling"


def found(source: str, folder: Path) -> str:
    """What the analyser has to say of a launcher."""
    file = folder / "launcher.c"
    file.write_text(source)
    command = [CLANG_TIDY, "--quiet", f"--checks={CHECKS}", "--warnings-as-errors=*", file]
    done = subprocess.run([*command, "--", "-std=c11", '-DVERSION="1"'], capture_output=True, text=True, check=False)
    assert bool(done.returncode) == bool(done.stdout), done.stderr
    return done.stdout


def test_nothing_is_found(tmp_path: Path):
    assert found(SOURCE, tmp_path) == ""


@pytest.mark.parametrize(
    ("right", "wrong", "said"),
    [
        ("if (!heard(agent, said, &file) || ", "if (", "is an uninitialized value"),
        ("struct outcome outcome = {.code = -1};", "struct outcome outcome;", "is a garbage value"),
        ("path[length] = 0;", "path[size] = 0;", "Out of bound access to memory after the end of 'prefix'"),
        ("go->fds[go->count++] = fd", "go->fds[4] = fd", "Out of bound access to memory after the end of 'go.fds'"),
        ("    errno = ENAMETOOLONG;", "", "An undefined value may be read from 'errno'"),
    ],
)
def test_what_is_wrong_is_found(right: str, wrong: str, said: str, tmp_path: Path):
    assert SOURCE.count(right) == 1
    assert said in found(SOURCE.replace(right, wrong), tmp_path)
