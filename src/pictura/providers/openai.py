"""openai://MODEL: OpenAI's Images API, and every server that speaks it.

    POST {base}/images/generations    JSON
    POST {base}/images/edits          a form, with the picture to start from

Pictures come as base64 or as addresses. A seed is no part of the API; servers of one's own are sent it as a
further field. https://platform.openai.com/docs/api-reference/images
"""

from __future__ import annotations

import os
from typing import Any, ClassVar

from pictura.providers._openai_images import Images


class OpenAI(Images):
    name: ClassVar[str] = "openai"
    title: ClassVar[str] = "OpenAI"
    base: ClassVar[str] = "https://api.openai.com/v1"
    keys: ClassVar[tuple[str, ...]] = ("OPENAI_API_KEY",)
    needs_model: ClassVar[bool] = False  # there is one that the service takes by itself

    def __init__(self, model: str = "", **settings: Any) -> None:
        super().__init__(model, **settings)
        if not self.own:
            self.parameters = frozenset({"size", "seed"})
        names = {"OPENAI_ORG_ID": "openai-organization", "OPENAI_PROJECT_ID": "openai-project"}
        found = {header: os.environ.get(name, "") for name, header in names.items() if self.own}
        self._account = {header: value for header, value in found.items() if value}

    def headers(self) -> dict[str, str]:
        return super().headers() | self._account


PROVIDER = OpenAI
