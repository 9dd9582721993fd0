"""The documentation says what is so."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
from pathlib import Path
from types import ModuleType

import pytest

from cni import plugin
from cni.agent import settings
from cni.command.parser import parser
from cni.conflist.file import judgement

ROOT = Path(__file__).parent.parent
PAGES = sorted([*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md")])


def _tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"tools/{name}.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


KEYS, TRIED = _tool("keys"), _tool("tried")


def test_what_was_tried_is_what_the_tests_try():
    assert TRIED.PAGE.read_text() == TRIED.page(), "tools/tried.py writes the page anew"


@pytest.mark.parametrize("name", KEYS.names())
def test_the_keys_of_a_plugin_are_those_of_its_schema(name: str):
    page = (KEYS.PAGES / f"{name}.md").read_text()
    assert page == KEYS.page(name), "tools/keys.py writes the pages anew"


@pytest.mark.parametrize("name", KEYS.names())
def test_every_key_has_a_meaning(name: str):
    assert re.findall(r"^\| `.*\|\s*(?:Required\.)?\s*\|$", KEYS.page(name), re.MULTILINE) == []


def blocks(*kinds: str) -> list[tuple[str, str]]:
    """The fenced blocks of all pages, and where each is."""
    found = []
    for page in PAGES:
        for kind, text in re.findall(r"^```(\w+)\n(.*?)^```", page.read_text(), re.MULTILINE | re.DOTALL):
            found += [(str(page.relative_to(ROOT)), text)] if kind in kinds else []
    return found


@pytest.mark.parametrize(("page", "text"), blocks("json"))
def test_configurations_in_the_docs_are_valid(page: str, text: str):
    if '"otlp"' in text:
        assert settings.read(text.encode())[1] == []
        return
    if text.lstrip().startswith("{"):
        conf = {"cniVersion": "1.1.0", "name": "pods"} | json.loads(text)
    else:
        conf = json.loads(f"{{{text}}}") | {"cniVersion": "1.1.0", "name": "pods", "type": "custom-plugin"}
    assert conf["type"] in plugin.names()
    judged = judgement(conf)
    assert (judged["ours"], judged["faults"]) == (True, [])


def commands() -> list[str]:
    lines = [line.removeprefix("$ ") for _, text in blocks("sh", "console") for line in text.splitlines()]
    return [line for line in lines if line.startswith("agent-cni ")]


@pytest.mark.parametrize("line", commands())
def test_commands_in_the_docs_are_understood(line: str):
    words = [word for word in shlex.split(line, comments=True)[1:] if word != "..."]
    assert parser().parse_args(words)


def test_the_words_of_an_error_are_looked_up_as_they_are_said():
    page = (ROOT / "docs/troubleshooting.md").read_text()
    said = re.findall(r"^\| `([^`]+)`", page, re.MULTILINE)
    files = (*(ROOT / "cni").rglob("*.py"), *(ROOT / "plugins" / name for name in plugin.names()))
    sources = " ".join(file.read_text() for file in files)
    runtimes_own = {'failed to find plugin "bridge-vxlan" in path', "cni plugin not initialized"}
    assert [words for words in said if words not in sources] == sorted(runtimes_own, reverse=True)


def test_tests_that_pages_name_are_there():
    said = {name for page in PAGES for name in re.findall(r"[\w/-]*\btest_\w+\.py", page.read_text())}
    assert said
    there = [str(file) for folder in ("tests", "netns-tests") for file in (ROOT / folder).rglob("test_*.py")]
    assert [name for name in said if not any(file.endswith(f"/{name}") for file in there)] == []


@pytest.mark.parametrize("page", PAGES, ids=[str(page.relative_to(ROOT)) for page in PAGES])
def test_links_lead_somewhere(page: Path):
    links = re.findall(r"\]\((?!https?:|#)([^)#]+)", page.read_text())
    assert [link for link in links if not (page.parent / link).exists()] == []
