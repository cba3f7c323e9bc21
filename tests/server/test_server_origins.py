"""Without a key: names of this machine only, and no other site's pages."""

from __future__ import annotations

import pytest

from pictura.server import origins
from pictura.server.errors import Forbidden


@pytest.mark.parametrize(
    "host",
    ["localhost", "LocalHost:7860", "localhost.", "127.0.0.1", "127.0.0.1:1", "127.9.9.9", "[::1]",
     "[::1]:80", "[0:0:0:0:0:0:0:1]:7860"],
)  # fmt: skip
def test_names_of_this_machine(host):
    assert origins.is_loopback(host)


@pytest.mark.parametrize(
    "host",
    ["", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example", "127.evil.example", "0.0.0.0",
     "10.0.0.1", "[::]", "[fe80::1]", "::1", "localhost:99999", "localhost:", "localhost:x", "localhost@evil",
     "evil@localhost", "localhost/x", "localhost#", "localhost evil", "localhost\t", "localhosٓt",
     "１27.0.0.1", "127.0.0.1, evil.example", "2130706433", "0x7f000001", "0177.0.0.1", "[::ffff:10.0.0.1]",
     "[localhost]"],
)  # fmt: skip
def test_names_of_others(host):
    assert not origins.is_loopback(host)


def asked(method="POST", host="localhost:7860", origin=None, site=None, scheme="http", allowed=()):
    origins.check(method, host=host, origin=origin, site=site, scheme=scheme, allowed=allowed)


def test_pages_of_others_change_nothing():
    asked()  # curl
    asked(origin="http://localhost:7860", site="same-origin")
    asked(host="LOCALHOST:7860", origin="http://localhost:7860")
    asked("GET", origin="https://evil.example", site="cross-site")  # its page cannot read the answer
    asked(origin="https://studio.example", allowed=["https://studio.example"])
    for refused in (
        {"origin": "null"}, {"origin": "https://localhost:7860"}, {"origin": "http://localhost:7861"},
        {"origin": "http://127.0.0.1:7860"}, {"origin": "http://localhost:7860.evil.example"}, {"origin": ""},
        {"origin": "http://localhost:7860, http://evil.example"}, {"site": "cross-site"},
        {"site": "same-site"}, {"origin": "https://evil.example", "allowed": ["https://studio.example"]},
        {"host": None}, {"host": "evil.example", "origin": "http://evil.example"},
    ):  # fmt: skip
        with pytest.raises(Forbidden):
            asked(**refused)
