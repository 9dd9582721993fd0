"""Under which licences our packages are, as SPDX expressions, and which of these we take."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import Distribution

from license_expression import ExpressionError, LicenseExpression, get_spdx_licensing

#: What lets anybody use a package as they like (MPL-2.0: whose own files stay under it). Another is somebody's decision.
ALLOWED = {"Apache-2.0", "BSD-2-Clause", "BSD-3-Clause", "ISC", "MIT", "MPL-2.0", "PSF-2.0"}
#: What packages say that know no SPDX expression: in their `License`, as a classifier, or at the top of the text itself.
SAID = {
    "3-Clause BSD License": "BSD-3-Clause",
    "Apache 2.0": "Apache-2.0",
    "Apache License, Version 2.0": "Apache-2.0",
    "License :: OSI Approved :: Apache Software License": "Apache-2.0",
    "License :: OSI Approved :: MIT License": "MIT",
    "License :: OSI Approved :: Mozilla Public License 2.0 (MPL 2.0)": "MPL-2.0",
    "PSFL": "PSF-2.0",
    "The MIT License (MIT)": "MIT",
}
SPDX = get_spdx_licensing()


def licence(package: Distribution) -> str:
    """The SPDX expression of a package's licence; what it says itself where that is none, and `` where it says nothing."""
    metadata = package.metadata
    if expression := metadata.get("License-Expression"):
        return expression
    said = [
        *_first_lines([metadata.get("License", "")]),
        *metadata.get_all("Classifier", ()),
        *_first_lines(_texts(package)),
    ]
    understood = (SAID.get(words, words) for words in said if words in SAID or words in SPDX.known_symbols)
    return next(understood, said[0] if metadata.get("License") else "")


def _texts(package: Distribution) -> Iterator[str]:
    named = package.metadata.get_all("License-File", ())
    return (
        path.locate().read_text() for path in package.files or () if path.name in named and ".dist-info" in str(path)
    )


def _first_lines(texts: Iterator[str] | list[str]) -> list[str]:
    return [text.strip().splitlines()[0] for text in texts if text.strip()]


def is_allowed(expression: str) -> bool:
    """Whether we may use what is under it: of what `OR` leaves us to choose, one is enough."""
    try:
        return _allowed(SPDX.parse(expression, validate=True, strict=True))
    except ExpressionError:
        return False


def _allowed(term: LicenseExpression | None) -> bool:
    if isinstance(term, SPDX.OR):
        return any(_allowed(part) for part in term.args)
    if isinstance(term, SPDX.AND):
        return all(_allowed(part) for part in term.args)
    return str(term) in ALLOWED


def faults(packages: Iterator[Distribution]) -> list[str]:
    """Packages whose licence is not allowed, or cannot be understood."""
    found = {(package.name, package.version): licence(package) for package in packages}
    return [
        f"{name} {version}: its licence is {said or 'not said'}"
        for (name, version), said in sorted(found.items())
        if not is_allowed(said)
    ]
