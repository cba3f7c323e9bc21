"""azure://DEPLOYMENT: OpenAI's models in Azure, at the address of one's own resource.

    POST {base}/openai/deployments/{deployment}/images/generations?api-version=...

The address is base_url or AZURE_OPENAI_ENDPOINT, such as https://NAME.openai.azure.com.
https://learn.microsoft.com/azure/ai-services/openai/reference
"""

from __future__ import annotations

import os
from typing import Any, ClassVar
from urllib.parse import quote

from pictura.errors import ParameterError
from pictura.providers._openai_images import Images

_VERSION = "2025-04-01-preview"


class Azure(Images):
    name: ClassVar[str] = "azure"
    title: ClassVar[str] = "Azure OpenAI"
    keys: ClassVar[tuple[str, ...]] = ("AZURE_OPENAI_API_KEY",)

    def __init__(
        self, model: str = "", *, base_url: str | None = None, api_version: str | None = None, **settings: Any
    ) -> None:
        base_url = base_url or os.environ.get("AZURE_OPENAI_ENDPOINT")
        if not base_url:
            raise ParameterError(
                f"{self.title} is at your resource's address; give base_url or set AZURE_OPENAI_ENDPOINT",
                parameter="base_url",
            )
        super().__init__(model, base_url=base_url, **settings)
        self.api_version = api_version or os.environ.get("OPENAI_API_VERSION") or _VERSION

    def headers(self) -> dict[str, str]:
        return {} if self._key is None else {"api-key": self._key.reveal()}

    def place(self, action: str) -> str:
        version = quote(self.api_version, safe="")
        return f"openai/deployments/{quote(self.model, safe='')}/images/{action}?api-version={version}"


PROVIDER = Azure
