"""The Ray engine on a real cluster of several processes: the same files as the local engine, whoever dies."""

from __future__ import annotations

import os
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from small_batches import files, toy_preset

from pictura import batch
from pictura.batch import on_ray
from pictura.errors import EngineError, ParameterError

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
ray = pytest.importorskip("ray")
SOURCE = Path(batch.__file__).parents[2]
DEADLY = 17  # width of a model that kills the cluster's processes that load it
TOY = Path(__file__).parents[1] / "toy"
PATHS = os.pathsep.join(map(str, [SOURCE, TOY]))
SETTINGS: dict[str, Any] = {"seed": 3, "num_steps": 2, "batch_size": 4}
pytestmark = pytest.mark.filterwarnings(
    "ignore::FutureWarning:ray.*", "ignore::DeprecationWarning:ray.*", "ignore::ResourceWarning"
)


@pytest.fixture(scope="module")
def cluster() -> Iterator[Any]:
    """A head with two CPUs; tests add nodes."""
    from ray.cluster_utils import Cluster

    before, os.environ["PYTHONPATH"] = os.environ.get("PYTHONPATH"), PATHS
    os.environ["TOY_DEADLY_WIDTH"] = str(DEADLY)
    nodes = {"object_store_memory": 80 << 20, "include_dashboard": False}
    times = (("initial_delay", 0), ("period", 300), ("timeout", 900))  # of noticing that a node is lost
    quickly = {f"health_check_{name}_ms": at for name, at in times}
    head = {"num_cpus": 2, "_system_config": quickly, **nodes}
    cluster = Cluster(initialize_head=True, head_node_args=head)
    del os.environ["TOY_DEADLY_WIDTH"]
    ray.init(address=cluster.address, log_to_driver=False)
    yield cluster
    ray.shutdown()
    cluster.shutdown()
    if before is None:
        del os.environ["PYTHONPATH"]
    else:
        os.environ["PYTHONPATH"] = before


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ray")
    toy_preset(folder / "toy")
    colours = "red green blue gray black white".split()
    lines = [f"{colours[i % 6]} {colours[i // 6 % 6]} square" for i in range(72)]
    (folder / "prompts.txt").write_text("\n".join(lines) + "\n")
    batch.run(folder / "prompts.txt", folder / "local", model=str(folder / "toy"), **SETTINGS)
    return folder


def actors_of(cluster: Any) -> list[int]:
    """Process ids of the actors of this cluster, and of no other on this machine."""
    raylets = {
        str(info.process.pid)
        for node in cluster.list_all_nodes()
        for info in node.all_processes.get("raylet", [])
    }
    found = []
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            name = (entry / "cmdline").read_bytes()
            parent = (entry / "stat").read_text().rpartition(")")[2].split()[1]
        except OSError:
            continue
        if parent in raylets and name.startswith(b"ray::MapWorker(MapBatches(Drawer))"):
            found.append(int(entry.name))
    return found


def test_the_same_files_though_an_actor_and_a_node_die(cluster: Any, place: Path) -> None:
    node = cluster.add_node(num_cpus=1, object_store_memory=80 << 20)
    steps = batch.follow(
        place / "prompts.txt", place / "ray", model=str(place / "toy"), engine="ray", actors=3, **SETTINGS
    )
    killed = False
    while True:
        try:
            so_far = next(steps)
        except StopIteration as end:
            report = end.value
            break
        if so_far.made >= 8 and not killed:
            killed = True
            os.kill(actors_of(cluster)[0], signal.SIGKILL)
            cluster.remove_node(node, allow_graceful=False)
    assert killed
    assert (report.kept, report.failed) == (72, 0)
    assert files(place / "ray") == files(place / "local")


POISON = """
import os, signal
def score(pictures):
    if any(picture.request.seed == 9 for picture in pictures):
        os.kill(os.getpid(), signal.SIGKILL)
    return [picture.request.seed for picture in pictures]
"""


@pytest.mark.slow
def test_a_row_that_kills_its_actor_fails_alone(cluster: Any, place: Path) -> None:
    names = {"__name__": "__main__"}
    exec(POISON, names)
    report = batch.run(
        place / "prompts.txt", place / "poisoned", model=str(place / "toy"), engine="ray", actors=2,
        scorers=[names["score"]], **SETTINGS,
    )  # fmt: skip
    assert (report.kept, report.failed) == (71, 1)
    assert "3 actors died over it" in (place / "poisoned" / "failures.jsonl").read_text()


@pytest.mark.slow
def test_waves_and_an_early_end(
    cluster: Any, place: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Several pipelines one after the other give the same files; one that is left frees its actors."""
    monkeypatch.setattr(on_ray, "WAVE", 20)
    given = {"model": str(place / "toy"), "engine": "ray", "actors": 2, **SETTINGS}
    steps = batch.follow(place / "prompts.txt", tmp_path / "out", **given)
    while next(steps).made < 10:
        pass
    steps.close()
    deadline = time.monotonic() + 30
    while actors_of(cluster) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not actors_of(cluster)
    assert batch.run(place / "prompts.txt", tmp_path / "out", **given).kept == 72
    assert files(tmp_path / "out") == files(place / "local")


@pytest.mark.slow
def test_an_actor_whose_model_is_another_ends_the_run(cluster: Any, place: Path, tmp_path: Path) -> None:
    """Its own sentence, at once, instead of Ray's attempts without end."""
    shutil.copytree(place / "toy", tmp_path / "changed")
    weights = tmp_path / "changed" / "model.safetensors"
    steps = batch.follow(["red"] * 8, tmp_path / "out", model=str(weights.parent), engine="ray", **SETTINGS)
    next(steps)  # the driver has loaded it
    data = bytearray(weights.read_bytes())
    data[-1] ^= 1
    weights.write_bytes(data)
    with pytest.raises(EngineError, match="has other weights on an actor's node"):
        for _ in steps:
            pass


@pytest.mark.slow
def test_a_model_that_kills_its_actors_ends_the_run(cluster: Any, place: Path, tmp_path: Path) -> None:
    given = {"model": str(toy_preset(tmp_path / "deadly", DEADLY)), **SETTINGS}
    with pytest.raises(EngineError, match="died 3 times while it loaded model"):
        batch.run(place / "prompts.txt", tmp_path / "out", engine="ray", actors=2, **given)
    report = batch.run(place / "prompts.txt", tmp_path / "out", **given)  # where there is memory for it
    assert (report.kept, report.failed) == (72, 0)


def test_what_cannot_work_is_told(cluster: Any, place: Path, tmp_path: Path) -> None:
    with pytest.raises(ParameterError, match="give its name or folder"):
        batch.run(["red"], tmp_path / "a", model=batch_model(place), engine="ray")
    with pytest.raises(ParameterError, match="address is for engine 'ray'"):
        batch.run(["red"], tmp_path / "b", model=str(place / "toy"), address="x")


def batch_model(place: Path) -> Any:
    from pictura import TextToImage

    return TextToImage.from_preset(place / "toy")


DRIVER = """
import sys
from pictura.cli import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.slow
def test_a_driver_killed_with_9_goes_on(place: Path, tmp_path: Path) -> None:
    """Several times, each on a cluster of its own that the command starts."""
    out = tmp_path / "out"
    command = [sys.executable, "-c", DRIVER, "batch", str(place / "prompts.txt"), "--out", str(out)]
    command += ["--model", str(place / "toy"), "--seed", "3", "--steps", "2", "--batch-size", "4"]
    command += ["--engine", "ray", "--actors", "2"]
    environment = {**os.environ, "PYTHONPATH": PATHS, "OMP_NUM_THREADS": "1"}
    environment.pop("RAY_ADDRESS", None)
    for wanted in (5, 40):
        process = subprocess.Popen(command, env=environment, start_new_session=True)
        while process.poll() is None and len(list(out.glob("*.png"))) < wanted:
            time.sleep(0.005)
        process.kill()
        assert process.wait() == -signal.SIGKILL
    assert subprocess.run(command, env=environment, timeout=200).returncode == 0
    assert files(out) == files(place / "local")


def test_no_cluster_is_an_error(place: Path, tmp_path: Path) -> None:
    if ray.is_initialized():
        ray.shutdown()
    with pytest.raises(EngineError, match="there is no Ray cluster at '127.0.0.1:1'"):
        batch.run(
            place / "prompts.txt",
            tmp_path / "c",
            model=str(place / "toy"),
            engine="ray",
            address="127.0.0.1:1",
        )
