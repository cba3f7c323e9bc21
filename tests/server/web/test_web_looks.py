"""How the page looks and is used: axe finds nothing, light or dark; phone to wide screen; by keyboard."""

from __future__ import annotations

import pytest
from playwright.sync_api import expect

WIDTHS = {"tablet": 820, "laptop": 1440, "wall": 2560}


@pytest.fixture(scope="module")
def views(drawn):
    """name -> (address, what is there when it has loaded)."""
    pair = f"{drawn[0]['id']},{drawn[1]['id']}"
    return {
        "create": ("#/create", "text=Nothing drawn yet"),
        "gallery": ("#/gallery?min_stars=", ".tile img[alt]:not([alt=''])"),
        "picture": (f"#/picture/{drawn[3]['id']}", ".facts"),
        "grid": (f"#/grid?from={drawn[0]['id']}", "text=Draw the grid"),
        "compare": ("#/compare", "text=Begin"),
        "blind": (f"#/compare?pair={pair}", "text=Left is better"),
        "queue": ("#/queue", ".queue-row img"),
    }


def settled(page) -> None:
    page.wait_for_function("() => [...document.images].every((image) => image.complete)")
    expect(page.locator(".skeleton:visible")).to_have_count(0)


@pytest.mark.parametrize("name", ["create", "gallery", "picture", "grid", "compare", "blind", "queue"])
def test_axe_finds_nothing(server, views, look, accessible, name: str) -> None:
    seen = look(server)
    address, there = views[name]
    page = seen.go(address)
    expect(page.locator(there).first).to_be_visible()
    settled(page)
    if name == "create":
        page.get_by_text("More settings").click()
    if name == "gallery":
        page.get_by_role("button", name="Filters").click()
    accessible(page)
    seen.shot(f"{name}-dark")
    page.emulate_media(color_scheme="light")
    seen.shot(f"{name}-light")


def test_axe_finds_nothing_in_dialogs_and_notes(server, drawn, look, accessible) -> None:
    seen = look(server)
    page = seen.go("#/gallery?seed=123454321")
    expect(page.get_by_role("heading", name="Nothing found")).to_be_visible()
    accessible(page)
    page.keyboard.press("?")
    expect(page.get_by_role("dialog", name="Keys")).to_be_visible()
    accessible(page)
    seen.shot("keys")
    page.keyboard.press("Escape")
    page.evaluate(
        "import('/static/announce.js').then(({toast}) => { toast('Kept.'); toast('It went wrong.', 'bad'); })"
    )
    page.evaluate("import('/static/connection.js').then(({lost}) => lost())")
    expect(page.locator(".toast.bad")).to_be_visible()
    accessible(page)
    page.goto(f"{server.url}/#/picture/{drawn[0]['id']}")
    page.get_by_role("button", name="Collect").click()
    expect(page.get_by_label("Name", exact=True)).to_be_focused()
    accessible(page)


def test_it_fits_a_phone(server, views, look) -> None:
    size = {"width": 360, "height": 740}
    seen = look(server, viewport=size, has_touch=True, is_mobile=True)
    for name, (address, there) in views.items():
        page = seen.go(address)
        expect(page.locator(there).first).to_be_visible()
        settled(page)
        fits(page, 360, name)
        seen.shot(f"{name}-phone")


def test_it_fits_larger_screens(server, views, look) -> None:
    seen = look(server)
    for name, (address, there) in views.items():
        page = seen.go(address)
        expect(page.locator(there).first).to_be_visible()
        for device, width in WIDTHS.items():
            page.set_viewport_size({"width": width, "height": 1000})
            settled(page)
            fits(page, width, name)
            seen.shot(f"{name}-{device}")


def fits(page, width: int, name: str) -> None:
    """Nothing is wider than the screen, and everything can be hit with a finger."""
    wide = page.evaluate(
        """() => [document.documentElement, ...document.querySelectorAll('dialog[open] .dialog-body')]
        .map((box) => box.scrollWidth)"""
    )
    assert max(wide) <= width, name
    small = page.evaluate(
        """() => [...document.querySelectorAll('a[href], button, input, select, textarea, summary')]
        .filter((element) => { const box = element.getBoundingClientRect();
          return box.width && element.checkVisibility() && element.type !== 'checkbox'
            && !element.closest('.unseen, p, .skip, dd a') && (box.height < 24 || box.width < 24); })
        .map((element) => element.outerHTML.slice(0, 120))"""
    )
    assert small == [], name


def test_the_theme_can_be_chosen(server, look) -> None:
    page = look(server, color_scheme="dark").go()
    paper = "getComputedStyle(document.body).backgroundColor"
    dark = page.evaluate(paper)
    theme = page.get_by_role("button", name="Theme: as the system has it. Change it")
    theme.click()
    light = page.evaluate(paper)
    assert light != dark
    page.reload()
    assert page.evaluate(paper) == light
    page.get_by_role("button", name="Theme: light. Change it").click()
    assert page.evaluate(paper) == dark


def test_tab_goes_through_the_form_in_its_order(server, look) -> None:
    page = look(server).go("#/gallery")
    page.goto(f"{server.url}/#/create")
    expect(page.get_by_label("Steps", exact=True)).to_be_visible()
    page.locator(".skip").focus()
    names = ["Skip to the content"]
    for _ in range(28):
        page.keyboard.press("Tab")
        names.append(
            page.evaluate(
                """() => { const e = document.activeElement;
                return e.ariaLabel || e.labels?.[0]?.textContent || e.textContent.trim(); }"""
            )
        )
        ring = page.evaluate("() => getComputedStyle(document.activeElement).outlineStyle")
        assert ring != "none", names[-1]
    order = [
        "Skip to the content",
        "Create",
        "Prompt",
        "Generate",
        "Model",
        "Size",
        "Sampler",
        "Steps",
        "Guidance",
        "Seed",
        "More settings",
    ]
    places = [next(at for at, name in enumerate(names) if name == wanted) for wanted in order]
    assert places == sorted(places), names


def test_dialogs_hold_focus_and_give_it_back(server, look) -> None:
    page = look(server).go("#/gallery")
    keys = page.get_by_role("button", name="Keys")
    keys.focus()
    page.keyboard.press("Enter")
    dialog = page.get_by_role("dialog", name="Keys")
    expect(dialog).to_be_visible()
    for _ in range(6):
        page.keyboard.press("Tab")
        inside = page.evaluate(
            "document.activeElement === document.body || document.activeElement.closest('dialog') !== null"
        )
        assert inside
    page.keyboard.press("Escape")
    expect(keys).to_be_focused()
    page.keyboard.press("?")
    page.get_by_label("Keys without Ctrl work outside of fields").uncheck()
    page.keyboard.press("Escape")
    page.keyboard.press("c")  # turned off: for those whose speech is keys
    expect(page).to_have_url(f"{server.url}/#/gallery")


def test_keys_lead_everywhere(server, look) -> None:
    page = look(server).go("#/queue")
    for key, view in {"g": "gallery", "v": "compare", "q": "queue", "c": "create"}.items():
        page.keyboard.press(key)
        expect(page).to_have_url(f"{server.url}/#/{view}")
        expect(page.locator("main")).to_be_focused()
    for key, field in {"/": "Search the gallery", "p": "Prompt"}.items():  # from one view into another
        page.locator("main").focus()
        page.keyboard.press(key)
        expect(page.get_by_label(field, exact=True)).to_be_focused()
    page.keyboard.type("g")  # a letter like any other
    assert page.get_by_label("Prompt", exact=True).input_value() == "g"


def test_motion_is_left_out_where_it_is_unwanted(server, look) -> None:
    page = look(server, reduced_motion="reduce").go("#/compare")
    moving = "getComputedStyle(document.querySelector('main .button')).transitionDuration"
    expect(page.locator("main .button").first).to_be_visible()
    assert page.evaluate(moving) in ("0s", "0s, 0s, 0s")
    page = look(server, reduced_motion="no-preference").go("#/compare")
    expect(page.locator("main .button").first).to_be_visible()
    assert page.evaluate(moving) not in ("0s", "0s, 0s, 0s")
