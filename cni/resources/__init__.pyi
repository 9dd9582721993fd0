# What __init__.py has to offer, for type checkers and readers; ROOMS in base.py says the same to Python.

from cni.resources.addressing import BlockGateway, GatewayAddress, HostSysctl, PodAddress, PodSysctl
from cni.resources.advertisements import Ipv6Forwarding, NoAdvertisements
from cni.resources.antispoof import AntiSpoof, GuardTable
from cni.resources.asking import Asking, AskingPod, AskingTable
from cni.resources.base import Difference, Resource, decoded, encoded, key_of, uses_of
from cni.resources.bridge import Bridge
from cni.resources.bridge_filter import BridgeFilter
from cni.resources.domains import DomainSet
from cni.resources.fresh import FreshAddress
from cni.resources.gate import Gate, GateTable, PortOpening
from cni.resources.interception import PodLoopback, PodRules, ProxyAddress, SourceLabels, WayBack
from cni.resources.links import LostPort, PodLink, VethPair
from cni.resources.macvlan import HostShim, Macvlan
from cni.resources.masquerade import Masquerade, NftMasquerade, NftMasqueradeRules
from cni.resources.masquerade_iptables import IptablesMasquerade, IptablesMasqueradeRules
from cni.resources.names import NameServer, PodNames
from cni.resources.neighbours import HostNeighbour, PodNeighbour
from cni.resources.nft import NftRules
from cni.resources.peer_set import PeerEntries, PeerSet
from cni.resources.peers import FloodList
from cni.resources.plan import Host, HostPort, Plan, Uplink, UplinkQuery, Vtep
from cni.resources.policy import PodPolicy
from cni.resources.policy_table import PolicyTable
from cni.resources.readiness import Announcement, Forwarding, Settled, Vacant
from cni.resources.remote import PeerAddress, PeerNeighbour, PeerRefusal, PeerRoute, PeerRow
from cni.resources.routes import DeadEnd, GatewayRoute, HostRoute, PodRoute
from cni.resources.vtep_filter import VtepFilter
from cni.resources.vxlan import VxlanLink
from cni.resources.world import Said, World

__all__ = [
    "Announcement",
    "AntiSpoof",
    "Asking",
    "AskingPod",
    "AskingTable",
    "BlockGateway",
    "Bridge",
    "BridgeFilter",
    "DeadEnd",
    "Difference",
    "DomainSet",
    "FloodList",
    "Forwarding",
    "FreshAddress",
    "Gate",
    "GateTable",
    "GatewayAddress",
    "GatewayRoute",
    "GuardTable",
    "Host",
    "HostNeighbour",
    "HostPort",
    "HostRoute",
    "HostShim",
    "HostSysctl",
    "IptablesMasquerade",
    "IptablesMasqueradeRules",
    "Ipv6Forwarding",
    "LostPort",
    "Macvlan",
    "Masquerade",
    "NameServer",
    "NftMasquerade",
    "NftMasqueradeRules",
    "NftRules",
    "NoAdvertisements",
    "PeerAddress",
    "PeerEntries",
    "PeerNeighbour",
    "PeerRefusal",
    "PeerRoute",
    "PeerRow",
    "PeerSet",
    "Plan",
    "PodAddress",
    "PodLink",
    "PodLoopback",
    "PodNames",
    "PodNeighbour",
    "PodPolicy",
    "PodRoute",
    "PodRules",
    "PodSysctl",
    "PolicyTable",
    "PortOpening",
    "ProxyAddress",
    "Resource",
    "Said",
    "Settled",
    "SourceLabels",
    "Uplink",
    "UplinkQuery",
    "Vacant",
    "VethPair",
    "Vtep",
    "VtepFilter",
    "VxlanLink",
    "WayBack",
    "World",
    "decoded",
    "encoded",
    "key_of",
    "uses_of",
]
