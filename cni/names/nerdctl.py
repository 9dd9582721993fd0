"""What a container of nerdctl is called: it says so to no plugin, and keeps it in a file that has the container's id.

Source: nerdctl's pkg/store and pkg/namestore (DATAROOT/ADDRESS/names/NAMESPACE/NAME), and CNI_CONTAINERID of its OCI hook,
``NAMESPACE-ID``.
"""

from __future__ import annotations

from pathlib import Path

ROOT = Path("/var/lib/nerdctl")


def name_of(container: str) -> str:
    """The name that goes with a CNI_CONTAINERID; nothing where nerdctl has none."""
    namespace, dash, identity = container.rpartition("-")
    for file in ROOT.glob(f"*/names/{namespace}/*") if dash else ():
        try:
            if file.read_text().strip() == identity:
                return file.name
        except OSError:  # it is gone meanwhile
            continue
    return ""
