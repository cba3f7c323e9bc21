"""The page's files: nothing in them parses HTML, reaches another host or is missing."""

from __future__ import annotations

import re

import pytest

from pictura.web import FOLDER, HEADERS

SCRIPTS = sorted(FOLDER.rglob("*.js"))
STYLES = sorted(FOLDER.rglob("*.css"))
PAGE = (FOLDER / "index.html").read_text()
HTML = re.compile(
    r"innerHTML|outerHTML|insertAdjacentHTML|document\.write|createContextualFragment|DOMParser|srcdoc"
    r"|\beval\b|new Function|setAttribute\(\s*[\"']on|javascript:"
)


@pytest.mark.parametrize("path", SCRIPTS, ids=lambda path: path.relative_to(FOLDER).as_posix())
def test_a_module(path) -> None:
    text = path.read_text()
    assert not HTML.search(text)
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text)
    assert text.startswith("// ") and text.count("\n") <= 300  # says what it is about; one subject
    assert max(map(len, text.splitlines())) <= 110
    for target in re.findall(r"from \"([^\"]+)\"", text):
        assert target.startswith((".", "..")) and (path.parent / target).is_file(), target
    imports = ",".join(re.findall(r"import \{([^}]+)\}", text))
    used = {name.strip() for name in imports.split(",") if name.strip()}
    rest = re.sub(r"^import [^;]*;$", "", text, flags=re.M)
    used |= set(re.findall(r"import \* as (\w+)", text))
    for name in used:
        assert re.search(rf"\b{name.split(' as ')[-1]}\b", rest), f"{name} is imported and not used"


def test_every_module_is_used() -> None:
    used = set(re.findall(r"/static/([\w./-]+\.js)", PAGE))
    for path in SCRIPTS:
        for target in re.findall(r"from \"([^\"]+)\"", path.read_text()):
            used.add((path.parent / target).resolve().relative_to(FOLDER.resolve()).as_posix())
    assert used == {path.relative_to(FOLDER).as_posix() for path in SCRIPTS}


def test_the_page_has_no_script_or_style_of_its_own() -> None:
    assert not re.search(r"\son\w+=|style=|<style|<script(?![^>]+src=)", PAGE)
    for target in re.findall(r"(?:src|href)=\"(/static/[^\"]+)\"", PAGE):
        assert (FOLDER / target.removeprefix("/static/")).is_file(), target
    assert {path.name for path in STYLES} == set(re.findall(r"/static/css/([\w.]+)", PAGE))
    for path in STYLES:
        assert "url(" not in path.read_text() and "@import" not in path.read_text()


def test_the_server_gives_them(server) -> None:
    page = server.get("/")
    assert page.status_code == 200 and "<title>Pictura</title>" in page.text
    for name, value in HEADERS.items():
        assert page.headers[name] == value
    policy = page.headers["content-security-policy"]
    assert "default-src 'self'" in policy and "unsafe" not in policy
    script = server.get("/static/main.js")
    assert script.status_code == 200 and "javascript" in script.headers["content-type"]
    assert script.headers["content-security-policy"] == policy
    again = server.get("/static/main.js", headers={"if-none-match": script.headers["etag"]})
    assert again.status_code in (200, 304)


@pytest.mark.parametrize(
    "path",
    [
        "/static/../__init__.py",
        "/static/%2e%2e/__init__.py",
        "/static/..%2f__init__.py",
        "/static/css",
        "/static//etc/passwd",
        "/static/%00",
        "/static/none.js",
    ],
)
def test_nothing_else_is_given(server, path: str) -> None:
    answer = server.get(path)
    assert answer.status_code == 404 and "import" not in answer.text
