"""What every provider keeps to, ours and others': whatever discovery finds is tested."""

from __future__ import annotations

import subprocess
import sys
from importlib.metadata import EntryPoint

import pytest

from pictura import discovery, providers
from pictura.errors import ParameterError
from pictura.providers import Call, Provider, Reply, Wait
from pictura.request import Request

SECRET = "sk-never-print-this"


class Plain:
    """The smallest provider there is; it stands for those that other packages bring."""

    name = "plain"
    parameters = frozenset({"size", "seed"})

    def __init__(self, model="m", base_url="http://127.0.0.1:9", api_key=SECRET):
        self.base, self._key = base_url, api_key

    def check(self, request):
        if request.num_steps is not None:
            raise ParameterError("plain takes a size, not num_steps", parameter="num_steps")

    def run(self, request):
        call = Call("POST", self.base, {"Authorization": self._key}, json={"prompt": request.prompt})
        reply = yield from providers.retried(call)
        if not reply.ok:
            raise providers.ProviderError(f"the server refused with {reply.status}")
        return reply.json()


PLUGIN = EntryPoint("plain", f"{__name__}:Plain", "pictura.providers")


@pytest.fixture
def plugged(monkeypatch):
    """Discovery with the plain provider installed."""
    monkeypatch.setattr(discovery, "entry_points", lambda group: [PLUGIN] if group == PLUGIN.group else [])
    monkeypatch.setitem(sys.modules, __name__, sys.modules[__name__])
    discovery.found.cache_clear()
    yield
    discovery.found.cache_clear()


def test_a_provider_of_another_package_is_found(plugged):
    assert "plain" in providers.names()
    assert providers.load("plain") is Plain
    with pytest.raises(ParameterError, match="did you mean 'plain'"):
        providers.load("plane")


def opened(name):
    """The provider with a key, at an address where nobody is."""
    return providers.load(name)("m", base_url="http://127.0.0.1:9", api_key=SECRET)


@pytest.mark.parametrize("name", [*providers.names(), "plain"])
class TestEveryProvider:
    def test_keeps_the_protocol(self, plugged, name):
        provider = providers.load(name)
        assert provider.name == name and isinstance(opened(name).parameters, frozenset)
        assert isinstance(opened(name), Provider) and SECRET not in repr(opened(name))

    def test_asks_before_it_waits_and_ends_in_pictures_or_an_error(self, plugged, name):
        """It yields calls and waits only, gives up on a server that always fails, and shows no secret."""
        flow = opened(name).run(Request(prompt="a cat"))
        wanted = next(flow)
        assert isinstance(wanted, Call)
        with pytest.raises(providers.ProviderError) as caught:
            for _ in range(50):
                assert isinstance(wanted, Call | Wait) and SECRET not in repr(wanted)
                wanted = flow.send(Reply(503, {"retry-after": "0"}, SECRET.encode()))
        assert SECRET not in str(caught.value) and "\n" not in str(caught.value)

    def test_can_be_closed_at_any_question(self, plugged, name):
        flow = opened(name).run(Request(prompt="a cat"))
        next(flow)
        flow.close()
        with pytest.raises(StopIteration):
            next(flow)


def test_providers_import_no_torch():
    code = (
        "import sys, pictura.providers as p; [p.load(n) for n in p.names()]; sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
