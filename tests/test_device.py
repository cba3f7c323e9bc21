"""Device and precision: picked by what is there and by measurement."""

from __future__ import annotations

import pytest
import torch

from pictura import ParameterError, device


def test_auto_picks_what_is_there() -> None:
    expected = "cuda" if torch.cuda.is_available() else "mps" if torch.backends.mps.is_available() else "cpu"
    assert device.pick().type == expected
    assert device.pick("cpu") == device.pick(torch.device("cpu")) == torch.device("cpu")


@pytest.mark.parametrize("name", ["gpu", "cpu:x", "", None, 7.5, "meta", "cuda:4096"])
def test_what_is_not_there_is_refused(name: object) -> None:
    with pytest.raises(ParameterError) as caught:
        device.pick(name)  # type: ignore[arg-type]
    assert caught.value.parameter == "device" and "\n" not in str(caught.value)


def test_precision_follows_the_measurement(monkeypatch: pytest.MonkeyPatch) -> None:
    cpu = torch.device("cpu")
    assert device.precision(None, cpu) == torch.float32
    for rates, expected in [
        ((100.0, 219.0), torch.bfloat16),
        ((100.0, 110.0), torch.float32),
        ((100.0, 9.0), torch.float32),
    ]:
        monkeypatch.setattr(
            device, "speed", lambda place, rates=rates: dict(zip(("float32", "bfloat16"), rates, strict=True))
        )
        assert device.precision("auto", cpu) == expected
    assert device.precision("float16", cpu) == device.precision(torch.float16, cpu) == torch.float16


def test_facts_are_measured_here() -> None:
    facts = device.facts()
    assert facts["device"] == str(device.pick()) and facts["gflops_float32"] > 0
    assert facts["dtype_auto"] in ("float32", "bfloat16") and "bfloat16 ran at" in facts["why"]
