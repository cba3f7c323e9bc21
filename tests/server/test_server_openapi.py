"""/openapi.json tells of every route, and the server does what it tells."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

HERE = Path(__file__).parent
CHECKS = (
    "not_a_server_error,status_code_conformance,content_type_conformance,response_headers_conformance,"
    "response_schema_conformance,negative_data_rejection,unsupported_method,allow_header_conformance,"
    "missing_required_header,use_after_free"
)


@pytest.fixture(scope="module")
def document(server):
    return server.get("/openapi.json").json()


def operations(document):
    return [
        (f"{method} {path}", said)
        for path, methods in document["paths"].items()
        for method, said in methods.items()
    ]


def test_it_has_every_route_that_answers(document, tmp_path):
    from pictura.server.app import create_app
    from pictura.server.settings import Settings

    app = create_app(Settings(folder=tmp_path))
    routes = [*app.state.routes, *(route for route in app.routes if hasattr(route, "path"))]
    told = {(method.upper(), path) for path, methods in document["paths"].items() for method in methods}
    answers = {(m, route.path_format) for route in routes for m in route.methods if m != "HEAD"}
    assert answers == told
    assert {("GET", "/"), ("POST", "/"), ("GET", "/static/{path}"), ("GET", "/openapi.json")} < told


def test_each_kind_of_file_of_the_page_is_told(server, document):
    from pictura.web import FOLDER

    told = document["paths"]["/static/{path}"]["get"]["responses"]["200"]["content"]
    files = [file.relative_to(FOLDER).as_posix() for file in FOLDER.rglob("*.*")]
    kinds = {server.get(f"/static/{name}").headers["content-type"].partition(";")[0] for name in files}
    assert kinds == set(told)


def test_every_operation_is_described(document):
    schemas = document["components"]["schemas"]
    for name, said in operations(document):
        assert said.get("summary") and said.get("tags"), name
        (status,) = [status for status in said["responses"] if status.startswith("2")]
        content = said["responses"][status]["content"]
        assert content, name
        for media in (*content.values(), *said.get("requestBody", {}).get("content", {}).values()):
            assert media or "text/event-stream" in content, name
            if "$ref" in media.get("schema", {}):
                assert media["schema"]["$ref"].rpartition("/")[2] in schemas, name
    assert len(document["security"]) == 4


def test_every_body_has_an_example_that_its_schema_allows(document):
    import jsonschema_rs

    for name, said in operations(document):
        if name.startswith(("post", "patch")):
            body = said.get("requestBody", {}).get("content", {})
            reading = any(
                word in name for word in ("replay", "interrupt", "skip", "refresh", "load", "post /logout")
            )
            assert body or reading, name
        for media in said.get("requestBody", {}).get("content", {}).values():
            if "$ref" in media["schema"]:
                schema = document["components"]["schemas"][media["schema"]["$ref"].rpartition("/")[2]]
                whole = {**schema, "components": document["components"]}
                jsonschema_rs.validator_for(whole).validate(schema["example"])


def test_the_table_of_operations_has_no_other(document):
    from pictura.server.documents import operations as told

    known = {(method, path) for path, methods in document["paths"].items() for method in methods}
    assert set(told()) <= known


def run(server, place, *arguments, seconds):
    command = [sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"]
    command += ["--checks", CHECKS, "--seed", "1", "--request-timeout", "60", *arguments]
    hooks = {"SCHEMATHESIS_HOOKS": "schemathesis_hooks", "PYTHONPATH": str(HERE)}
    done = subprocess.run(
        command, capture_output=True, text=True, timeout=seconds, env=os.environ | hooks, cwd=place
    )
    assert done.returncode == 0, done.stdout[-12000:] + done.stderr[-2000:]


def test_it_does_what_its_document_says(server, tmp_path):
    run(server, tmp_path, "--phases", "examples", "--exclude-path", "/api/models/{name}/load", seconds=300)


@pytest.mark.slow
def test_it_does_what_its_document_says_whatever_is_sent(own_server, tmp_path):
    server = own_server("--limit", "images=2").start()
    run(server, tmp_path, "--phases", "examples,coverage,fuzzing", "--max-examples", "15", seconds=1500)
    assert not any("Traceback" in line for line in server.log)
