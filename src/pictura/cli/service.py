"""Options that say where a remote model is and which key opens it."""

from __future__ import annotations

import os
from typing import Annotated, Any

import typer

from pictura.errors import ParameterError, shown

__all__ = [
    "ApiOption",
    "BaseUrlOption",
    "KeyOption",
    "described_service",
    "service_settings",
    "settings_again",
]

ApiOption = Annotated[
    str | None,
    typer.Option(metavar="NAME", help="The interface of a remote model at http://..., such as openai."),
]
BaseUrlOption = Annotated[
    str | None, typer.Option(metavar="URL", help="The address of a remote model's service, if not its usual.")
]
KeyOption = Annotated[
    str | None,
    typer.Option(
        metavar="VARIABLE", help="The environment variable that holds its key, if not the service's own."
    ),
]


def service_settings(api: str | None, base_url: str | None, key_variable: str | None) -> dict[str, Any]:
    """What `from_preset` is told; keys come from the environment alone, where process lists do not show them.

    ParameterError where the variable is not set.
    """
    key = None
    if key_variable is not None:
        key = os.environ.get(key_variable)
        if not key:
            raise ParameterError(
                f"api-key-env is {shown(key_variable)}, which is not set; export the key under that name",
                parameter="api_key_env",
            )
    given = {"api": api, "base_url": base_url, "api_key": key}
    return {name: value for name, value in given.items() if value is not None}


def settings_again(preset: str, key_variable: str | None) -> dict[str, Any]:
    """`service_settings` for a preset that a file or the history names.

    Where it has an address in it, whoever wrote it chose that: no key goes there that is not named now.
    """
    from pictura import presets

    settings = service_settings(None, None, key_variable)
    if "+" in preset.partition("://")[0] and presets.remote(preset) is not None and not settings:
        settings["api_key"] = ""
    return settings


def described_service(name: str) -> dict[str, Any]:
    """What is known of a service without asking it, as JSON values."""
    from pictura import providers

    service = providers.load(name)
    keys = getattr(service, "keys", ())
    title = getattr(service, "title", name)
    parameters: object = getattr(service, "parameters", None)
    return {
        "name": f"{providers.scheme(name)}://",
        "description": f"remote: {title}" + (f"; key in {keys[0]}" if keys else ""),
        "family": "remote",
        "address": getattr(service, "base", ""),
        "keys": list(keys),
        "parameters": sorted(parameters) if isinstance(parameters, frozenset) else [],
        "options": {key: option.help for key, option in getattr(service, "options", {}).items()},
    }
