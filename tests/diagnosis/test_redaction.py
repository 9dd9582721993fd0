"""Secrets are left out of what is handed on, and what one needs to understand it stays."""

from __future__ import annotations

import json

import pytest

from cni.diagnosis.redaction import LEFT_OUT, redacted

PLANTED = "s3cr3tV4lue"
KEY = "YNqHbfBQKaGvzefQNEzXzP8z1cO4mYJ1kq7v3b2c1d0="


@pytest.mark.parametrize(
    "text",
    [
        f"-----BEGIN PRIVATE KEY-----\n{PLANTED}\n-----END PRIVATE KEY-----",
        json.dumps({"pem": f"-----BEGIN EC PRIVATE KEY-----\n{PLANTED}\n-----END EC PRIVATE KEY-----\n"}),
        f"-----BEGIN CERTIFICATE-----\n{PLANTED} and no end",
        f"https://admin:{PLANTED}@etcd-1:2379/v2",
        f'{{"endpoints": ["https://{PLANTED}@etcd-1:2379"]}}',
        f"GET /v1/traces?api-token={PLANTED}&x=1",
        f"Authorization: Bearer {PLANTED}.x.y",
        f'{{"headers": {{"x-token": "{PLANTED}"}}}}',
        f'{{"headers": ["authorization={PLANTED}"]}}',
        json.dumps({"store": {"password": PLANTED, "user": "root"}}, indent=2),
        json.dumps({"apiKey": PLANTED}),
        json.dumps({"key": PLANTED}),
        f"CONSUL_HTTP_TOKEN={PLANTED}",
        f"password = '{PLANTED}'",
        f"client-key-data: {PLANTED}",
        f"IgnoreUnknown=1;K8S_POD_NAME=web;MY_SECRET={PLANTED}",
        json.dumps({"msg": f'refused: "token": "{PLANTED}"'}),
        f"eyJhbGciOiJSUzI1NiJ9.{PLANTED}.sig",
    ],
)
def test_a_secret_is_left_out(text: str):
    assert PLANTED not in redacted(text)
    assert LEFT_OUT in redacted(text)


def test_a_wireguard_key_is_left_out_wherever_it_stands():
    for text in (KEY, f"peer {KEY} endpoint", json.dumps({"wireguard": KEY})):
        assert KEY[:43] not in redacted(text)


@pytest.mark.parametrize(
    "text",
    [
        json.dumps({"store": {"key": "/etc/agent-cni/tls.key", "cert": "/etc/agent-cni/tls.crt"}}),
        "route 0.0.0.0/0 is missing in the pod",
        "https://etcd-1:2379",
        "policy chain in-431c8e56900 is missing",
        json.dumps({"attachment": "net/3f2a1b9c8d7e6f5a4b3c2d1e0f9a8b7c6d5e4f3a2b1c0d9e8f7a6b5c4d3e2f1a/eth0"}),
        "sysctl net.ipv4.ip_forward is 0, not 1 (2 pods: shop/web, shop/db)",
        "elements = { 10.1.0.2 : jump in-0a }",
    ],
)
def test_what_is_no_secret_stays(text: str):
    assert redacted(text) == text
