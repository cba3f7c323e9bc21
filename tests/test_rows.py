"""A picture's row has the same bits alone and among others, layer by layer, for one thread and several."""

from __future__ import annotations

import os
import subprocess
import sys
import threading

import pytest
import torch
import torch.nn.functional as F

from pictura.nn.convolution import Conv2d
from pictura.nn.rows import by_rows, one_thread, singly
from pictura.nn.transformer import Attention, pad_rows


@pytest.fixture(params=[1, 2, 4])
def threads(request):
    before = torch.get_num_threads()
    torch.set_num_threads(request.param)
    yield request.param
    torch.set_num_threads(before)


def assert_rows_alone(layer, x):
    with torch.no_grad():
        alone = [layer(x[i : i + 1]) for i in range(4)]
        for count in (2, 3, 4):
            for row, expected in zip(layer(x[:count]), alone, strict=False):
                assert torch.equal(row[None], expected)


@pytest.mark.parametrize(("inner", "outer", "side"), [(3, 32, 8), (32, 3, 12), (4, 64, 64), (64, 64, 16)])
def test_convolution(inner, outer, side, threads):
    assert_rows_alone(Conv2d(inner, outer, 3, padding=1), torch.randn(4, inner, side, side))
    assert_rows_alone(Conv2d(inner, outer, 1), torch.randn(4, inner, side, side))


@pytest.mark.parametrize("width", [32, 256])
def test_linear_of_padded_vectors(width, threads):
    linear = torch.nn.Linear(width, 6 * width)
    assert_rows_alone(lambda x: linear(pad_rows(x))[: len(x)], torch.randn(4, width))


@pytest.mark.parametrize(("tokens", "width"), [(68, 32), (72, 256), (8, 256)])
def test_attention_and_linear_of_tokens(tokens, width, threads):
    x = torch.randn(4, tokens, width)
    attention, linear = Attention(width, 4), torch.nn.Linear(width, 3 * width)
    assert_rows_alone(lambda x: attention(x, torch.zeros(())), x)
    assert_rows_alone(lambda x: F.silu(linear(x)), x)


@pytest.mark.parametrize("dealt", [True, False])
def test_a_row_by_itself_has_its_bits_whatever_the_network(dealt, threads):
    """One whose parts do depend on the company: a vector's product, a small convolution, a tail of silu."""
    vector, convolution = torch.nn.Linear(7, 9), torch.nn.Conv2d(3, 9, 3, padding=1)

    def network(x, v):
        return F.silu(convolution(x) + vector(v)[:, :, None, None])

    x, v = torch.randn(9, 3, 5, 7), torch.randn(9, 7)
    with torch.no_grad():
        whole = singly(network, dealt=dealt, x=x, v=v)
        assert whole.shape == (9, 9, 5, 7) and (whole - network(x, v)).abs().max() < 1e-5
        for count in (1, 2, 5):
            assert torch.equal(singly(network, dealt=dealt, x=x[:count], v=v[:count]), whole[:count])
        if not dealt:
            assert torch.equal(whole[4:5], network(x[4:5], v[4:5]))
        with pytest.raises(RuntimeError):
            singly(network, dealt=dealt, x=x, v=v[:, :3])


def test_a_forked_process_does_not_wait_for_threads_it_does_not_have():
    """In a process of its own, since forking one with threads is what is tested."""
    program = """
import os, sys, torch
import pictura.device
from pictura.nn.rows import by_rows
net = torch.nn.Linear(256, 256)
x = torch.randn(8, 64, 256)
with torch.no_grad():
    expected = by_rows(net, input=x)
    torch.randn(1 << 22).exp()  # OpenMP's threads too
    child = os.fork()
    if not child:
        same = torch.equal(by_rows(net, input=x), expected)
        torch.randn(1 << 22).exp()
        os._exit(0 if same else 3)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    environment = {**os.environ, "OMP_NUM_THREADS": "4", "PYTHONWARNINGS": "ignore"}
    done = subprocess.run([sys.executable, "-c", program], timeout=60, env=environment, check=False)
    assert done.returncode == 0


def workers(rows=8):
    """How many threads `by_rows` gives the rows to."""
    seen = set()

    def note(x):
        seen.add(threading.get_ident())
        together.wait(5)  # so that no thread takes two parts
        return x

    together = threading.Barrier(min(torch.get_num_threads(), rows // 2))
    by_rows(note, x=torch.zeros(rows, 1))
    return len(seen)


@pytest.mark.parametrize("threads", [2, 4], indirect=True)
def test_rows_go_to_all_threads_and_programs_to_one(threads):
    assert workers() == threads
    with one_thread() as allowed:
        assert torch.get_num_threads() == 1 and allowed >= threads
        with one_thread():  # a program may ask for it again
            assert torch.get_num_threads() == 1
    assert torch.get_num_threads() == threads and workers() == threads


@pytest.mark.parametrize("threads", [4], indirect=True)
def test_a_thread_that_starts_while_another_computes_has_all_threads(threads):
    seen, computed = [], threading.Event()

    def late():
        torch.zeros(1 << 20).add_(1)  # learns how many threads there are: now one
        seen.append(torch.get_num_threads())
        computed.set()
        with one_thread() as allowed:
            seen.append(allowed)
        seen.append(torch.get_num_threads())

    thread = threading.Thread(target=late)
    with one_thread():
        thread.start()
        assert computed.wait(10)
    thread.join(10)
    assert seen == [1, 4, 4] and torch.get_num_threads() == 4


@pytest.mark.skipif(not hasattr(torch.ops.mkldnn, "_linear_pointwise"), reason="torch has no oneDNN")
@pytest.mark.skipif(sys.platform != "linux", reason="threads are counted in /proc")
def test_a_thread_that_begins_with_onednn_has_no_threads_of_its_own():
    """They would be too many for the cores, and a row would be computed by several the first time."""
    program = """
import os, torch
from pictura.nn.rows import deal
torch.set_num_threads(4)
x, weight = torch.ones(512, 640), torch.ones(640, 640)
here = len(os.listdir("/proc/self/task"))
with torch.no_grad():
    deal(lambda _: torch.ops.mkldnn._linear_pointwise(x, weight, None, "none", [], ""), range(64))
raise SystemExit(len(os.listdir("/proc/self/task")) - here)
"""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_NUM_THREADS"}
    done = subprocess.run([sys.executable, "-c", program], timeout=60, env=environment, check=False)
    assert 1 <= done.returncode <= 4
