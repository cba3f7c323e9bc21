"""DashAI itself: our plugin in its registry and its database's rows, and its server driven over HTTP.

DashAI pins so much that it lives in an environment of its own, which `make slow` builds beside the suite's
(or PICTURA_DASHAI names its Python).
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import httpx2
import numpy as np
import pytest

from pictura import TextToImage
from pictura.history import History
from pictura.integrations.dashai import processes
from pictura.picture import Picture
from pictures import pixels

PYTHON = Path(os.environ.get("PICTURA_DASHAI") or Path(sys.prefix, "dashai", "bin", "python"))
pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(not PYTHON.exists(), reason="DashAI is not installed; make slow does it"),
]
TASK = "TextToImageGenerationTask"
FINISHED, ERROR = 3, 4  # DashAI's words for the state of a process


class Server:
    """DashAI, running; its port cannot be chosen, but its address can."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder / "dashai", folder / "pictura"
        host = f"127.{os.getpid() >> 16 & 255}.{os.getpid() >> 8 & 255}.{os.getpid() & 255 or 1}"
        self.log = folder / "log"
        environment = {
            **os.environ, "DASHAI_HOST": host, "PICTURA_HOME": str(self.home), "HF_HUB_OFFLINE": "1",
            "HOME": str(folder), "MPLCONFIGDIR": str(folder),
        }  # fmt: skip
        for name in ("PYTHONPATH", "PICTURA_HISTORY"):
            environment.pop(name, None)
        command = [PYTHON, "-m", "DashAI", "--local-path", self.folder, "--no-browser"]
        with self.log.open("wb") as log:
            self.running = subprocess.Popen(
                command, env=environment, stdout=log, stderr=log, cwd=folder, start_new_session=True
            )
        self.http = httpx2.Client(base_url=f"http://{host}:8000/api/v1", timeout=60, trust_env=False)

    def ready(self) -> None:
        end = time.monotonic() + 300
        while time.monotonic() < end and self.running.poll() is None:
            try:
                self.http.get("/component/")
                return
            except httpx2.TransportError:
                time.sleep(0.5)
        raise AssertionError(self.log.read_text()[-3000:])

    def stop(self) -> None:
        self.http.close()
        os.killpg(self.running.pid, signal.SIGTERM)
        try:
            self.running.wait(30)
        except subprocess.TimeoutExpired:
            os.killpg(self.running.pid, signal.SIGKILL)
            self.running.wait()

    def session(self, model: str, /, **parameters: object) -> int:
        shown = {name: field["placeholder"] for name, field in self.form(model).items()}
        said = {"model_name": model, "task_name": TASK, "name": f"{model} {time.time_ns()}"}
        answer = self.http.post("/generative-session/", json={**said, "parameters": {**shown, **parameters}})
        assert answer.status_code == 201, answer.text
        return answer.json()["id"]

    def form(self, model: str) -> dict:
        return self.http.get(f"/component/{model}/").json()["schema"]["properties"]

    def begin(self, session: int, prompt: str) -> tuple[dict, str]:
        """A process and the id of its job."""
        made = self.http.post("/generative-process/", data={"session_id": session, "text_0": prompt}).json()
        job = {"job_type": "GenerativeJob", "kwargs": json.dumps({"generative_process_id": made["id"]})}
        return made, self.http.post("/job/", data=job).json()["id"]

    def process(self, session: int, prompt: str) -> dict:
        """A process that has ended."""
        made, _ = self.begin(session, prompt)
        end = time.monotonic() + 300
        while time.monotonic() < end:
            found = self.http.get(f"/generative-process/{made['id']}").json()
            if found["status"] in (FINISHED, ERROR) and found["output"]:
                return found
            time.sleep(0.1)
        raise AssertionError(self.log.read_text()[-3000:])

    def files(self, process: dict) -> list[bytes]:
        assert process["status"] == FINISHED, process["output"]
        names = [row["data"] for row in process["output"]]
        answers = [self.http.get(f"/generative-process/file/{name}") for name in names]
        assert {answer.headers["content-type"] for answer in answers} == {"image/png"}
        return [answer.content for answer in answers]


@pytest.fixture(scope="module")
def server(tmp_path_factory):
    running = Server(tmp_path_factory.mktemp("server"))
    try:
        running.ready()
        yield running
    finally:
        running.stop()


@pytest.fixture(scope="module")
def scenes():
    return TextToImage.from_preset("scenes", history=False)


def test_our_models_are_offered(server):
    asked = {"select_types": "GenerativeModel", "related_component": TASK}
    found = {model["name"]: model for model in server.http.get("/component/", params=asked).json()}
    offered = {name: found[name]["display_name"] for name in found if name.startswith("Pictura")}
    assert offered == {
        "PicturaScenes": "Pictura: scenes",
        "PicturaGanCls": "Pictura: gan-cls",
        "PicturaModel": "Pictura: any model",
    }
    assert all(found[name]["downloaded"] for name in offered)
    form = found["PicturaScenes"]["schema"]["properties"]
    assert (form["num_inference_steps"]["placeholder"], form["num_inference_steps"]["minimum"]) == (12, 1)
    assert "euler" in form["sampler"]["enum"] and form["width"]["maximum"] == 128
    assert form["num_images_per_prompt"]["title"] == "Pictures"
    assert "0 too" in form["seed"]["description"]


def test_pictures_from_a_session(server, scenes):
    """The whole way: session, process, job, files; what is kept, and where."""
    session = server.session("PicturaScenes", seed=0, num_images_per_prompt=2, num_inference_steps=3)
    process = server.process(session, "a cat left of a pizza")
    assert [(row["data"], row["data_type"]) for row in process["input"]] == [("a cat left of a pizza", "str")]
    expected = scenes.generate("a cat left of a pizza", num_steps=3, seed=0, num_images=2)
    files = server.files(process)
    assert len(files) == 2
    for file, picture in zip(files, expected, strict=True):
        np.testing.assert_array_equal(pixels(file), np.asarray(picture))

    # DashAI keeps the parameters of the session; each of its files, and our history, those of the picture.
    with sqlite3.connect(server.folder / "db.sqlite") as database:
        (kept,) = database.execute("SELECT parameters FROM generative_session WHERE id = ?", [session])
    assert json.loads(kept[0])["seed"] == 0
    with History(folder=server.home) as history:
        ours = processes(history, limit=1)[0]
        entries = [history.get(Path(row.data).stem) for row in ours.output]
    assert [request.seed for request in ours.requests] == [entry.request.seed for entry in entries] == [0, 1]
    for row, file, entry in zip(process["output"], files, entries, strict=True):
        path = server.folder / "images" / row["data"]
        assert path.read_bytes() == file == entry.path.read_bytes()
        picture = Picture.open(path)
        assert (picture.request.num_steps, picture.request.model) == (3, "scenes")
        np.testing.assert_array_equal(np.asarray(scenes.generate(picture.request)), pixels(file))


def test_a_random_seed_is_found_in_the_picture(server, scenes):
    session = server.session("PicturaScenes", seed=-1, num_inference_steps=1)
    one, two = (server.files(server.process(session, "a star"))[0] for _ in range(2))
    assert not np.array_equal(pixels(one), pixels(two))
    (server.home / "one.png").write_bytes(one)
    request = Picture.open(server.home / "one.png").request
    np.testing.assert_array_equal(np.asarray(scenes.generate(request)), pixels(one))


def test_parameters_are_changed_between_processes(server, scenes):
    session = server.session("PicturaScenes", seed=5, num_inference_steps=1)
    first = server.files(server.process(session, "an owl"))[0]
    said = {"seed": 6, "num_inference_steps": 2, "sampler": "heun"}  # and all else as the model has it
    assert server.http.put(f"/generative-session/{session}/parameters", json=said).status_code == 200
    second = server.files(server.process(session, "an owl"))[0]
    for file, more in (
        (first, {"seed": 5, "num_steps": 1}),
        (second, {"seed": 6, "num_steps": 2, "sampler": "heun"}),
    ):
        np.testing.assert_array_equal(pixels(file), np.asarray(scenes.generate("an owl", **more)))
    history = server.http.get(f"/generative-session/{session}/parameters-history").json()
    assert [entry["parameters"]["seed"] for entry in history] in ([5, 6], [6, 5])


def test_why_there_is_no_picture(server):
    session = server.session("PicturaScenes", negative_prompt="a dog")
    process = server.process(session, "a cat")
    assert process["status"] == ERROR
    assert process["output"][0]["data"] == (
        "Error details: negative_prompt does nothing at guidance_scale 1, the default of scenes; "
        "give a guidance_scale above 1, such as 2, with it"
    )
    refused = {"model_name": "PicturaScenes", "task_name": TASK, "name": "bad", "parameters": {"width": 64}}
    answer = server.http.post("/generative-session/", json=refused)
    assert answer.status_code == 400 and "128" in answer.json()["detail"]


def test_a_cancelled_process_is_made_by_nobody(server):
    session = server.session("PicturaScenes", num_inference_steps=1000, num_images_per_prompt=100)
    process, job = server.begin(session, "a dog")
    with History(folder=server.home) as history:
        while processes(history, limit=1)[0].input[0].data != "a dog":
            time.sleep(0.1)
        assert server.http.delete(f"/job/{job}").status_code == 204
        while server.http.get(f"/generative-process/{process['id']}").json()["status"] != ERROR:
            time.sleep(0.1)
        server.files(server.process(server.session("PicturaGanCls"), "a star"))
        assert [process.status for process in processes(history, limit=2)] == ["finished", "error"]


def test_any_model_by_its_name(server, tmp_path, scenes):
    scenes.save_to_preset(tmp_path / "mine")
    for model, steps in (("gan-cls", None), (str(tmp_path / "mine"), 2)):
        session = server.session("PicturaModel", model=model, seed=3, num_inference_steps=steps)
        expected = TextToImage.from_preset(model, history=False).generate("a rocket", num_steps=steps, seed=3)
        (file,) = server.files(server.process(session, "a rocket"))
        np.testing.assert_array_equal(pixels(file), np.asarray(expected))
    session = server.session("PicturaModel", model="no-such-model")
    assert "no-such-model" in server.process(session, "a cat")["output"][0]["data"]


def test_somebody_picks_it_in_the_browser(server):
    """ "Pictura: any model" leaves most of its form empty, which the page sends as empty texts."""
    playwright = pytest.importorskip("playwright.sync_api")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("chromium is not installed")
    with playwright.sync_playwright() as driver:
        browser = driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = browser.new_page(viewport={"width": 1400, "height": 1000})
        page.set_default_timeout(60_000)
        tour = page.get_by_text("Skip Tour").first
        page.add_locator_handler(tour, lambda: tour.click())
        page.goto(f"{server.http.base_url.copy_with(path='/app/generative')}")
        page.get_by_text("Create a new session").first.click()
        page.get_by_text("Pictura: any model").first.click()
        page.get_by_role("button", name="Next").click()
        assert page.locator('input[name="model"]').input_value() == "scenes"
        page.get_by_role("button", name="Create a session").click()
        page.get_by_placeholder("Type a message").fill("three stars")
        page.keyboard.press("Enter")
        drawn = page.locator("img[src*='generative-process/file']").first
        drawn.wait_for()
        page.wait_for_function("[...document.images].some(image => image.naturalWidth == 128)")
        browser.close()


INSIDE = """
import json, pathlib, sys
from PIL import Image
from DashAI.back.dependencies.database.models import ProcessData
from DashAI.back.dependencies.registry import ComponentRegistry
from DashAI.back.models.base_generative_model import BaseGenerativeModel
from DashAI.back.tasks.text_to_image_generation_task import TextToImageGenerationTask as Theirs
from pictura.integrations.dashai import PicturaScenes, TextToImageGenerationTask as Ours

folder = pathlib.Path(sys.argv[1])
answers = []
for task in (Theirs(), Ours()):
    rows = task.prepare_input_for_database(["a cat"], images_path=folder)
    stored = [ProcessData(data=data, data_type=kind, is_input=True) for data, kind in rows]
    seen = [(row.data, row.data_type) for row in task.process_input_from_database(stored)]
    made = task.process_output([Image.new("RGB", (4, 3), "red")] * 2, images_path=folder / "images")
    out = [ProcessData(data=f"/x/{name}", data_type=kind, is_input=False) for name, kind in made]
    back = task.process_output_from_database(out)
    sizes = [Image.open(folder / "images" / row.data).size for row in back]
    kinds = [row.data_type for row in back]
    answers.append([rows, seen, task.prepare_for_task(stored), kinds, sizes, type(task).get_metadata()])
assert issubclass(Ours, Theirs) and issubclass(PicturaScenes, BaseGenerativeModel)
registry = ComponentRegistry([Theirs, PicturaScenes, Ours])
assert registry["TextToImageGenerationTask"]["class"] is Ours
assert registry["PicturaScenes"]["type"] == "GenerativeModel"
print(json.dumps(answers))
"""


def test_the_task_answers_as_dashais_own(tmp_path):
    environment = {**os.environ, "HOME": str(tmp_path), "PICTURA_HOME": str(tmp_path / "pictura")}
    environment.pop("PYTHONPATH", None)
    done = subprocess.run(
        [PYTHON, "-c", INSIDE, tmp_path], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr[-3000:]
    theirs, ours = json.loads(done.stdout.splitlines()[-1])
    assert ours == theirs
    assert len(list((tmp_path / "images").iterdir())) == 4
