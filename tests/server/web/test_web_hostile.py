"""Prompts are written by strangers: whatever they hold is text, everywhere on the page."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

PROMPTS = [
    "<script>document.title = 'owned'</script> a cat",
    "<img src=x onerror=\"document.title='owned'\"> a dog",
    "</textarea></title><svg onload=document.title='owned'>",
    "javascript:document.title='owned' \"' onmouseover=document.title='owned' x='",
    "a cat \u202egnp.exe\u2066 \u200bhidden",
    "{{constructor.constructor('document.title=1')()}} ${document.title='owned'}",
]


@pytest.fixture(scope="module")
def hostile(server):
    job = server.submit(*({"prompt": prompt, "num_steps": 1, "seed": 5} for prompt in PROMPTS))
    return sorted(server.ended(job["id"])["images"], key=lambda image: image["index"])


def unhurt(page) -> None:
    assert page.title().endswith("Pictura")
    found = page.evaluate(
        "[document.querySelectorAll('main script, dialog script, svg[onload], img[onerror]').length]"
    )
    assert found == [0]


def test_as_words_on_every_view(server, hostile, look) -> None:
    seen = look(server)
    page = seen.go("#/gallery?seed=5")
    tiles = page.locator(".tile img[alt]")
    expect(page.locator(".tile", has=page.locator("a[href]"))).to_have_count(len(PROMPTS))
    alts = {tile.get_attribute("alt") for tile in tiles.all()}
    assert set(PROMPTS) - {PROMPTS[4]} <= alts  # as it was written; only what turns text is spelt out
    assert "a cat ⟨U+202E⟩gnp.exe⟨U+2066⟩ ⟨U+200B⟩hidden" in alts
    unhurt(page)
    for image in hostile:
        page.goto(f"{server.url}/#/picture/{image['id']}")
        prompt = page.locator(".detail-prompt")
        expect(prompt).to_be_visible()
        for name in ("Python", "curl"):
            page.get_by_role("tab", name=name).click()
            code = page.locator("pre.code").inner_text()
            assert not set(code) & set("\u202e\u2066\u200b")
        unhurt(page)
        page.keyboard.press("Escape")
        expect(page).to_have_url(f"{server.url}/#/gallery?seed=5")
    page.goto(f"{server.url}/#/queue")
    expect(page.get_by_text(PROMPTS[0]).first).to_be_visible()
    page.goto(f"{server.url}/#/picture/{hostile[0]['id']}")
    page.get_by_role("dialog").get_by_role("button", name="Use settings").click()
    assert page.get_by_label("Prompt", exact=True).input_value() == PROMPTS[0]
    page.get_by_role("button", name="Generate").click()
    expect(page.locator(".cell.done")).to_have_count(1)
    page.goto(f"{server.url}/#/grid?from={hostile[1]['id']}")
    expect(page.get_by_text(PROMPTS[1])).to_be_visible()
    unhurt(page)


def test_notes_collections_and_addresses(server, hostile, look) -> None:
    seen = look(server)
    id, name = hostile[0]["id"], "<b onclick=alert(1)>x</b>/../%2e"
    page = seen.go(f"#/picture/{id}")
    page.get_by_label("Note").fill("<script>alert(1)</script>")
    page.get_by_label("Note").blur()
    expect(page.get_by_text("Saved.")).to_be_visible()
    page.get_by_role("button", name="Collect").click()
    page.get_by_label("Name", exact=True).fill("<b onclick=alert(1)>x")
    page.get_by_role("button", name="Put in").click()
    expect(page.get_by_role("button", name="Take it out of <b onclick=alert(1)>x")).to_be_visible()
    page.goto(f"{server.url}/#/gallery?query=%3Cscript%3Ealert(1)%3C/script%3E&model={name}")
    expect(page.get_by_role("heading", name="Nothing found")).to_be_visible()
    page.goto(f"{server.url}/#/%3Cimg%20src=x%20onerror=alert(1)%3E")
    expect(page.get_by_label("Prompt", exact=True)).to_be_visible()
    unhurt(page)


def test_the_browser_refuses_what_would_slip_in(server, look) -> None:
    seen = look(server)
    page = seen.go()
    refused = page.evaluate(
        """() => { const box = document.createElement('div');
        try { box.innerHTML = '<b>x</b>'; return null; } catch (error) { return error.name; } }"""
    )
    assert refused == "TypeError"  # trusted types: not even our own code could
    page.evaluate(
        "() => { const s = document.createElement('script'); s.textContent; document.body.append(s); }"
    )
    outside = page.evaluate("() => fetch('http://127.0.0.1:9/').then(() => 'sent', (error) => error.name)")
    assert outside == "TypeError"
    assert seen.said and all(
        "Content Security Policy" in line or "TrustedHTML" in line for line in seen.said
    ), seen.said
    seen.said.clear()
