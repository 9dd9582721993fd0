from __future__ import annotations

import json
from itertools import pairwise

from cni.protocol.versions import ANSWER, LATEST, SINCE, SUPPORTED, at_least


def test_every_version_of_the_specification_is_spoken():
    assert SUPPORTED == ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")


def test_the_answer_to_version_is_one_json_line():
    assert ANSWER.endswith("\n")
    assert json.loads(ANSWER) == {"cniVersion": LATEST, "supportedVersions": list(SUPPORTED)}


def test_versions_are_ordered():
    for older, newer in pairwise(SUPPORTED):
        assert at_least(newer, older)
        assert at_least(older, older)
        assert not at_least(older, newer)


def test_verbs_came_with_the_versions_the_specification_says():
    assert SINCE == {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}
