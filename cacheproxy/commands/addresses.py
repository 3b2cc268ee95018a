"""Whether the addresses of a configuration can stand beside each other: no port twice, and no proxy before itself.

Refuses to look names up: of the names it knows `localhost` only, and takes two others for one machine if they are
spelt alike. A port 0 is chosen by the system when it listens, so it meets nothing.
"""

from __future__ import annotations

import ipaddress
import itertools
import socket
from collections.abc import Iterator, Mapping

from cacheproxy.config import Config, split_listen
from cacheproxy.edge.hosts import address_of
from cacheproxy.upstream.address import Address

_IP = ipaddress.IPv4Address | ipaddress.IPv6Address
_LOOPBACK: Mapping[int, _IP] = {4: ipaddress.ip_address("127.0.0.1"), 6: ipaddress.ip_address("::1")}
"""By the version of IP."""


def clashes(settings: Config) -> Iterator[str]:
    """A sentence with its remedy for each. Raises ConfigError for what is no address."""
    listens = {"server.listen": settings.server.listen, "admin.listen": settings.admin.listen}
    (clients, clients_port), (operators, operators_port) = map(split_listen, listens.values())
    if clients_port == operators_port != 0 and (reaches(clients, operators) or reaches(operators, clients)):
        yield (
            f'server.listen = "{settings.server.listen}" and admin.listen = "{settings.admin.listen}" are one port; '
            'give each its own, such as "127.0.0.1:11435" and "127.0.0.1:11436"'
        )
    for number, url in enumerate(settings.upstream.urls):
        setting = "upstream.others" if number else "upstream.url"
        address = Address.of(url, setting)
        for name, listen in listens.items():
            host, port = split_listen(listen)
            if port == address.port and reaches(address.host, host):
                yield (
                    f'{setting} = "{url}" is this proxy itself ({name} = "{listen}"), which would ask itself for ever; '
                    'set it to where Ollama listens, such as "http://127.0.0.1:11434"'
                )


def reaches(host: str, listen_host: str) -> bool:
    """Whether a connection to `host` comes out where something listens on `listen_host`, on the same port."""
    host, listen_host = host.lower().removesuffix("."), listen_host.lower()
    if host == listen_host:
        return True
    goals = [_LOOPBACK[goal.version] if goal.is_unspecified else goal for goal in _addresses(host)]
    return any(
        goal == here or (here.is_unspecified and goal.version == here.version and _is_own(goal))
        for goal, here in itertools.product(goals, _addresses(listen_host))
    )


def _addresses(host: str) -> tuple[_IP, ...]:
    """What a host stands for; nothing for a name that would have to be looked up."""
    if host == "localhost":
        return tuple(_LOOPBACK.values())
    address = address_of(host)
    return () if address is None else (address,)


def _is_own(address: _IP) -> bool:
    """Whether it is one of this machine's: only then can something be bound to it."""
    family = socket.AF_INET6 if address.version == 6 else socket.AF_INET
    try:
        with socket.socket(family, socket.SOCK_DGRAM) as one:
            one.bind((str(address), 0))
    except OSError:
        return False
    return True
