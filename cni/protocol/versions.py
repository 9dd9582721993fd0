"""The versions of the CNI specification this suite speaks, oldest first."""

SUPPORTED = ("0.1.0", "0.2.0", "0.3.0", "0.3.1", "0.4.0", "1.0.0", "1.1.0")
LATEST = SUPPORTED[-1]

#: The first version that knows a verb, for verbs the first version lacks.
SINCE = {"CHECK": "0.4.0", "GC": "1.1.0", "STATUS": "1.1.0"}

_QUOTED = ",".join(f'"{version}"' for version in SUPPORTED)

#: The answer to VERSION (specification 1.1.0, section 2): a constant, so it needs no JSON module.
ANSWER = f'{{"cniVersion":"{LATEST}","supportedVersions":[{_QUOTED}]}}\n'


def at_least(version: str, wanted: str) -> bool:
    """Whether one supported version is the same as or newer than another."""
    return SUPPORTED.index(version) >= SUPPORTED.index(wanted)
