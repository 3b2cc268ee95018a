"""Which hosts are this very machine, going by how they are written. Refuses to look names up."""

from __future__ import annotations

import ipaddress


def address_of(host: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    """The address that a host is written as, an IPv4 one also where it is mapped into IPv6; None for a name. Pure."""
    try:
        address = ipaddress.ip_address(host)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return mapped or address


def is_loopback(host: str) -> bool:
    """True for `localhost` and the addresses of the loopback interface; any other name may point anywhere. Pure."""
    address = address_of(host)
    return host.lower() == "localhost" if address is None else address.is_loopback
