"""The documentation says what is so."""

from __future__ import annotations

import importlib.util
import json
import re
import shlex
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

from cni import plugin
from cni.agent import settings
from cni.command.parser import parser
from cni.conflist.file import judged, judgement

ROOT = Path(__file__).parent.parent


def _tool(name: str) -> ModuleType:
    spec = importlib.util.spec_from_file_location(name, ROOT / f"tools/{name}.py")
    assert spec
    assert spec.loader
    module = sys.modules[name] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


KEYS, TRIED, BLOCKS = _tool("keys"), _tool("tried"), _tool("blocks")
PAGES = BLOCKS.PAGES
ALL = [block for page in PAGES for block in BLOCKS.blocks(page)]


def test_what_was_tried_is_what_the_tests_try():
    assert TRIED.PAGE.read_text() == TRIED.page(), "tools/tried.py writes the page anew"


@pytest.mark.parametrize("name", KEYS.names())
def test_the_keys_of_a_plugin_are_those_of_its_schema(name: str):
    page = (KEYS.PAGES / f"{name}.md").read_text()
    assert page == KEYS.page(name), "tools/keys.py writes the pages anew"


@pytest.mark.parametrize("name", KEYS.names())
def test_every_key_has_a_meaning(name: str):
    assert re.findall(r"^\| `.*\|\s*(?:Required\.)?\s*\|$", KEYS.page(name), re.MULTILINE) == []


@pytest.mark.parametrize("block", [block for block in ALL if block.kind == "json"], ids=lambda block: block.lines[0])
def test_configurations_in_the_docs_are_valid(block: Any, tmp_path: Path):
    text = block.text
    if text.startswith(('{"otlp"', '{"flows"')):
        assert settings.read(text.encode())[1] == []
        return
    if '"plugins"' in text:
        (tmp_path / "it.conflist").write_text(text)
        assert [fault for item in judged(tmp_path / "it.conflist") for fault in item["faults"]] == []
        return
    if text.lstrip().startswith("{"):
        conf = {"cniVersion": "1.1.0", "name": "pods"} | json.loads(text)
    else:
        conf = json.loads(f"{{{text}}}") | {"cniVersion": "1.1.0", "name": "pods", "type": "custom-plugin"}
    assert conf["type"] in plugin.names()
    said = judgement(conf)
    assert (said["ours"], said["faults"]) == (True, [])


def commands() -> list[str]:
    lines = [line.command for block in ALL for line in BLOCKS.typed(block)]
    return [line for line in lines if line.startswith("agent-cni ") and not set(line) & set(">|;&")]


def test_every_block_is_of_a_kind_that_a_test_knows():
    """A block of no kind is a picture of letters: the map of CONTRIBUTING alone."""
    assert {block.kind for block in ALL} <= {*BLOCKS.TYPED, *BLOCKS.WRITTEN, "yaml", ""}
    assert {block.page for block in ALL if not block.kind} == {"CONTRIBUTING.md"}


def test_every_page_with_something_to_type_is_read_by_a_test():
    """A new page, or a new line, is run or says why not; who is run no more is no reason."""
    tests = (ROOT / "netns-tests/pages/test_blocks.py").read_text()
    lines = [(block.page, line) for block in ALL for line in BLOCKS.typed(block)]
    assert [page for page in {page for page, line in lines if not line.why_not} if f'"{page}"' not in tests] == []
    stale = [begins for begins in BLOCKS.NOT_RUN if not any(line.command.startswith(begins) for _, line in lines)]
    assert stale == []


def test_tests_that_the_reasons_name_are_there():
    said = " ".join([*BLOCKS.NOT_RUN.values(), *BLOCKS.NOT_ADDED.values()])
    assert [name for name in re.findall(r"(?:netns-)?tests/[\w/]+\.py", said) if not (ROOT / name).exists()] == []


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
