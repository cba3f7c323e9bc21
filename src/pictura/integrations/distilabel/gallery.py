"""distilabel's gallery of image models by the same names, through Pictura's providers.

The same arguments and answers, and what the stock ones lack: any size, a seed, more than one picture of a
prompt, pictures kept losslessly, good rows kept when one fails, retries that respect the service, and no
client library.
"""

from __future__ import annotations

import os
from typing import Any, Optional

from pydantic import Field, PrivateAttr, SecretStr, validate_call

from pictura.errors import ParameterError, PresetError

from .base import RuntimeParameter
from .models import AsyncDrawing, Size, key_of

__all__ = ["InferenceEndpointsImageGeneration", "OpenAIImageGeneration"]

# distilabel recognises a runtime parameter by Optional[RuntimeParameter[...]], written so.
# ruff: noqa: UP045


class OpenAIImageGeneration(AsyncDrawing):
    """OpenAI's Images API, or any server that speaks it.

    Attributes:
        model: The model's name.
        base_url: By default the environment's OPENAI_BASE_URL, or OpenAI's own.
        api_key: By default the environment's OPENAI_API_KEY. A server of one's own may need none.
        default_headers: Sent with every request to the API. Like the key it is never part of a dump.
        max_retries: Further tries after a failure that may pass.
        timeout: Seconds for a request, all in all.
        structured_output: For texts; pictures have none, and nothing but None is taken.
    """

    model: str
    base_url: Optional[RuntimeParameter[str]] = Field(
        default_factory=lambda: os.environ.get("OPENAI_BASE_URL", "https://api.openai.com/v1"),
        description="Where the API is.",
    )
    api_key: Optional[RuntimeParameter[SecretStr]] = Field(
        default_factory=lambda: _secret("OPENAI_API_KEY"), description="The key of the service."
    )
    default_headers: Optional[RuntimeParameter[dict[str, str]]] = Field(
        default=None, exclude=True, repr=False, description="Sent with every request."
    )
    max_retries: RuntimeParameter[int] = Field(default=6, description="Further tries after a failure.")
    timeout: RuntimeParameter[int] = Field(default=120, description="Seconds for a request.")
    structured_output: Optional[RuntimeParameter[None]] = Field(default=None, description="For texts only.")

    @property
    def model_name(self) -> str:
        """The model's name."""
        return self.model

    def load(self) -> None:
        """Make ready; ParameterError where a key is needed and there is none."""
        super().load()
        self._start(
            f"openai://{self.model}",
            base_url=self.base_url,
            headers=self.default_headers,
            timeout=self.timeout,
            max_retries=self.max_retries,
            **key_of(self.api_key),
        )

    @validate_call
    async def agenerate(
        self,
        input: str,
        num_generations: int = 1,
        quality: Optional[str] = "standard",
        response_format: Optional[str] = "url",
        size: Optional[Size] = None,
        style: Optional[str] = None,
        seed: Optional[int] = None,
    ) -> list[dict[str, Any]]:
        """Make pictures for one prompt.

        Args:
            input: What to draw.
            num_generations: Pictures to make; as many requests as the service needs for it.
            quality: How much work goes into it; "standard" is the service's own default.
            response_format: How pictures travel, "url" or "b64_json"; "url" is the service's own default, and
                a service may answer either way.
            size: WIDTHxHEIGHT in pixels, as the model allows them.
            style: As the model knows it, such as "vivid".
            seed: For servers that take one; OpenAI's own does not.

        Returns:
            [{"images": [base64 PNG, ...]}]. The first error is raised if no picture could be made.
        """
        call = {
            "quality": None if quality == "standard" else quality,
            "response_format": None if response_format == "url" else response_format,
            "size": size,
            "style": style,
        }
        return await self._drawn(input, num_generations, seed, **_said(call))


class InferenceEndpointsImageGeneration(AsyncDrawing):
    """Hugging Face inference: a model of the hub, an endpoint by its name, or any address that speaks it.

    Attributes:
        model_id: A model of the hub, such as "ORG/NAME".
        endpoint_name: Instead, the name of an Inference Endpoint.
        endpoint_namespace: Whose endpoint that is.
        base_url: Instead, an address; nothing is added to it.
        api_key: By default the environment's HF_TOKEN.
        model_display_name: What results call the model.
        tokenizer_id: For texts; pictures need none, and it is not loaded.
        structured_output: For texts; pictures have none, and nothing but None is taken.
    """

    model_id: Optional[str] = None
    endpoint_name: Optional[RuntimeParameter[str]] = Field(default=None, description="An endpoint's name.")
    endpoint_namespace: Optional[RuntimeParameter[str]] = Field(default=None, description="Whose it is.")
    base_url: Optional[RuntimeParameter[str]] = Field(default=None, description="The address to ask.")
    api_key: Optional[RuntimeParameter[SecretStr]] = Field(
        default_factory=lambda: _secret("HF_TOKEN"), description="The token of the hub."
    )
    model_display_name: Optional[str] = None
    tokenizer_id: Optional[str] = None
    structured_output: Optional[RuntimeParameter[None]] = Field(default=None, description="For texts only.")

    _model_name: Optional[str] = PrivateAttr(None)

    @property
    def model_name(self) -> str:
        """The display name, the hub's name of the model, or where it is."""
        names = (self.model_display_name, self._model_name, self.model_id, self.endpoint_name, self.base_url)
        return next((name for name in names if name), "")

    def load(self) -> None:
        """Make ready. ParameterError unless exactly one of model_id, endpoint_name and base_url is given."""
        super().load()
        ways = [way for way in (self.model_id, self.endpoint_name, self.base_url) if way]
        if len(ways) != 1:
            raise ParameterError(
                "the model is not clear; give one of model_id, endpoint_name and base_url",
                parameter="model_id",
            )
        where = self._endpoint(self.endpoint_name) if self.endpoint_name else self.base_url
        self._start(f"hf-inference://{self.model_id or ''}", base_url=where, **key_of(self.api_key))

    @validate_call
    async def agenerate(
        self,
        input: str,
        negative_prompt: Optional[str] = None,
        height: Optional[float] = None,
        width: Optional[float] = None,
        num_inference_steps: Optional[float] = None,
        guidance_scale: Optional[float] = None,
        num_generations: int = 1,
        seed: Optional[int] = None,
    ) -> list[dict[str, Any]]:
        """Make pictures for one prompt.

        Args:
            input: What to draw.
            negative_prompt: What not to draw.
            height: In pixels; give width too.
            width: In pixels; give height too.
            num_inference_steps: Steps of each picture.
            guidance_scale: How strongly the prompt is followed.
            num_generations: Pictures to make, a request each.
            seed: Of the first picture; the next ones have seed + 1, seed + 2, ...

        Returns:
            [{"images": [base64 PNG, ...]}]. The first error is raised if no picture could be made.
        """
        if (height is None) != (width is None):
            raise ParameterError("height and width go together; give both", parameter="size")
        call = {
            "negative_prompts": negative_prompt,
            "size": None if height is None or width is None else (_whole(width), _whole(height)),
            "num_steps": None if num_inference_steps is None else _whole(num_inference_steps),
            "guidance_scale": guidance_scale,
        }
        return await self._drawn(input, num_generations, seed, **_said(call))

    def _endpoint(self, name: str) -> str:
        """The address of the endpoint, awake."""
        from huggingface_hub import get_inference_endpoint

        token = key_of(self.api_key).get("api_key")
        try:
            endpoint = get_inference_endpoint(name, namespace=self.endpoint_namespace, token=token)
            if endpoint.status in ("paused", "scaledToZero"):
                endpoint.resume()
            self._model_name = endpoint.repository
            return str(endpoint.wait(timeout=300).url)
        except Exception as error:  # the hub's client raises many kinds
            reason = type(error).__name__
            raise PresetError(f"endpoint {name!r} is not to be had: {reason}") from error


def _said(call: dict[str, Any]) -> dict[str, Any]:
    """Without what was left open; and what the user writes goes to the service as it is."""
    return {"prompt_syntax": "plain"} | {name: value for name, value in call.items() if value is not None}


def _secret(variable: str) -> SecretStr | None:
    value = os.environ.get(variable)
    return SecretStr(value) if value else None


def _whole(value: float) -> int | float:
    """384.0 is 384; what is no whole number is left to be refused where sizes and steps are checked."""
    return int(value) if float(value).is_integer() else value
