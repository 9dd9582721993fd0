"""rtnetlink, a module for each subject: its question, its change and its reading side by side.

``wire`` packs and reads messages, ``channel`` carries them, ``handle`` asks with them; on it stand ``links`` (with
``linkinfo``), ``namespaces``, ``addresses``, ``labels``, ``routes``, ``rules`` and ``neighbours``. `Rtnl` is all of them for
one network namespace; ``reachability`` adds to it what only a host's uplinks are asked.
"""

from cni.kernel.netlink.rtnl import Rtnl

__all__ = ["Rtnl"]
