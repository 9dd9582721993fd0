"""Another WireGuard key for this host."""

from __future__ import annotations

import argparse
import time

from cni.cluster.config import ClusterConfig
from cni.command.output import print_json, say
from cni.errors import InvalidConfig, Unavailable
from cni.member.key import NO_KEY, Key
from cni.state import DEFAULT_FOLDER

#: A member looks once a second whether its key is another; seconds.
_ROTATION, _STEP = 5.0, 0.2


def rotate(options: argparse.Namespace) -> int:
    """Have the host's WireGuard key be another. Raises InvalidConfig where it has none, and Unavailable where no member takes it up."""
    config = ClusterConfig.load(options.config)
    if not config.encryption:
        raise InvalidConfig(
            f"{options.config}: $.encryption: the cluster is not encrypted, so {config.node} has no key"
        )
    key = Key(DEFAULT_FOLDER)
    before = key.version
    key.delete()
    until = time.monotonic() + _ROTATION
    while key.version in (before, NO_KEY):
        if time.monotonic() > until:
            raise Unavailable(
                f"no member of this host has made another key within {_ROTATION:g} s; the old one is gone"
            )
        time.sleep(_STEP)
    print_json({"node": config.node, "key": key.public}) if options.json else say(
        f"{config.node} has another key: {key.public}"
    )
    return 0
