"""How a pod is probed: every spelling of it comes to one, and what is wrong is named."""

from __future__ import annotations

import json
from typing import Any

import pytest

from cni.errors import InvalidConfig
from cni.names.health import read

REST = {"interval": 10.0, "timeout": 1.0, "failures": 3, "passes": 2}


@pytest.mark.parametrize(
    ("said", "probe"),
    [
        ({"tcp": 80}, {"tcp": 80}),
        ({"tcp": ":80"}, {"tcp": 80}),
        ({"tcp": "80"}, {"tcp": 80}),
        ({"http": "/healthz", "port": 8080}, {"http": "/healthz", "port": 8080}),
        ({"http": ":8080/healthz"}, {"http": "/healthz", "port": 8080}),
        ({"http": "http://:8080/healthz?x=1"}, {"http": "/healthz?x=1", "port": 8080}),
        ({"http": "http://localhost:8080/healthz"}, {"http": "/healthz", "port": 8080}),
        ({"http": "http://127.0.0.1/healthz"}, {"http": "/healthz", "port": 80}),
        ({"http": "/healthz"}, {"http": "/healthz", "port": 80}),
        ({"http": 8080}, {"http": "/", "port": 8080}),
        ({"http": "8080"}, {"http": "/", "port": 8080}),
        ({"http": {"path": "/h", "port": 81}}, {"http": "/h", "port": 81}),
    ],
)
def test_a_probe_in_every_spelling(said: dict[str, Any], probe: dict[str, Any]):
    assert json.loads(read(said)) == probe | REST


@pytest.mark.parametrize(
    ("said", "seconds"), [(2, 2.0), ("2s", 2.0), ("500ms", 0.5), ("1m", 60.0), (0.25, 0.25), ("1.5s", 1.5)]
)
def test_an_interval_in_every_spelling(said: Any, seconds: float):
    found = json.loads(read({"tcp": 1, "interval": said}))
    assert (found["interval"], found["timeout"]) == (seconds, min(1.0, seconds))


def test_an_annotation_stands_in_the_place_of_the_section():
    assert json.loads(read({"tcp": 80, "passes": 7}, '{"tcp": 81}')) == {"tcp": 81} | REST
    assert read({"tcp": 80}, "{}") == ""
    assert read(None) == ""


@pytest.mark.parametrize(
    ("said", "where"),
    [
        ({}, None),
        ({"tcp": 0}, "$.health.tcp: 0"),
        ({"tcp": 65536}, "$.health.tcp"),
        ({"tcp": True}, "$.health.tcp"),
        ({"tcp": "http"}, "$.health.tcp"),
        ({"interval": 2}, "$.health: has neither"),
        ({"tcp": 80, "http": "/"}, "$.health: has both"),
        ({"http": "/a b"}, "$.health.http"),
        ({"http": "/a\r\nX: y"}, "$.health.http"),
        ({"http": ["/"]}, "$.health.http"),
        (
            {"http": "https://:8443/healthz"},
            "$.health.http: 'https://:8443/healthz': a pod is asked itself, and by http",
        ),
        ({"http": "http://192.0.2.1:80/healthz"}, "$.health.http: 'http://192.0.2.1"),
        ({"http": "/" + 1024 * "a", "port": 80}, "$.health.http"),
        ({"http": {"path": "/", "port": 80, "scheme": "HTTPS"}}, "$.health.http.scheme: unknown key"),
        ({"tcp": 5000 * "9"}, "$.health.tcp"),
        ({"http": {"path": "x", "port": 1}}, "$.health.http"),
        ({"tcp": 1, "interval": 0}, "$.health.interval"),
        ({"tcp": 1, "interval": "soon"}, "$.health.interval"),
        ({"tcp": 1, "interval": True}, "$.health.interval"),
        ({"tcp": 1, "failures": 0}, "$.health.failures"),
        ({"tcp": 1, "passes": 1.5}, "$.health.passes"),
        ({"tcp": 1, "intervall": 1}, "$.health.intervall: unknown key"),
    ],
)
def test_what_is_wrong_is_named(said: dict[str, Any], where: str | None):
    if where is None:
        assert read(said) == ""
        return
    with pytest.raises(InvalidConfig) as raised:
        read(said)
    assert raised.value.msg.startswith(where)


def test_a_pods_own_interval_is_a_second_at_least():
    assert json.loads(read(None, '{"tcp": 81, "interval": 1, "timeout": "100ms"}'))["interval"] == 1
    with pytest.raises(InvalidConfig, match=r"health\.interval: 0\.9 s; a pod's own is 1 s at least"):
        read(None, '{"tcp": 81, "interval": "900ms"}')


@pytest.mark.parametrize("text", ["{", "[]", "7", '{"udp": 5}', 100_000 * "[", f'{{"tcp": {5000 * "9"}}}'])
def test_an_annotation_that_is_wrong_is_named(text: str):
    with pytest.raises(InvalidConfig) as raised:
        read(None, text)
    assert raised.value.msg.startswith("annotation names.agent-cni.dev/health")
