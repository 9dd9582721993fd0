"""Which plugin an executable is, by its name and by what it links to."""

from __future__ import annotations

from pathlib import Path

import pytest

from cni.errors import ToolFailed
from cni.plugin import PLUGINS, name_of


@pytest.mark.parametrize(
    ("called", "links_to", "name"),
    [
        ("macvlan", None, "macvlan"),
        ("bridge", None, "bridge-vxlan"),
        ("ptp", None, "custom-plugin"),
        ("host-local", None, "agent-ipam"),
        ("bridge", "bridge-vxlan", "bridge-vxlan"),
        ("bridge", "custom-plugin", "custom-plugin"),
        ("anything", "macvlan", "macvlan"),
        ("macvlan", "bridge-vxlan", "macvlan"),
    ],
)
def test_a_file_is_the_plugin_it_is_called_after_or_links_to(tmp_path: Path, called: str, links_to: str, name: str):
    if links_to:
        (tmp_path / called).symlink_to(PLUGINS / links_to)
    assert name_of(str(tmp_path / called)) == name


@pytest.mark.parametrize("called", ["loopback", "bridge-vxlan.schema.json", "bridge-vxlan2"])
def test_any_other_name_is_refused(tmp_path: Path, called: str):
    with pytest.raises(ToolFailed, match=called):
        name_of(str(tmp_path / called))
