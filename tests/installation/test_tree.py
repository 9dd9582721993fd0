"""What of the packages here an installation takes along."""

from __future__ import annotations

import fcntl
import os
from pathlib import Path
from types import SimpleNamespace

import pytest

from cni.errors import Unavailable
from cni.installation import tree

REQUIRES = {
    "agent-cni": ["pyroute2==1", "exporter==1; extra == 'otlp'"],
    "pyroute2": ["win-inet-pton; platform_system == 'Windows'", "tests; extra == 'dev'"],
    "exporter": ["requests>=2", "gcp; extra == 'gcp'"],
    "requests": ["socks; extra == 'socks'"],
}


def taken(monkeypatch: pytest.MonkeyPatch, *present: str) -> list[str]:
    def distribution(name: str) -> SimpleNamespace:
        if name not in present:
            raise Unavailable(f"{name} is not installed")
        return SimpleNamespace(name=name, requires=REQUIRES.get(name, []))

    monkeypatch.setattr(tree, "_distribution", distribution)
    return [found.name for found in tree._needed()]


def test_what_it_has_a_use_for_comes_along_where_it_is(monkeypatch: pytest.MonkeyPatch):
    assert taken(monkeypatch, "agent-cni", "pyroute2") == ["agent-cni", "pyroute2"]
    everything = ["agent-cni", "pyroute2", "exporter", "requests"]
    assert taken(monkeypatch, *everything) == everything


def test_what_others_have_a_use_for_does_not(monkeypatch: pytest.MonkeyPatch):
    every = ("agent-cni", "pyroute2", "exporter", "requests", "tests", "gcp", "socks")
    assert taken(monkeypatch, *every) == ["agent-cni", "pyroute2", "exporter", "requests"]


def test_what_it_needs_must_be_there(monkeypatch: pytest.MonkeyPatch):
    with pytest.raises(Unavailable, match="pyroute2"):
        taken(monkeypatch, "agent-cni")


def test_what_was_installed_before_goes_when_no_call_is_of_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(tree, "_PATIENCE", 0.1)
    (tmp_path / "before").mkdir()
    held = os.open(tmp_path / "before", os.O_RDONLY)
    fcntl.flock(held, fcntl.LOCK_SH)
    assert not tree._retired(tmp_path / "before")
    assert (tmp_path / "before").exists()
    os.close(held)
    assert tree._retired(tmp_path / "before")
    assert not (tmp_path / "before").exists()
    assert tree._retired(tmp_path / "before")
