"""What `launcher/compile` makes of the launcher, with musl and with the compiler's own libc: alone, hardened, and small."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

COMPILE = Path(__file__).parent.parent.parent / "launcher/compile"
WITH_MUSL = pytest.mark.skipif(not shutil.which("musl-gcc"), reason="musl-tools is not installed")
OVER = """
#include <stdint.h>
#include <unistd.h>
static __attribute__((noinline)) void fill(volatile char *place, int size) { for (int at = 0; at < size; at++) place[at] = 'x'; }
static __attribute__((noinline)) void over(int size) { char place[16]; fill(place, size); }
int main(int argc, char **argv)
{
    (void)argv;
    uintptr_t canary = 0;
#ifdef __x86_64__
    __asm__("mov %%fs:0x28, %0" : "=r"(canary));
#endif
    over(argc > 1 ? 64 : 16);
    return write(1, &canary, sizeof canary) != sizeof canary;
}
"""

Compiled = Callable[[Path], Path]


@pytest.fixture(params=[pytest.param("musl", marks=WITH_MUSL), "own libc"])
def compiled(request: pytest.FixtureRequest, tmp_path: Path) -> Compiled:
    """What a `compile` makes of the launcher.c beside it."""

    def run(compile_it: Path) -> Path:
        env = {name: value for name, value in os.environ.items() if name != "CC"}
        env |= {"CC": "cc"} if request.param == "own libc" else {}
        subprocess.run([compile_it, tmp_path / "program", "1.2.3"], env=env, check=True)
        return tmp_path / "program"

    return run


def readelf(options: str, program: Path) -> str:
    return subprocess.run(["readelf", "-W", options, program], capture_output=True, text=True, check=True).stdout


def test_it_needs_nothing_and_is_hardened(compiled: Compiled):
    shown = readelf("-ld", compiled(COMPILE))
    assert "INTERP" not in shown
    assert "(NEEDED)" not in shown
    assert "Elf file type is DYN (Position-Independent Executable file)" in shown
    assert "Flags: NOW PIE" in shown
    assert "GNU_STACK" in shown
    assert "RWE" not in shown
    assert shown.count(" R E ") == 1
    executable = next(line.split() for line in shown.splitlines() if " .text " in line)
    assert not {".dynsym", ".rodata", ".data"} & set(executable)


def test_no_table_of_functions_can_be_written_over(compiled: Compiled):
    """glibc makes its own read-only once it is relocated (RELRO); with musl there is none."""
    program = compiled(COMPILE)
    kinds = {line.split()[2] for line in readelf("-r", program).splitlines() if "R_" in line}
    assert "GNU_RELRO" in readelf("-l", program) or {kind.rpartition("_")[2] for kind in kinds} == {"RELATIVE"}


def test_a_stack_that_was_written_over_ends_it(compiled: Compiled, tmp_path: Path):
    """The canary: another one for each process, with a NUL that no text can hold, and a trap where it is not as it was."""
    shutil.copy(COMPILE, tmp_path)
    (tmp_path / "launcher.c").write_text(OVER)
    program = compiled(tmp_path / "compile")
    canaries = {subprocess.run([program], capture_output=True, check=True).stdout for _ in range(3)}
    if os.uname().machine == "x86_64":
        assert len(canaries) == 3
        assert all(0 in canary for canary in canaries)
    done = subprocess.run([program, "over"], capture_output=True, check=False)
    assert done.returncode in (-signal.SIGSEGV, -signal.SIGABRT)


@WITH_MUSL
def test_musl_is_in_it_where_there_is_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.delenv("CC", raising=False)
    subprocess.run([COMPILE, tmp_path / "program", "1.2.3"], check=True)
    program = (tmp_path / "program").read_bytes()
    assert len(program) < 64 << 10
    assert b"glibc" not in program.lower()
