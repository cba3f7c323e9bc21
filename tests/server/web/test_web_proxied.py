"""The page as a team sees it: by TLS, under a name, through the proxies of docs/server.md, with a key."""

from __future__ import annotations

import shutil

import pytest
from playwright.sync_api import expect, sync_playwright
from proxies import NAME, Proxy, missing

from pictura.server.keys import added

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module")
def browser():
    """One that knows where the name leads."""
    program = shutil.which("chromium") or pytest.fail("there is no Chromium; apt-get install chromium")
    expect.set_options(timeout=30_000)
    with sync_playwright() as playwright:
        arguments = ["--no-sandbox", "--disable-dev-shm-usage"]
        arguments += [f"--host-resolver-rules=MAP {NAME} 127.0.0.1"]
        made = playwright.chromium.launch(executable_path=program, args=arguments)
        yield made
        made.close()


@pytest.fixture(scope="module")
def keyed(server, tmp_path_factory):
    """A server with a key, and the key."""
    file = tmp_path_factory.mktemp("keys") / "keys"
    key = added(file, "anna", ["read", "generate", "rate"])
    made = type(server)(tmp_path_factory.mktemp("keyed"), "--api-key-file", str(file)).start()
    yield made, key
    made.stop()


@pytest.mark.parametrize("name", ["nginx", "caddy"])
def test_a_key_is_asked_for_and_pictures_form(name, keyed, look, tmp_path) -> None:
    if absent := missing(name):
        pytest.skip(f"{' and '.join(absent)} is not installed")
    server, key = keyed
    proxy = Proxy(name, tmp_path / name, server).start()
    try:
        seen = look(proxy, ignore_https_errors=True)
        page = seen.go()
        asked = page.get_by_role("dialog", name="API key")
        for given in ("wrong", key):
            asked.get_by_label("Key", exact=True).fill(given)
            asked.get_by_role("button", name="Use it").click()
            if given == "wrong":
                expect(asked.get_by_role("alert")).to_be_visible()
        expect(asked).to_be_hidden()
        page.get_by_label("Prompt", exact=True).fill(f"a cat behind {name}")
        page.get_by_label("Steps", exact=True).fill("60")
        page.get_by_role("spinbutton", name="Pictures").fill("2")
        page.get_by_role("button", name="Generate").click()
        expect(page.locator(".cell.drawing").first).to_be_visible()
        expect(page.locator(".cell-note").first).to_contain_text(" / 60")
        expect(page.locator(".cell.done img")).to_have_count(2, timeout=60_000)
        shown = page.locator(".cell.done img").first
        assert shown.evaluate("image => image.decode().then(() => image.naturalWidth)") > 0
        seen.shot(f"proxied-{name}")
        seen.said[:] = [line for line in seen.said if "status of 401" not in line]  # until it had the key
    finally:
        proxy.stop()
