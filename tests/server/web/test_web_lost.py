"""The server goes away and comes back: nothing that was typed or sent is lost, nothing is drawn twice."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

GONE = "The server does not answer. Nothing is lost"


@pytest.fixture(scope="module")
def fragile(server, tmp_path_factory):
    """A server that these tests kill and start."""
    made = type(server)(tmp_path_factory.mktemp("fragile")).start()
    yield made
    made.stop()


def ask(page, prompt: str, steps: int = 12, count: int = 2) -> None:
    page.get_by_label("Prompt", exact=True).fill(prompt)
    page.get_by_label("Steps", exact=True).fill(str(steps))
    page.get_by_role("spinbutton", name="Pictures").fill(str(count))
    page.get_by_role("button", name="Generate").click()


def ask_nobody(page, prompt: str, steps: int, count: int) -> None:
    """`ask` while the server is not to be reached."""
    expect(page.get_by_label("Steps", exact=True)).to_be_visible()
    page.route("**/api/jobs", lambda route: route.abort("connectionrefused"))
    ask(page, prompt, steps, count)
    expect(page.locator(".state").first).to_have_text("Sending")


def forget(seen) -> None:
    """What the browser itself says of requests that nobody answers is expected here."""
    seen.said[:] = [
        line for line in seen.said if "Failed to load resource" not in line and "ERR_" not in line
    ]


def test_a_job_goes_on_after_kill_9(fragile, look) -> None:
    seen = look(fragile)
    page = seen.go()
    after: list[str] = []
    page.on(
        "request",
        lambda asked: asked.url.endswith("/events") and after.append(asked.headers["last-event-id"]),
    )
    ask(page, "a cat below a cloud", 150)
    expect(page.locator(".cell.drawing").first).to_be_visible()
    fragile.kill()
    expect(page.get_by_role("alert").filter(has_text=GONE)).to_be_visible()
    seen.shot("lost")
    assert page.get_by_label("Prompt", exact=True).input_value() == "a cat below a cloud"
    fragile.start(ready=False)
    expect(page.locator("#banner")).to_be_hidden()
    expect(page.locator(".cell.done")).to_have_count(2, timeout=60_000)
    expect(page.locator(".state").first).to_have_text("Done · 2 of 2")
    found = fragile.get("/api/images", params={"query": "cat below cloud"}).json()["items"]
    assert len(found) == 2  # each once
    assert after[0] == "0" and int(after[-1]) > 0  # events went on from where they were
    forget(seen)


def test_what_is_sent_while_it_is_away_arrives_once(fragile, look) -> None:
    seen = look(fragile)
    page = seen.go()
    expect(page.get_by_label("Steps", exact=True)).to_be_visible()
    fragile.kill()
    ask(page, "two pears", 4, 1)
    expect(page.get_by_role("alert").filter(has_text=GONE)).to_be_visible()
    expect(page.locator(".state").first).to_have_text("Sending")
    page.get_by_role("link", name="Queue").click()
    fragile.start(ready=False)
    page.get_by_role("link", name="Create").click()
    expect(page.locator(".cell.done")).to_have_count(1, timeout=60_000)
    assert len(fragile.get("/api/jobs").json()["items"]) == 2  # with the one above
    forget(seen)


def test_an_answer_that_was_lost_is_asked_for_again(fragile, look) -> None:
    """The server accepts, its answer never comes: sent again with the same key, there is one job."""
    seen = look(fragile)
    page = seen.go()
    expect(page.get_by_label("Steps", exact=True)).to_be_visible()
    keys: list[str] = []

    def once(route) -> None:
        keys.append(route.request.headers["idempotency-key"])
        if len(keys) == 1:
            route.fetch()  # the server has it
            route.abort("connectionreset")
        else:
            route.continue_()

    page.route(
        "**/api/jobs", lambda route: once(route) if route.request.method == "POST" else route.continue_()
    )
    before = len(fragile.get("/api/jobs", params={"limit": 100}).json()["items"])
    ask(page, "a key above a lock", 4, 1)
    expect(page.locator(".cell.done")).to_have_count(1, timeout=60_000)
    assert len(keys) == 2 and keys[0] == keys[1]
    assert len(fragile.get("/api/jobs", params={"limit": 100}).json()["items"]) == before + 1
    forget(seen)


def test_a_closed_page_takes_its_jobs_up_again(fragile, look) -> None:
    seen = look(fragile)
    page = seen.go()
    ask(page, "a fish left of a boat", 80, 3)
    expect(page.locator(".cell.drawing").first).to_be_visible()
    page.reload()
    expect(page.locator(".job-title")).to_have_text("a fish left of a boat")
    expect(page.locator(".cell")).to_have_count(3)
    page.goto("about:blank")
    seen.go()
    expect(page.locator(".cell.done")).to_have_count(3, timeout=60_000)
    forget(seen)


def test_an_answer_that_never_came_outlives_a_reload(fragile, look) -> None:
    seen = look(fragile)
    page = seen.go()
    ask_nobody(page, "a bee on a green background", 4, 1)
    page.unroute_all()
    page.reload()
    expect(page.locator(".cell.done")).to_have_count(1, timeout=60_000)
    forget(seen)


def test_tabs_keep_each_other_s_unsent_jobs(fragile, look) -> None:
    seen = look(fragile)
    page, other = seen.go(), seen.page.context.new_page()
    ask_nobody(page, "a plum", 4, 1)
    other.goto(fragile.url)  # takes it up as well: sent by both with one key, it is one job
    ask(other, "a pear and a plum", 4, 1)
    expect(other.locator(".cell.done")).to_have_count(2, timeout=60_000)
    other.close()
    page.close()
    found = fragile.get("/api/images", params={"query": "plum"}).json()["items"]
    assert sorted(item["request"]["prompt"] for item in found) == ["a pear and a plum", "a plum"]
    forget(seen)


def test_what_was_never_sent_can_be_cancelled(fragile, look) -> None:
    """Whether the server has it is not known: it is sent, and stopped at once."""
    seen = look(fragile)
    page = seen.go()
    ask_nobody(page, "a slow sloth", 900, 3)
    page.get_by_role("button", name="Cancel").click()
    expect(page.locator(".state").first).to_have_text("Cancelling when the server answers")
    page.unroute_all()
    expect(page.locator(".state").first).to_contain_text("Cancelled", timeout=60_000)
    assert fragile.get("/api/jobs").json()["items"][0]["status"] == "cancelled"
    forget(seen)


def test_a_key_where_the_server_needs_one(own_server, look, accessible) -> None:
    locked = own_server(PICTURA_API_KEY="open sesame").start(ready=False)
    seen = look(locked)
    page = seen.go()
    dialog = page.get_by_role("dialog", name="API key")
    expect(dialog.get_by_label("Key", exact=True)).to_be_focused()
    seen.shot("key")
    page.keyboard.type("wrong")
    page.keyboard.press("Enter")
    expect(dialog.get_by_role("alert")).to_have_text("The server does not know this key.")
    accessible(page)
    dialog.get_by_label("Key", exact=True).fill("open sesame")
    dialog.get_by_role("button", name="Use it").click()
    expect(dialog).to_have_count(0)
    expect(page.get_by_label("Steps", exact=True)).to_be_visible()
    ask(page, "a lemon", 4, 1)
    expect(page.locator(".cell.done")).to_have_count(1, timeout=60_000)
    page.reload()  # as long as the tab is open
    expect(page.get_by_label("Steps", exact=True)).to_be_visible()
    page.goto(f"{locked.url}/#/gallery")
    with page.expect_download() as download:
        page.get_by_role("link", name="Download all found").click()
    assert download.value.suggested_filename == "pictures.zip"
    assert page.evaluate("JSON.stringify(localStorage)").find("sesame") < 0
    page.get_by_role("button", name="API key").click()
    page.get_by_role("button", name="Forget the key").click()
    page.wait_for_function("() => sessionStorage.length === 0")
    forget(seen)
