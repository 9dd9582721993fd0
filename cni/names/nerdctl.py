"""What a container of nerdctl is called: it says so to no plugin, and keeps it in a file that has the container's id.

Source: nerdctl's pkg/namestore (DATAROOT/ADDRESS/names/NAMESPACE/NAME; 2.0 has it without ``names``, as was seen), and
CNI_CONTAINERID of its OCI hook, ``NAMESPACE-ID``.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path("/var/lib/nerdctl")


def name_of(container: str) -> str:
    """The name that goes with a CNI_CONTAINERID; nothing where nerdctl has none."""
    namespace, dash, identity = container.rpartition("-")
    places = (f"*/names/{namespace}/*", f"*/{namespace}/*") if dash else ()
    for file in (file for place in places for file in ROOT.glob(place)):
        try:
            if file.read_text().strip() == identity:
                return file.name
        except (OSError, ValueError):  # it is gone meanwhile, or none
            continue
    return ""
