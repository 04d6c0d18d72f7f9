"""Which network addresses a stranger may make us call: those of the public internet, and what
the operator allows.
"""

from collections.abc import Sequence
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network, ip_address, ip_network

Address = IPv4Address | IPv6Address
Network = IPv4Network | IPv6Network

PUBLIC_BY_NUMBER_ALONE = tuple(
    map(ip_network, ("168.63.129.16/32", "192.0.0.0/24", "64:ff9b:1::/48"))
)
"""Azure's metadata and DNS, which the machine's own host answers; what `ipaddress` takes for
global in some releases of Python: protocol assignments (RFC 6890), NAT64 for local use (RFC
8215)."""
TRANSLATED = IPv6Network("64:ff9b::/96")
"""NAT64 (RFC 6052): the last 32 bits are an IPv4 address."""


def parsed(text: str) -> Address:
    """Return an address as the resolver gives it, which may name an interface: `fe80::1%eth0`."""
    return ip_address(text.partition("%")[0])


def is_listed(address: Address, networks: Sequence[Network]) -> bool:
    """True if the address, or the IPv4 address inside it, lies in one of the networks."""
    return any(_inner(address) in network or address in network for network in networks)


def is_public(address: Address) -> bool:
    """True for what is reached through the public internet alone.

    False for private, loopback, link-local (so also 169.254.169.254), shared (RFC 6598),
    multicast, reserved and unspecified addresses, documentation and benchmarking networks, the
    metadata services of clouds, and for IPv6 addresses that hold one of those (IPv4-mapped,
    NAT64, 6to4, Teredo)."""
    inner = _inner(address)
    if inner.is_multicast or inner.is_reserved or is_listed(address, PUBLIC_BY_NUMBER_ALONE):
        return False
    return inner.is_global and not (isinstance(inner, IPv6Address) and inner.is_site_local)


def _inner(address: Address) -> Address:
    """Return the IPv4 address that an IPv6 address stands for, or the address itself."""
    if isinstance(address, IPv4Address):
        return address
    if address in TRANSLATED:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    teredo = address.teredo[1] if address.teredo else None
    return address.ipv4_mapped or address.sixtofour or teredo or address
