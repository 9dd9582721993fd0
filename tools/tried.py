"""Write docs/tried.md from the tests: what was tried against isolation and interception, and what holds.

A test says it of itself: ``@pytest.mark.tried("what was tried", "what holds")``; its file is the section.
"""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
TESTS = ROOT / "netns-tests"
PAGE = ROOT / "docs/tried.md"
HEAD = """# Tried and held

What a pod, its neighbours, a broken record or an unlucky moment may try, what holds, and the test that tries it beside a probe that gets
through. Each line stands at its test; `tools/tried.py` collects them.
"""


def page() -> str:
    """The whole page."""
    sections = (_section(file) for file in sorted(TESTS.rglob("test_*.py")))
    return "\n".join([HEAD, *filter(None, sections)])


def _section(file: Path) -> str:
    tree = ast.parse(file.read_text())
    rows = [f"| {tried} | {holds} | `{test}` |" for tried, holds, test in _marks(tree)]
    if not rows:
        return ""
    head = f"## {file.relative_to(TESTS)}\n\n{ast.get_docstring(tree)}\n\n| tried | holds | shown by |\n|---|---|---|"
    return "\n".join([head, *rows, ""])


def _marks(tree: ast.Module) -> Iterator[tuple[str, str, str]]:
    for node in tree.body:
        for mark in node.decorator_list if isinstance(node, ast.FunctionDef) else ():
            if isinstance(mark, ast.Call) and ast.unparse(mark.func) == "pytest.mark.tried":
                tried, holds = map(ast.literal_eval, mark.args)
                yield tried, holds, node.name  # type: ignore[union-attr]


if __name__ == "__main__":
    PAGE.write_text(page())
