"""Each line of the threat model names tests that are there, and each test of a threat is in a line."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
MODEL = ROOT / "docs/threat-model.md"
_TEST = re.compile(r"`((?:netns-)?tests/\S+?\.py)(?:::(\w+))?`")


def named() -> set[tuple[str, str]]:
    """The tests that the model names: file and function, or a whole file."""
    return set(_TEST.findall(MODEL.read_text()))


def there(file: Path) -> Iterator[tuple[str, bool]]:
    """The tests of a file, and whether each is marked by itself."""
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.FunctionDef) and node.name.startswith("test_"):
            yield node.name, any(ast.unparse(mark) == "pytest.mark.threat" for mark in node.decorator_list)


def is_marked(file: Path) -> bool:
    """Whether all of a file's tests are of threats."""
    return bool(re.search(r"(?m)^pytestmark = .*pytest\.mark\.threat", file.read_text()))


def test_what_the_model_names_is_there():
    assert len(named()) > 100
    for name, test in named():
        assert not test or test in dict(there(ROOT / name)), f"{name}::{test}"
        assert (ROOT / name).exists(), name


def test_each_line_of_the_model_is_shown():
    rows = [
        line for line in MODEL.read_text().partition("## What services may")[0].splitlines() if line.startswith("| ")
    ]
    assert [
        row for row in rows if not row.endswith("shown by |") and not _TEST.search(row.rpartition("| ")[2] or row)
    ] == []


def test_each_test_of_a_threat_is_in_the_model():
    known = named()
    for folder in ("tests", "netns-tests"):
        for file in (ROOT / folder).rglob("test_*.py"):
            name = str(file.relative_to(ROOT))
            if (name, "") not in known:
                assert not is_marked(file), f"{name} is in no line"
                assert [test for test, marked in there(file) if marked and (name, test) not in known] == [], name
