"""The documentation says what is so."""

from __future__ import annotations

import importlib.util
import re
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parent.parent
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")])


def _keys() -> ModuleType:
    spec = importlib.util.spec_from_file_location("keys", ROOT / "tools/keys.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


KEYS = _keys()


@pytest.mark.parametrize("name", KEYS.names())
def test_the_keys_of_a_plugin_are_those_of_its_schema(name: str):
    page = (KEYS.PAGES / f"{name}.md").read_text()
    assert page == KEYS.page(name), "tools/keys.py writes the pages anew"


@pytest.mark.parametrize("name", KEYS.names())
def test_every_key_has_a_meaning(name: str):
    assert re.findall(r"^\| `.*\|\s*(?:Required\.)?\s*\|$", KEYS.page(name), re.MULTILINE) == []


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_links_lead_somewhere(page: Path):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []
