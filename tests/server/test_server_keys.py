"""Keys in files and in memory, and how often they may ask."""

from __future__ import annotations

import hashlib
import os
import re
from dataclasses import fields
from pathlib import Path

import pytest

from pictura.errors import FileError, ParameterError
from pictura.server.errors import Busy
from pictura.server.guard import scope_of
from pictura.server.keys import Key, added, find, key_of, new_secret, read_keys, removed
from pictura.server.rates import Rates
from pictura.server.settings import Limits, Settings


def test_a_key_is_shown_once_and_kept_as_its_hash(tmp_path):
    file = tmp_path / "keys" / "all"
    secret = added(file, "anna", ["read", "generate"], requests=60)
    other = added(file, "ben", ["read"])
    text = file.read_text()
    assert secret not in text and hashlib.sha256(secret.encode()).hexdigest() in text
    assert os.stat(file).st_mode & 0o777 == 0o600
    keys = read_keys(file)
    assert [(key.name, sorted(key.scopes), key.requests) for key in keys] == [
        ("anna", ["generate", "read"], 60),
        ("ben", ["read"], None),
    ]
    assert find(keys, secret).name == "anna" and find(keys, other).name == "ben"
    assert find(keys, secret + "x") is None and find(keys, "") is None
    assert secret not in repr(keys)
    removed(file, "anna")
    assert [key.name for key in read_keys(file)] == ["ben"]


def test_comments_and_plain_keys_stay_when_keys_are_added(tmp_path):
    file = tmp_path / "keys"
    file.write_text("# ours\n\nplain-key-of-somebody\n")
    added(file, "anna", ["read"])
    assert file.read_text().startswith("# ours\n\nplain-key-of-somebody\n")
    first, second = read_keys(file)
    assert first == key_of("plain-key-of-somebody") and second.name == "anna"
    assert not first.short and key_of("short").short and len(new_secret()) > 40


@pytest.mark.parametrize(
    "line",
    ["anna my-secret", "anna sha256:12", f"anna sha256:{'0' * 64} requests=0", f"an/na sha256:{'0' * 64}",
     f"anna sha256:{'0' * 64} read read", f"a sha256:{'0' * 64} requests=²", ""],
)  # fmt: skip
def test_lines_that_are_not_understood_are_refused_without_showing_them(tmp_path, line):
    file = tmp_path / "keys"
    file.write_text(line + "\n")
    with pytest.raises(FileError) as error:
        read_keys(file)
    assert "my-secret" not in str(error.value)


def test_bad_names_and_scopes(tmp_path):
    file = tmp_path / "keys"
    added(file, "anna", ["read"])
    with pytest.raises(FileError, match="already"):
        added(file, "anna", ["read"])
    with pytest.raises(ParameterError, match="did you mean 'generate'"):
        added(file, "ben", ["generat"])
    for name in ("", "a b", "../x", "a\nb"):
        with pytest.raises(ParameterError, match="name is"):
            added(file, name, ["read"])
    with pytest.raises(FileError, match="did you mean 'anna'"):
        removed(file, "ana")
    file.write_text(file.read_text() * 2)
    with pytest.raises(FileError, match="twice"):
        read_keys(file)


def test_buckets_fill_evenly_and_say_when_to_come_back():
    now = [100.0]
    one = Key(name="one", digest=b"", requests=60)
    two = Key(name="two", digest=b"", pictures=6)
    rates = Rates([one, two], Limits(), clock=lambda: now[0])
    for _ in range(60):
        rates.request("one")
    with pytest.raises(Busy) as busy:
        rates.request("one")
    assert busy.value.retry_after == 1
    rates.request("two")  # its own limit is none
    now[0] += 0.5
    with pytest.raises(Busy):
        rates.request("one")
    now[0] += 0.5
    rates.request("one")
    rates.pictures("two", 4)
    with pytest.raises(Busy) as busy:
        rates.pictures("two", 5)
    assert busy.value.retry_after == 30  # three more, one in ten seconds
    now[0] += 30
    rates.pictures("two", 5)
    with pytest.raises(ParameterError, match="6 in a minute"):
        rates.pictures("two", 7)
    for _ in range(1000):
        rates.pictures("", 100)  # without keys there is nobody to count


def test_two_keys_never_share_a_name():
    with pytest.raises(ParameterError, match="'anna'"):
        Settings(keys=(key_of("a", name="anna"), key_of("b", name="anna")))


def test_the_table_of_limits_is_true():
    page = (Path(__file__).parents[2] / "docs" / "server.md").read_text()
    told = dict(re.findall(r"^\| `(\w+)` \| (\d+|none) \|", page, re.M))
    usual = {field.name: field.default for field in fields(Limits)}
    assert told == {name: "none" if value is None else f"{value:g}" if value < 1e5 else str(value)
                    for name, value in usual.items()}  # fmt: skip


def test_what_each_route_needs():
    needed = {
        ("GET", "/api/jobs"): "read", ("GET", "/metrics"): "read", ("POST", "/api/inspect"): "read",
        ("POST", "/api/jobs"): "generate", ("DELETE", "/api/jobs/1"): "generate",
        ("POST", "/api/images/1/replay"): "generate", ("POST", "/v1/images/generations"): "generate",
        ("POST", "/models/x"): "generate", ("POST", "/sdapi/v1/txt2img"): "generate",
        ("POST", "/something/new"): "generate", ("PATCH", "/api/images/1"): "rate",
        ("POST", "/api/choices"): "rate", ("PUT", "/api/collections/a/images/1"): "rate",
        ("POST", "/api/models/a/load"): "admin", ("POST", "/sdapi/v1/options"): "generate",
    }  # fmt: skip
    assert {asked: scope_of(*asked) for asked in needed} == needed
