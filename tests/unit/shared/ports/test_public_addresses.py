"""Which addresses a stranger may make us call."""

from ipaddress import ip_network

import pytest

from shared.ports.public_addresses import is_listed, is_public, parsed


@pytest.mark.parametrize(
    "address", ["93.184.215.14", "1.1.1.1", "2606:4700:4700::1111", "::ffff:1.1.1.1", "64:ff9b::101:101"]
)
def test_public(address):
    assert is_public(parsed(address))


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1",
        "127.8.8.8",
        "0.0.0.0",
        "0.1.2.3",
        "10.0.0.1",
        "172.16.0.1",
        "172.31.255.255",
        "192.168.1.1",
        "100.64.0.1",  # shared by carriers (RFC 6598)
        "100.100.100.200",  # metadata, Alibaba
        "169.254.169.254",  # metadata, most clouds
        "169.254.170.2",  # credentials of containers, AWS
        "168.63.129.16",  # Azure's host
        "192.0.0.192",  # metadata, Oracle
        "192.0.2.1",
        "198.18.0.1",
        "198.51.100.1",
        "203.0.113.1",
        "224.0.0.1",
        "239.1.2.3",
        "240.0.0.1",
        "255.255.255.255",
        "::",
        "::1",
        "::7f00:1",
        "fe80::1",
        "fe80::1%eth0",
        "fc00::1",
        "fd00:ec2::254",  # metadata, AWS
        "fec0::1",
        "ff02::1",
        "2001:db8::1",
        "::ffff:127.0.0.1",
        "::ffff:10.0.0.1",
        "::ffff:169.254.169.254",
        "64:ff9b::a9fe:a9fe",
        "64:ff9b:1::1",
        "2002:7f00:1::",
        "2002:a9fe:a9fe::1",
        "2001:0:4136:e378:8000:63bf:80ff:fffe",  # Teredo, for 127.0.0.1
    ],
)
def test_not_public(address):
    assert not is_public(parsed(address))


def test_a_listed_network_holds_its_mapped_addresses_too():
    networks = [ip_network("127.0.0.0/8"), ip_network("fd00::/8")]

    assert all(is_listed(parsed(address), networks) for address in ("127.0.0.1", "::ffff:127.0.0.1", "fd00::1"))
    assert not any(is_listed(parsed(address), networks) for address in ("10.0.0.1", "::1"))
