"""Opens each place named on the command line in a child of its own, and prints what became of it as JSON.

Seconds are of the child's own work, since the machine may be busy with other things. None may take more than
50 MB more than it starts with. Run by test_hostile.py; imports no torch, unless the first argument is "load",
which also builds what was opened.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import time
from pathlib import Path

from pictura import checkpoints
from pictura.errors import PicturaError

LIMIT = 50 * 2**20


def size(name: str) -> int:
    """Bytes of memory as the system counts them."""
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(f"{name}:"):
            return int(line.split()[1]) * 1024
    raise KeyError(name)


def opened(place: str, load: bool) -> dict[str, object]:
    before, started = size("VmHWM"), time.process_time()
    if not load:  # threads of torch map much more than they touch
        whole = size("VmSize") + LIMIT
        resource.setrlimit(resource.RLIMIT_AS, (whole, whole))
    try:
        if load:
            from pictura import loading

            loading.load(place)
        else:
            found = checkpoints.find(place)
            checkpoints.complete(found.recipe, found.layout)
        said = ["nothing", ""]
    except PicturaError as error:
        said = [type(error).__name__, str(error)]
    except BaseException as error:
        said = [type(error).__name__, f"not ours: {error}"]
    return {"kind": said[0], "said": said[1], "seconds": time.process_time() - started,
            "memory": size("VmHWM") - before}  # fmt: skip


def main(how: str, *places: str) -> None:
    load = how == "load"
    if load:
        from pictura import loading

        loading.load(places[0])  # what is imported for a sound one is not counted
    for module in checkpoints._modules():
        assert module.FAMILY
    for place in places:
        read, write = os.pipe()
        child = os.fork()
        if child == 0:
            os.write(write, json.dumps(opened(place, load)).encode())
            os._exit(0)
        os.close(write)
        os.waitpid(child, 0)
        with os.fdopen(read, "rb") as answer:
            print(answer.read().decode() or json.dumps({"kind": "killed", "said": ""}))


if __name__ == "__main__":
    main(*sys.argv[1:])
