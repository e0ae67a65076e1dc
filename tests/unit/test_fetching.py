"""Which addresses a planner may fetch a file from: the public internet, and what the installation allows."""

from __future__ import annotations

from ipaddress import ip_address, ip_network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mailfleet_operator import settings as operator_settings
from mailfleet_operator.errors import SettingsError as OperatorSettingsError
from mailfleet_sender.audience.fetching import forbidden
from mailfleet_sender.contract import environment
from mailfleet_sender.errors import SettingsError
from mailfleet_sender.settings import Environment, PlanSettings

WITHIN = (
    *("127.0.0.1", "127.8.9.1", "10.0.0.1", "172.16.0.1", "172.31.255.255", "192.168.1.1", "169.254.169.254"),
    *("100.64.0.1", "100.100.100.200", "0.0.0.0", "255.255.255.255", "224.0.0.1", "192.0.0.192", "198.18.0.1"),
    *("240.0.0.1", "168.63.129.16", "::1", "::", "fe80::1", "fc00::1", "fd00:ec2::254", "ff02::1", "2001:db8::1"),
    *("::ffff:127.0.0.1", "::ffff:169.254.169.254", "64:ff9b::7f00:1", "64:ff9b::a9fe:a9fe", "2002:7f00:1::"),
)
PUBLIC = ["1.1.1.1", "8.8.8.8", "93.184.216.34", "2606:4700::1111", "::ffff:8.8.8.8", "64:ff9b::808:808"]


@pytest.mark.parametrize("address", WITHIN)
def test_what_is_not_public_is_refused(address: str) -> None:
    assert forbidden(ip_address(address), ())


@pytest.mark.parametrize("address", PUBLIC)
def test_what_is_public_is_not(address: str) -> None:
    assert not forbidden(ip_address(address), ())


@pytest.mark.parametrize(
    ("address", "network"),
    [
        ("10.1.2.3", "10.0.0.0/8"),
        ("::ffff:10.1.2.3", "10.0.0.0/8"),
        ("64:ff9b::a01:203", "10.0.0.0/8"),
        ("fd00::7", "fd00::/8"),
        ("127.0.0.1", "127.0.0.1/32"),
    ],
)
def test_a_network_of_the_installation_is_allowed_however_its_addresses_are_written(address: str, network: str) -> None:
    assert forbidden(ip_address(address), ())
    assert not forbidden(ip_address(address), (ip_network(network),))
    assert forbidden(ip_address("192.168.0.1"), (ip_network(network),))


@given(st.ip_addresses(v=4))
def test_an_address_in_the_clothes_of_ipv6_is_judged_as_itself(address: object) -> None:
    number = int(address)  # type: ignore[call-overload]
    judged = forbidden(ip_address(number), ())
    assert forbidden(ip_address((0xFFFF << 32) | number), ()) == judged
    assert forbidden(ip_address((0x0064FF9B << 96) | number), ()) == judged


def test_the_installations_networks_reach_the_planner() -> None:
    variables = {"MAILFLEET_LEDGER_URL": "l", "MAILFLEET_POD_NAME": "p", "MAILFLEET_RUN": "1"}
    read = PlanSettings.read(Environment({**variables, environment.URL_NETWORKS: "10.0.0.0/8, fd00::/8"}))
    assert read.networks == (ip_network("10.0.0.0/8"), ip_network("fd00::/8"))
    assert PlanSettings.read(Environment(variables)).networks == ()
    with pytest.raises(SettingsError, match=r"networks as 10\.0\.0\.0/8"):
        PlanSettings.read(Environment({**variables, environment.URL_NETWORKS: "files.example.com"}))


def test_the_operator_refuses_networks_that_are_none() -> None:
    variables = {
        "MAILFLEET_LEDGER_URL": "l",
        "MAILFLEET_REDIS_URL": "r",
        "MAILFLEET_SENDER_IMAGE": "i",
        environment.URL_NETWORKS: "10.0.0.0/8, 192.168.7.0/24",
    }
    assert operator_settings.Settings.read(variables).image.url_networks == "10.0.0.0/8,192.168.7.0/24"
    with pytest.raises(OperatorSettingsError, match=r"recipients\.allowedNetworks"):
        operator_settings.Settings.read({**variables, environment.URL_NETWORKS: "10.0.0.1/8"})
