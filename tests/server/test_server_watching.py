"""Those who wait for a job are told no more than they can read."""

from __future__ import annotations

import asyncio
import contextlib

from PIL import Image

from pictura.history import History
from pictura.history.claims import Claims, Progress
from pictura.history.jobs import Jobs
from pictura.picture import Picture
from pictura.request import Request
from pictura.server.watching import BEHIND, Watching


def test_who_does_not_read_is_told_what_lasts_alone(tmp_path):
    """A line that stands still must not fill the memory with previews."""
    asyncio.run(_slow_and_quick(tmp_path))


async def _slow_and_quick(folder):
    with History(None, folder) as history:
        jobs, claims = Jobs(history), Claims(history)
        job = jobs.submit([Request(prompt="a cat", seed=1, model="scenes")])
        (task,) = claims.claim("worker", limit=1, lease=60)
        watching = Watching(jobs, lambda id: f"/images/{id}.png")
        looking = asyncio.create_task(watching.run())
        quick, slow = watching.watch(job.id), watching.watch(job.id)
        for listener in (quick, slow):
            assert (await anext(listener)).text.startswith("id: ")
        seen = []

        async def read():
            async for told in quick:
                seen.append(told)

        reading = asyncio.create_task(read())
        for step in range(1, 2 * BEHIND):
            claims.progress([Progress(task=task, step=step, steps=2 * BEHIND, preview=b"PNG")], 60)
            async with asyncio.timeout(20):
                while not any(told.kind == "preview" and told.data["step"] == step for told in seen):
                    await asyncio.sleep(0.002)
        (queue,) = (watch.queue for watch in watching._watches[job.id] if not watch.queue.empty())
        assert queue.qsize() <= BEHIND + 2
        image = Image.new("RGB", (8, 8))
        claims.finish(task, Picture(image=image, request=task.request, model_digest="0" * 64, timings={}))
        rest = [told async for told in slow]
        assert [told.kind for told in rest[-2:]] == ["picture", "status"] and rest[-1].last
        await reading
        looking.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await looking
