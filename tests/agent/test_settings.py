"""agent.json: what it may say, and what is said of one that is wrong."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from cni.agent import settings
from cni.agent.settings import Flows, Otlp, Settings
from cni.errors import InvalidConfig, Unavailable

HERE = {"endpoint": "https://[2001:db8::1]:4318"}
FILES = {"cacert": "/tls/ca.crt", "cert": "/tls/tls.crt", "key": "/tls/tls.key"}


def test_without_a_file_nothing_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path):
    monkeypatch.setattr(settings, "PATH", tmp_path / "agent.json")
    assert Settings.load(tmp_path / "agent.json") == Settings()
    with pytest.raises(Unavailable, match=r"there is no .*another.json"):
        Settings.load(tmp_path / "another.json")


@pytest.mark.parametrize(
    ("said", "meant"),
    [
        ({}, Settings()),
        ({"otlp": None}, Settings()),
        ({"otlp": HERE}, Settings(Otlp(HERE["endpoint"]))),
        ({"otlp": HERE | FILES}, Settings(Otlp(HERE["endpoint"], **FILES))),
        ({"otlp": HERE | {"cacert": ""}}, Settings(Otlp(HERE["endpoint"]))),
        ({"flows": {}}, Settings(records=True)),
        ({"flows": {"size": 5}}, Settings(flows=Flows(size=5), records=True)),
        ({"flows": {"folder": "/f", "export": False}}, Settings(flows=Flows(Path("/f"), export=False), records=True)),
    ],
)
def test_what_it_says(tmp_path: Path, said: Any, meant: Settings):
    file = tmp_path / "agent.json"
    file.write_text(json.dumps(said))
    assert Settings.load(file) == meant


@pytest.mark.parametrize("endpoint", ["http://c:4318", "http://c:4318/", "http://c/otlp", "http://c"])
def test_the_path_of_traces_is_added(endpoint: str):
    assert Otlp(endpoint).url == endpoint.rstrip("/") + "/v1/traces"


@pytest.mark.parametrize(
    ("said", "why"),
    [
        ("{", "$: it is not JSON"),
        ([], "$: it is no JSON object"),
        ({"otlp": {}}, "$.otlp"),
        ({"flows": {"size": 0}}, "$.flows.size"),
        ({"flows": {"folder": "flows"}}, "$.flows.folder: 'flows' is no absolute path"),
        ({"otlp": {"endpoint": "collector:4318"}}, "$.otlp.endpoint: 'collector:4318' is no URL of a service"),
        ({"otlp": {"endpoint": "http://c:70000"}}, "has no port from 1 to 65535"),
        ({"otlp": {"endpoint": "http://c:4318/v1?x=1"}}, "is no URL"),
        ({"otlp": {"endpoint": "http://u:p@c:4318"}}, "is no URL"),
        ({"otlp": HERE | {"cert": "/c"}}, "$.otlp.key: missing"),
        ({"otlp": HERE | {"key": "/k"}}, "$.otlp.cert: missing"),
        ({"otlp": HERE | {"cert": "c", "key": "/k"}}, "$.otlp.cert: 'c' is no absolute path"),
        ({"otlp": {"endpoint": "http://c:4318", "cacert": "/c"}}, "without TLS"),
        ({"otpl": HERE}, "did you mean 'otlp'"),
    ],
)
def test_what_is_wrong_is_named(tmp_path: Path, said: Any, why: str):
    file = tmp_path / "agent.json"
    file.write_text(said if isinstance(said, str) else json.dumps(said))
    with pytest.raises(InvalidConfig) as refused:
        Settings.load(file)
    assert str(refused.value).startswith(f"{file}: ")
    assert why in str(refused.value)
