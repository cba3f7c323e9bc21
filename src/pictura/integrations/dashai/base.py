"""The interface of DashAI's generative models and tasks: its own classes where it is installed, else their
like.

A model has a `SCHEMA` of parameters, from which DashAI builds a form, and `generate`, which gives a list of
images for a text. A task takes inputs and outputs to and from rows of a database, `ProcessData`, whose
`data` is a text or a file's name and whose `data_type` is "str" or "Image".
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar, Final

from pydantic import AfterValidator, BaseModel, Field

__all__ = [
    "BaseSchema", "MultilingualString", "ProcessData", "TextToImageModel", "TextToImageTask", "enum_field",
    "float_field", "int_field", "schema_field", "string_field",
]  # fmt: skip

try:
    from DashAI.back.core.schema_fields import (
        BaseSchema,
        enum_field,
        float_field,
        int_field,
        schema_field,
        string_field,
    )
    from DashAI.back.core.utils import MultilingualString
    from DashAI.back.dependencies.database.models import ProcessData
    from DashAI.back.models.text_to_image_generation_model import (
        TextToImageGenerationTaskModel as TextToImageModel,
    )
    from DashAI.back.tasks.text_to_image_generation_task import TextToImageGenerationTask as TextToImageTask
except ModuleNotFoundError as missing:
    if missing.name != "DashAI":
        raise
    if not TYPE_CHECKING:

        def MultilingualString(en):  # noqa: N802 (a class in DashAI)
            """A text in several languages, of which we have one."""
            return en

        class BaseSchema(BaseModel):
            """The parameters of a component: a field for each, all of which must be given."""

        def int_field(ge=None, gt=None, le=None, lt=None, multiple_of=None):
            """A whole number."""
            return Annotated[int, Field(ge=ge, gt=gt, le=le, lt=lt, multiple_of=multiple_of)]

        def float_field(ge=None, gt=None, le=None, lt=None):
            """A number."""
            return Annotated[float, Field(ge=ge, gt=gt, le=le, lt=lt)]

        def string_field():
            """Any text."""
            return str

        def enum_field(enum):
            """One of these texts."""

            def known(value: str) -> str:
                if value not in enum:
                    raise ValueError(f"{value} is none of {', '.join(enum)}")
                return value

            return Annotated[str, AfterValidator(known), Field(json_schema_extra={"enum": list(enum)})]

        def schema_field(t, placeholder, description, alias=None):
            """A parameter of type `t`; `placeholder` is what the form shows at first."""
            extra = {"placeholder": placeholder, "title": alias}
            return Annotated[t, Field(description=description, json_schema_extra=extra)]

        @dataclass
        class ProcessData:
            """An input or output of a process."""

            data: str
            data_type: str
            is_input: bool = True
            process_id: int | str | None = None

        class TextToImageModel(ABC):
            """A model that draws texts; made anew for every process."""

            TYPE: Final[str] = "GenerativeModel"
            COMPATIBLE_COMPONENTS: ClassVar[list[str]] = ["TextToImageGenerationTask"]
            SCHEMA: ClassVar[type[BaseSchema]] = BaseSchema

            @classmethod
            def get_schema(cls) -> dict[str, Any]:
                """The form as JSON schema."""
                return cls.SCHEMA.model_json_schema()

            @classmethod
            def get_metadata(cls) -> dict[str, Any]:
                """Whether something must be downloaded first."""
                return {"requires_download": False, "download_size_bytes": None}

            def validate_and_transform(self, raw_data: Mapping[str, Any]) -> dict[str, Any]:
                """`raw_data` as the schema takes it; pydantic's ValidationError where it does not."""
                return self.SCHEMA.model_validate(raw_data).model_dump()

            @abstractmethod
            def __init__(self, **kwargs: Any) -> None:
                """The parameters of a session, as in `SCHEMA`."""

            @abstractmethod
            def generate(self, input: str) -> list[Any]:
                """Pictures of a text."""

        class TextToImageTask(ABC):
            """One text in, one picture or more out."""

            TYPE: Final[str] = "GenerativeTask"
            ENTRY_POINT: ClassVar[str] = "generic"
            metadata: ClassVar[dict[str, Any]] = {
                "inputs": {"str": {"min": 1, "max": 1}},
                "outputs": {"Image": {"min": 1, "max": "n"}},
            }

            @classmethod
            def get_metadata(cls) -> dict[str, Any]:
                """Types and how many of each, and how users reach the task."""
                return {
                    "inputs": dict(cls.metadata["inputs"]),
                    "outputs": dict(cls.metadata["outputs"]),
                    "entry_point": cls.ENTRY_POINT,
                }

            @abstractmethod
            def prepare_for_task(self, input: Sequence[ProcessData], **kwargs: Any) -> str: ...
            @abstractmethod
            def prepare_input_for_database(
                self, input: Sequence[Any], **kwargs: Any
            ) -> list[tuple[str, str]]: ...
            @abstractmethod
            def process_input_from_database(
                self, input: list[ProcessData], **kwargs: Any
            ) -> list[ProcessData]: ...
            @abstractmethod
            def process_output(self, output: Sequence[Any], **kwargs: Any) -> list[tuple[str, str]]: ...
            @abstractmethod
            def process_output_from_database(
                self, output: list[ProcessData], **kwargs: Any
            ) -> list[ProcessData]: ...
