"""Remote models: rows a second at 256 at once against a server that answers in 50 ms.

The same server is asked by a bare loop over sockets that reads nothing of the answers, by `astream` and
`stream`, and by the openai package. Server and clients have cores of their own where there are four or more,
and the server then never sleeps. Rows are whole rounds of requests, since a last round that is not full takes
as long as one that is. No history is kept but where it says so; batches write data sets and fsync them.
Memory is read before and after many rows.
"""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from _common import arguments, in_turn, machine, spread, write

from pictura import TextToImage, batch
from pictura.history import History

AT_ONCE, SECONDS = 256, 0.05
KEPT = "stream, kept in a history"
BODY = b'{"model":"m","prompt":"a cat"}'
CALL = b"POST /v1/images/generations HTTP/1.1\r\nhost: x\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY


def prompts(count: int) -> Iterator[str]:
    return (f"a cat, number {index}" for index in range(count))


async def bare(port: int, count: int) -> None:
    """What a client can reach that does nothing: ask, wait for the end of the answer, ask again."""
    left = iter(range(count))

    async def one() -> None:
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        for _ in left:
            writer.write(CALL)
            head = await reader.readuntil(b"\r\n\r\n")
            await reader.readexactly(int(head.rpartition(b":")[2]))
        writer.close()

    await asyncio.gather(*(one() for _ in range(AT_ONCE)))


async def astreamed(model: TextToImage, count: int) -> None:
    async for _ in model.astream(prompts(count), history=False):
        pass


def streamed(model: TextToImage, count: int, history: History | bool = False) -> None:
    for _ in model.stream(prompts(count), history=history):
        pass


def batched(model: TextToImage, count: int, form: str) -> None:
    with tempfile.TemporaryDirectory() as out:
        report = batch.run(list(prompts(count)), Path(out) / "out", model=model, format=form)
    assert report.kept == count


async def openais(port: int, count: int) -> None:
    """The package of the service itself; it does not decode the picture."""
    import openai

    left = prompts(count)
    async with openai.AsyncOpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key="k") as client:

        async def one() -> None:
            for prompt in left:
                await client.images.generate(model="m", prompt=prompt)

        await asyncio.gather(*(one() for _ in range(AT_ONCE)))


def measured(work: Callable[[], object], count: int, used: list[float]) -> float:
    """Rows a second; the microseconds of processor time a row go to `used`."""
    started, before = time.perf_counter(), time.process_time()
    work()
    used.append(1e6 * (time.process_time() - before) / count)
    return count / (time.perf_counter() - started)


def parted() -> tuple[list[int], list[int]]:
    """Cores for the clients and cores for the server: halves of what there is, or all of it for both."""
    if not hasattr(os, "sched_getaffinity"):
        return [], []
    cores = sorted(os.sched_getaffinity(0))
    half = len(cores) // 2
    return (cores[:half], cores[half:]) if half > 1 else (cores, cores)


def resident() -> float:
    """MiB of this process in memory."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS:"):
            return int(line.split()[1]) / 1024
    return 0.0


def main() -> None:
    options, before = arguments(__doc__ or ""), machine()
    runs, rows, many = (1, 600, 1000) if options.quick else (5, 400 * AT_ONCE, 100_000)
    few, some = (300, 300) if options.quick else (2000, 20 * AT_ONCE)
    script = Path(__file__).with_name("_answers.py")
    ours, theirs = parted()
    awake = ["awake"] if set(ours).isdisjoint(theirs) and ours else []
    server = subprocess.Popen(
        [sys.executable, str(script), str(SECONDS), *awake], stdout=subprocess.PIPE, text=True
    )
    if ours:
        os.sched_setaffinity(server.pid, theirs)
        os.sched_setaffinity(0, ours)
    folder = tempfile.TemporaryDirectory()
    history = History(folder=Path(folder.name))
    try:
        assert server.stdout is not None
        port = int(server.stdout.readline())
        model = TextToImage.from_preset(
            f"openai+http://127.0.0.1:{port}/v1#m", concurrency=AT_ONCE, history=False
        )
        ways: dict[str, tuple[Callable[[], object], int]] = {
            "bare sockets": (lambda: asyncio.run(bare(port, rows)), rows),
            "astream": (lambda: asyncio.run(astreamed(model, rows)), rows),
            "stream": (lambda: streamed(model, rows), rows),
            KEPT: (lambda: streamed(model, few, history), few),
            "batch to WebDataset": (lambda: batched(model, some, "webdataset"), some),
            "batch to a folder": (lambda: batched(model, few, "folder"), few),
            "openai package": (lambda: asyncio.run(openais(port, few)), few),
        }
        used: dict[str, list[float]] = {name: [] for name in ways}
        calls = {
            name: lambda work=work, count=count, name=name: measured(work, count, used[name])
            for name, (work, count) in ways.items()
        }
        rates = in_turn(calls, runs)
        marks = [resident()]
        asyncio.run(astreamed(model, many))
        marks.append(resident())
    finally:
        server.terminate()
        server.wait()
        history.close()
        folder.cleanup()
    possible = AT_ONCE / SECONDS
    told = {name: spread(values, 0) for name, values in rates.items()}
    bare_rate = told["bare sockets"]["median"]
    results: dict[str, Any] = {
        "at_once": AT_ONCE,
        "answer_seconds": SECONDS,
        "nice": os.nice(0) if hasattr(os, "nice") else 0,
        "possible": possible,
        "cores": {"clients": len(ours), "server": len(theirs), "apart": set(ours).isdisjoint(theirs)},
        "rows_per_second": told,
        "of_possible": {name: round(one["median"] / possible, 3) for name, one in told.items()},
        "of_bare": {name: round(one["median"] / bare_rate, 3) for name, one in told.items()},
        "microseconds_a_row": {name: spread(values[1:], 1) for name, values in used.items()},
        "rows_for_memory": many,
        "mebibytes": {"before": round(marks[0], 1), "after": round(marks[1], 1)},
    }
    write("remote", results, options, before)


if __name__ == "__main__":
    main()
