"""Pinned packages against advisories: by PyPI's database, and by the kept list where that does not answer."""

from __future__ import annotations

import json
from pathlib import Path

import advisories
import audit
import pytest
from pins import installed, pinned, pins

KEPT = json.loads(advisories.KEPT.read_text())
PINS = pins()


def known(*events: dict[str, str], versions: tuple[str, ...] = ()) -> dict:
    return {"id": "PYSEC-1", "aliases": ["CVE-1"], "ranges": [[*events]] if events else [], "versions": versions}


def test_no_pinned_version_is_known_to_be_vulnerable():
    assert advisories.faults(KEPT, PINS) == []


def test_what_is_installed_is_what_is_pinned():
    """What nobody pins comes in the version of the day, and is audited by nobody."""
    have = pinned(f"{package.name}=={package.version}" for package in installed())
    assert have == {name: PINS.get(name) for name in have}


@pytest.mark.parametrize("name", [name for name, found in KEPT["packages"].items() if found])
def test_the_kept_list_finds_a_version_of_before_each_fix(name: str):
    for advisory in KEPT["packages"][name]:
        fixed = next(event["fixed"] for event in advisory["ranges"][0] if "fixed" in event)
        assert not advisories.affects(advisory, fixed)
        assert advisories.affects(advisory, f"{fixed}.dev0")
        assert advisory["id"] in "".join(advisories.faults(KEPT, {name: f"{fixed}.dev0"}))


@pytest.mark.parametrize(
    ("advisory", "inside", "outside"),
    [
        (known({"introduced": "0"}, {"fixed": "2.0"}), ["0.1", "1.9", "2.0rc1"], ["2.0", "2.0.post1", "10.0"]),
        (known({"introduced": "1.5"}, {"fixed": "2.0"}), ["1.5", "1.10"], ["1.4", "2.0"]),
        (known({"introduced": "1"}, {"last_affected": "2.0"}), ["1", "2.0"], ["0.9", "2.0.1"]),
        (known({"introduced": "3"}, {"fixed": "4"}, {"introduced": "1"}, {"fixed": "2"}), ["1.5", "3.5"], ["2.5", "4"]),
        (known({"introduced": "0"}), ["0.dev1", "99"], []),
        (known(versions=("1.0", "1.2")), ["1.0", "1.2.0"], ["1.1"]),
    ],
    ids=["fixed", "introduced", "last affected", "two ranges", "not fixed", "versions"],
)
def test_a_version_is_affected_within_a_range_or_by_name(advisory: dict, inside: list[str], outside: list[str]):
    assert [version for version in inside if not advisories.affects(advisory, version)] == []
    assert [version for version in outside if advisories.affects(advisory, version)] == []


def test_a_package_that_nobody_looked_up_is_a_fault():
    assert advisories.faults({"packages": {"known": []}}, {"known": "1", "new": "2"}) == [
        "new 2: nobody has looked it up for tools/audit/advisories.json"
    ]


def test_a_list_is_read_from_a_checkout_of_the_database(tmp_path: Path):
    folder = tmp_path / "vulns/zope-interface"
    folder.mkdir(parents=True)
    affected = "affected:\n- package: {name: zope.interface, ecosystem: PyPI}\n  ranges:\n  - {type: GIT, repo: x, events: [{introduced: '0'}, {fixed: abc}]}\n"
    ecosystem = "  - {type: ECOSYSTEM, events: [{introduced: '0'}, {fixed: '5.1'}]}\n"
    (folder / "PYSEC-1.yaml").write_text(
        f"id: PYSEC-1\nmodified: '2024-01-02T00:00:00Z'\naliases: [CVE-1]\n{affected}{ecosystem}  versions: ['5.0']\n"
    )
    (folder / "PYSEC-2.yaml").write_text(
        f"id: PYSEC-2\nmodified: 2024-03-04T00:00:00Z\n{affected}  versions: ['5.0']\n"
    )
    (folder / "PYSEC-3.yaml").write_text(f"id: PYSEC-3\nmodified: '2025-01-02T00:00:00Z'\nwithdrawn: '2025-01-02T00:00:00Z'\n{affected}")  # fmt: skip
    made = advisories.read(tmp_path, ["zope-interface", "unheard"])
    assert made["newest"].startswith("2024-03-04")
    assert made["packages"] == {
        "unheard": [],
        "zope-interface": [
            {
                "id": "PYSEC-1",
                "aliases": ["CVE-1"],
                "ranges": [[{"introduced": "0"}, {"fixed": "5.1"}]],
                "versions": [],
            },
            {"id": "PYSEC-2", "aliases": [], "ranges": [], "versions": ["5.0"]},
        ],
    }


def test_another_folder_is_no_checkout(tmp_path: Path):
    with pytest.raises(SystemExit, match="no checkout of pypa/advisory-database"):
        advisories.read(tmp_path, ["attrs"])


SKIPPED = {"name": "PyYAML", "skip_reason": "Dependency not found on PyPI and could not be audited: pyyaml (5.3)"}
ANSWERED = {"name": "Some.Thing", "version": "1", "vulns": [{"id": "PYSEC-9", "fix_versions": ["2"], "aliases": []}]}


def test_what_a_database_does_not_answer_for_is_judged_by_the_kept_list():
    """A mirror that has packages only lets pip-audit skip them all, and find nothing."""
    answered = audit.understood(json.dumps({"dependencies": [SKIPPED, ANSWERED], "fixes": []}))
    assert answered == {"some-thing": ["PYSEC-9"]}
    found = audit.faults({"pyyaml": "5.3", "some-thing": "1"}, answered, KEPT)
    assert found[0] == "some-thing 1: PYSEC-9"
    assert any(line.startswith("pyyaml 5.3: PYSEC-2021-142 CVE-2020-14343") for line in found)


@pytest.mark.parametrize("said", ["", "Traceback (most recent call last):"])
def test_a_database_that_cannot_be_reached_answers_for_nothing(said: str):
    assert audit.understood(said) == {}
    assert audit.faults({"pyyaml": "5.3"}, {}, KEPT) != []


def test_what_the_database_answers_is_not_asked_of_the_kept_list():
    assert audit.faults({"pyyaml": "5.3", "new": "1"}, {"pyyaml": [], "new": []}, KEPT) == []
