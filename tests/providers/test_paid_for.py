"""No lost picture, no doubled bill: what a service has begun is waited for, and what came is kept."""

from __future__ import annotations

import asyncio
import base64
import copy
import html
import json
import pickle
import threading
import time
from urllib.parse import quote

import pytest
from PIL import Image
from standins import STANDINS

from loopback import SECRET, Answer, Loopback, b64, png
from pictura import Failure, ParameterError, Picture, PresetError, ProviderError, TextToImage, providers
from pictura.request import Request

KEY = "wJalr/XUtn+FEMI=K7MDENG@bPxR"  # encodings spell it differently


def billed(server):
    return [asked for asked in server.asked if asked.method == "POST"]


@pytest.mark.parametrize("trouble", ["cut", 500, 429, "page"])
@pytest.mark.parametrize("name", ["replicate", "fal", "bfl", "pictura"])
def test_a_job_that_was_accepted_is_asked_for_until_it_is_done(name, trouble):
    """However few tries there are, and nothing is submitted twice."""
    standin, looks = STANDINS[name], 0

    def answer(asked):
        nonlocal looks
        looks += asked.method == "GET"
        if asked.method == "GET" and looks < 4:
            kinds = {"cut": Answer(body=b"x" * 100, cut=True), "page": Answer(body=b"<html>busy</html>")}
            return kinds[trouble] if trouble in kinds else Answer(trouble, b"", {"retry-after": "0.01"})
        return standin.answer(asked, server)

    with Loopback(answer) as server:
        assert isinstance(standin.open(name, server, max_retries=0).generate("a cat", seed=3), Picture)
    assert len(billed(server)) == 1 and not [a for a in server.asked if a.method in ("PUT", "DELETE")]


def test_a_service_that_is_busy_with_a_job_is_waited_for_as_long_as_it_asks():
    flow = (
        STANDINS["bfl"]
        .open("bfl", Nowhere, timeout=(1, 1, 500), max_retries=0)
        .provider.follow(providers.Call("GET", "http://127.0.0.1:9/"), lambda body: body["status"] == "Ready")
    )
    next(flow)
    wait = flow.send(providers.Reply(429, {"retry-after": "120"}))
    assert isinstance(wait, providers.Wait) and 120 <= wait.seconds <= 121


class Nowhere:
    url = "http://127.0.0.1:9"


def test_a_job_that_is_refused_is_given_up():
    def answer(asked):
        return (
            STANDINS["bfl"].answer(asked, server) if asked.method == "POST" else Answer(403, {"detail": "no"})
        )

    with Loopback(answer) as server, pytest.raises(ProviderError, match="refused with 403: no"):
        STANDINS["bfl"].open("bfl", server).generate("a cat", seed=3)
    assert len(server.asked) == 2


def test_a_picture_is_fetched_again():
    def answer(asked):
        if asked.method == "POST":
            return {"data": [{"url": "/a.png"}]}
        return Answer(503, b"", {"retry-after": "0.01"}) if len(server.asked) < 4 else png()

    with Loopback(answer) as server:
        assert isinstance(STANDINS["openai"].open("openai", server, max_retries=0).generate("a cat"), Picture)
    assert len(billed(server)) == 1


@pytest.mark.parametrize(("name", "asks"), [("together", 1), ("stability", 1), ("openai", 3)])
def test_what_may_still_be_at_work_is_not_begun_twice(name, asks):
    """An answer that is late is asked for again only with an idempotency key."""
    held = threading.Event()
    with Loopback(lambda asked: held.wait(5) and {}) as server:
        model = STANDINS[name].open(name, server, timeout=(1, 0.2, 9), max_retries=2)
        with pytest.raises(ProviderError, match="ReadTimeout"):
            model.generate("a cat")
        held.set()
    assert len(server.asked) == asks
    assert len({asked.headers.get("idempotency-key") for asked in server.asked}) == 1


def test_an_answer_that_nobody_can_read_is_not_bought_again():
    odd = [Answer(body=b"x" * 100, headers={"content-encoding": coding}) for coding in ("br", "gzip")]
    for answer in odd:
        with Loopback(lambda asked, answer=answer: answer) as server:
            with pytest.raises(ProviderError, match="not known|damaged compressed"):
                STANDINS["together"].open("together", server, max_retries=3).generate("a cat")
        assert len(server.asked) == 1


def test_the_deadline_says_what_went_wrong_lately():
    def answer(asked):
        return (
            Answer(body=b"x" * 9, cut=True)
            if asked.method == "GET"
            else STANDINS["bfl"].answer(asked, server)
        )

    with Loopback(answer) as server:
        with pytest.raises(ProviderError, match=r"0.8 s in all \(lately: .*a part of its answer\); raise"):
            STANDINS["bfl"].open("bfl", server, timeout=(1, 1, 0.8)).generate("a cat", seed=1)


@pytest.mark.parametrize("how", ["generate", "agenerate"])
def test_the_error_of_one_holds_the_pictures_of_the_others(how):
    def answer(asked):
        return (
            Answer(400, {"error": "no"})
            if b"bad" in asked.content
            else STANDINS["openai"].answer(asked, server)
        )

    prompts = ["a cat", "bad", "a dog"]
    with Loopback(answer) as server:
        model = STANDINS["openai"].open("openai", server)
        with pytest.raises(ProviderError, match="400: no") as caught:
            model.generate(prompts) if how == "generate" else asyncio.run(model.agenerate(prompts))
    assert [picture.request.prompt for picture in caught.value.pictures] == ["a cat", "a dog"]


@pytest.mark.parametrize("how", ["stream", "astream"])
def test_pictures_that_came_and_were_not_taken_are_kept(how, monkeypatch, tmp_path, caplog):
    """The caller stops at the first while the others are already here."""
    monkeypatch.setenv("PICTURA_CACHE", str(tmp_path))
    prompts = [f"cat {n}" for n in range(4)]

    async def stop_early(model):
        events = model.astream(prompts, batch_size=4)
        first = await anext(events)
        await asyncio.sleep(0.4)
        await events.aclose()
        return first

    with STANDINS["openai"].serve() as server:
        model = STANDINS["openai"].open("openai", server, concurrency=4)
        if how == "astream":
            first = asyncio.run(stop_early(model))
        else:
            events = model.stream(prompts)
            first = next(events)
            time.sleep(0.4)
            events.close()
    kept = sorted((tmp_path / "surplus").iterdir())
    assert all(str(path) in caplog.text for path in kept)
    found = {Picture.open(path).request.prompt for path in kept}
    assert found == set(prompts) - {first.request.prompt} and len(server.asked) == 4


@pytest.mark.parametrize("how", ["stream", "astream"])
def test_what_is_begun_is_finished_when_the_list_of_prompts_breaks(how):
    def prompts():
        yield from ("a cat", "a dog")
        raise KeyError("no third")

    async def asynchronously(model, told):
        async for event in model.astream(prompts()):
            told.append(event)

    told = []
    with STANDINS["openai"].serve() as server:
        model = STANDINS["openai"].open("openai", server)
        with pytest.raises(KeyError, match="no third"):
            if how == "astream":
                asyncio.run(asynchronously(model, told))
            else:
                for event in model.stream(prompts()):
                    told.append(event)
    assert [type(event) for event in told] == [Picture, Picture]


@pytest.mark.parametrize("name", sorted(set(STANDINS) - {"pictura"}))
def test_what_a_service_says_in_place_of_a_picture_is_told(name):
    with Loopback(lambda asked: {"error": {"message": "not this word"}}) as server:
        with pytest.raises(ProviderError, match="not this word"):
            STANDINS[name].open(name, server).generate("a cat")


@pytest.mark.parametrize(
    "name", sorted(set(STANDINS) - {"openai", "huggingface", "automatic1111", "pictura"})
)
def test_a_service_without_a_model_is_refused(name):
    with pytest.raises(ParameterError, match=f"there is no model .*; give {name}://MODEL"):
        TextToImage.from_preset(f"{name}://", api_key=STANDINS[name].key, base_url="http://127.0.0.1:9")


def test_azure_says_where_its_address_comes_from(monkeypatch):
    monkeypatch.delenv("AZURE_OPENAI_ENDPOINT", raising=False)
    with pytest.raises(ParameterError, match="give base_url or set AZURE_OPENAI_ENDPOINT"):
        TextToImage.from_preset("azure://mine", api_key=KEY)


@pytest.mark.parametrize(("model", "mask", "names"), [
    ("replicate://o/n", True, {"image", "mask"}), ("bfl://flux-pro-1.0-fill", True, {"image", "mask"}),
    ("bfl://flux-pro-1.1", False, {"image_prompt"}), ("bfl://flux-kontext-pro", False, {"input_image"}),
])  # fmt: skip
def test_pictures_to_start_from_have_the_names_of_the_model(model, mask, names, tmp_path):
    path = tmp_path / "in.png"
    path.write_bytes(png())
    standin = STANDINS[model.partition(":")[0]]
    with standin.serve() as server:
        remote = TextToImage.from_preset(model, base_url=server.url, api_key=KEY)
        remote.generate("a cat", seed=1, image=str(path), **({"mask": str(path)} if mask else {}))
    sent = billed(server)[0].json
    sent = sent.get("input", sent)
    assert {name for name in sent if "mask" in name or "image" in name} == names
    assert all("iVBOR" in sent[name] for name in names)


# Keys


def test_the_hub_is_asked_for_private_models_with_the_key_and_a_mirror_without():
    provider = providers.load("huggingface")("org/m", api_key=KEY, provider="fal-ai")
    for url, told in (("https://huggingface.co/api", True), ("https://huggingface.co.example/api", False)):
        assert ("authorization" in provider.call("GET", url).headers) is told


def test_no_pickle_holds_a_key():
    with STANDINS["openai"].serve() as server:
        model = STANDINS["openai"].open("openai", server)
        with pytest.raises(PresetError, match="no pickle does; call from_preset"):
            pickle.dumps(model)
        with pytest.raises(ParameterError, match="not written into a pickle"):
            pickle.dumps(model.provider)
        for other in (copy.copy(model), copy.deepcopy(model)):
            assert isinstance(other.generate("a cat"), Picture)


@pytest.mark.parametrize("form", [
    KEY, KEY.lower(), quote(KEY), quote(KEY, safe=""), quote(KEY, safe="").replace("%2F", "%2f"),
    KEY.replace("/", "\\/"), "".join(f"\\u{ord(letter):04x}" for letter in KEY), html.escape(KEY),
    KEY.replace("/", "&#x2F;").replace("+", "&#43;"), KEY.encode().hex(),
    *(base64.b64encode(f"{start}{KEY}{end}".encode()).decode()
      for start in ("", "x:", "Bearer ") for end in ("", "&")),
    base64.urlsafe_b64encode(KEY.encode()).decode(),
])  # fmt: skip
def test_an_echoed_key_is_taken_out_however_it_is_spelled(form):
    with Loopback(lambda asked: Answer(401, {"error": {"message": f"who is {form}, pray?"}})) as server:
        model = TextToImage.from_preset(f"openai+{server.url}/v1#m", api_key=KEY, max_retries=0)
        with pytest.raises(ProviderError) as caught:
            model.generate("a cat")
    told = str(caught.value)
    assert "***" in told and "who is" in told and "pray?" in told
    assert form[4:-4] not in told and KEY[4:-4] not in told


def test_what_a_server_filled_in_is_not_recorded_where_it_holds_the_key():
    """A sampler of AUTOMATIC1111's infotext; options and digest in the file of a Pictura server."""
    text = f"x\nSteps: 20, Sampler: {SECRET}, CFG scale: 7, Seed: 5, Size: 16x8"
    answer = {"images": [b64()], "info": json.dumps({"infotexts": [text]})}
    with Loopback(lambda asked: answer) as server:
        made = [STANDINS["automatic1111"].open("automatic1111", server).generate("a cat")]

    def echo(asked):
        if not asked.path.startswith("/files/"):
            return STANDINS["pictura"].answer(asked, server)
        request = Request(prompt="a cat", seed=3, num_steps=9, options={"style": [SECRET]})
        echoed = {"model_digest": SECRET, "notes": (SECRET,)}
        return Picture(image=Image.new("RGB", (16, 8)), request=request, **echoed).to_bytes()

    with Loopback(echo) as server:
        made.append(STANDINS["pictura"].open("pictura", server).generate("a cat", seed=3))
    for picture in made:
        kept = picture.to_bytes()
        assert SECRET.encode() not in kept and SECRET.replace("-", "_").encode() not in kept
    assert made[0].request.num_steps == 20 and made[1].request.num_steps == 9


@pytest.mark.parametrize("where", ["?key=", "/v1?sig="])
def test_an_address_with_a_query_is_refused_since_pictures_record_it(where):
    with pytest.raises(ParameterError, match="without a query") as caught:
        TextToImage.from_preset(f"https://host.example{where}{SECRET}#m", api="openai", api_key="sk-1234567")
    assert SECRET not in str(caught.value)


@pytest.mark.parametrize(("max_retries", "posts"), [(0, 2), (1, 3)])
def test_a_kept_connection_that_ends_is_no_excuse_to_ask_twice(max_retries, posts):
    """A server takes a connection's second call and hangs up: `max_retries` says whether to ask again."""
    calls = 0

    def answer(asked):
        nonlocal calls
        calls += 1
        return Answer(drop=True) if calls == 2 else {"data": [{"b64_json": b64()}]}

    with Loopback(answer) as server:
        model = STANDINS["together"].open("together", server, max_retries=max_retries, concurrency=1)
        told = list(model.stream(["a cat", "a dog"]))
    assert isinstance(told[1], Picture if max_retries else Failure) and len(server.asked) == posts


@pytest.mark.parametrize("name", providers.names())
def test_no_frame_of_a_traceback_holds_a_key(name):
    """Tools that show the local variables of a traceback show no key."""
    standin = STANDINS[name]
    key = standin.key.rpartition(":")[2]
    for answer in (
        Answer(500, {"error": "no"}),
        Answer(body=b"x" * 100, cut=True),
        Answer(body=b"no picture"),
    ):
        with Loopback(lambda asked, answer=answer: answer) as server:
            with pytest.raises(ProviderError) as caught:
                standin.open(name, server).generate("a cat")
        for frame in frames(caught.value):
            assert key not in repr(frame.f_locals), frame
    with pytest.raises(ProviderError) as caught:  # nobody is there
        standin.open(name, server).generate("a cat")
    assert not [frame for frame in frames(caught.value) if key in repr(frame.f_locals)]


def frames(error):
    """Those of the package, of an error and of what led to it."""
    while error is not None:
        trace = error.__traceback__
        while trace is not None:
            if "pictura" in trace.tb_frame.f_globals["__name__"]:
                yield trace.tb_frame
            trace = trace.tb_next
        error = error.__cause__ or error.__context__


def test_failures_are_told_beside_the_pictures_of_a_job():
    with Loopback(lambda asked: {"data": [{"b64_json": b64()}, {"b64_json": "!!!"}]}) as server:
        told = list(STANDINS["openai"].open("openai", server).stream("a cat", num_images=3))
    made, damaged, missing = sorted(told, key=lambda event: event.index)
    assert isinstance(made, Picture) and isinstance(damaged, Failure) and isinstance(missing, Failure)
    assert "damaged base64" in str(damaged.error) and "sent 2 pictures of 3" in str(missing.error)


def test_a_result_of_fal_that_no_second_look_changes_is_not_asked_for_again():
    def answer(asked):
        if asked.method != "GET" or asked.path.endswith("/status"):
            return STANDINS["fal"].answer(asked, server)
        return Answer(500, {"detail": [{"msg": "no such words"}]}, {"x-fal-retryable": "false"})

    with Loopback(answer) as server, pytest.raises(ProviderError, match="refused with 500: no such words"):
        STANDINS["fal"].open("fal", server).generate("a cat", seed=1)
    assert sum(asked.path.endswith("/requests/1") for asked in server.asked) == 1
