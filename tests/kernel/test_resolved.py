from __future__ import annotations

from pathlib import Path

import pytest

from cni.kernel import gatedir
from cni.kernel.resolved import Resolved


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(gatedir, "FOLDER", tmp_path)
    return tmp_path


def test_names_are_known_as_they_are_told_the_latest_first():
    known = Resolved()
    assert known.names_of("192.0.2.1") == ()
    gatedir.tell(["192.0.2.1"], "a.example")
    gatedir.tell(["192.0.2.1"], "b.example")
    assert known.names_of("192.0.2.1") == ("b.example", "a.example")
    gatedir.tell(["192.0.2.1"], "a.example")
    gatedir.tell(["2001:db8::1"], "c.example")
    assert known.names_of("192.0.2.1") == ("a.example", "b.example")
    assert known.names_of("2001:db8::1") == ("c.example",)
    assert Resolved().names_of("192.0.2.1") == ("a.example", "b.example")


def test_what_is_begun_anew_goes_on_and_nothing_is_missed(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(gatedir, "_LONGEST", 60)
    known = Resolved()
    for number in range(40):
        gatedir.tell([f"192.0.2.{number}"], f"n{number}.example")
        if number % 3 == 0:
            assert known.names_of(f"192.0.2.{number}") == (f"n{number}.example",)
    assert (folder / gatedir.TOLD_BEFORE).exists()
    assert known.names_of("192.0.2.38") == ("n38.example",)


def test_half_a_line_is_for_the_next_time(folder: Path):
    known = Resolved()
    (folder / gatedir.TOLD).write_text("192.0.2.1 a.example\n192.0.2.2 b.exa")
    assert known.names_of("192.0.2.2") == ()
    with (folder / gatedir.TOLD).open("a") as file:
        file.write("mple\n")
    assert known.names_of("192.0.2.2") == ("b.example",)
