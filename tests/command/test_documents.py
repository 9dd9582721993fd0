"""What an operator is told who says documents to a cluster, or takes them back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cni.command.cluster import documents
from cni.command.main import main


class Keeper:
    """A store that knows some documents."""

    def __init__(self) -> None:
        self.there: dict[tuple[str, ...], str] = {}

    def apply(self, said: list[Any]) -> int:
        changed = {item.key: item.text for item in said if self.there.get(item.key) != item.text}
        self.there |= changed
        return len(changed)

    def delete(self, keys: list[tuple[str, ...]]) -> int:
        return len([self.there.pop(key) for key in keys if key in self.there])


@pytest.fixture
def keeper(monkeypatch: pytest.MonkeyPatch) -> Keeper:
    made = Keeper()
    monkeypatch.setattr(documents, "store_of", lambda _: made)
    monkeypatch.setattr(documents.ClusterConfig, "load", lambda *_: None)
    return made


def test_it_is_said_how_many_were_otherwise(keeper: Keeper, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    said = tmp_path / "space.json"
    said.write_text(json.dumps({"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "shop"}}))
    for verb, told in (
        ("apply", "applied 1 document, 1 of them new or changed"),
        ("apply", "applied 1 document, 0 of them new or changed"),
        ("delete", "deleted 1 of 1 document"),
        ("delete", "deleted 0 of 1 document"),
    ):
        assert main(["policy", verb, str(said)]) == 0
        assert capsys.readouterr().out == f"{told}\n"


@pytest.mark.parametrize("verb", ["apply", "delete"])
def test_a_file_that_policies_are_not_made_of_is_refused(
    keeper: Keeper, tmp_path: Path, capsys: pytest.CaptureFixture[str], verb: str
):
    said = tmp_path / "other.json"
    said.write_text(json.dumps({"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "web"}}))
    assert main(["policy", verb, str(said)]) == 1
    assert capsys.readouterr().err.endswith(f"{said}: has no object of a kind that policies are made of\n")
