"""What this node remembers: attachments, leases, and who uses what they share, in one SQLite file."""

from cni.state.configured import Place, said_by
from cni.state.records import Record
from cni.state.store import DEFAULT_FOLDER, FILE, Owners, Store, owners_on_node

__all__ = ["DEFAULT_FOLDER", "FILE", "Owners", "Place", "Record", "Store", "owners_on_node", "said_by"]
