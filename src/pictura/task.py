"""`TextToImage`: a model that draws, learns and is saved."""

from __future__ import annotations

import asyncio
import os
import re
import sys
from collections.abc import AsyncGenerator, Callable, Iterator, Mapping, Sequence
from contextlib import aclosing
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self, cast

from pictura import checkpoints, families, presets
from pictura.errors import PresetError
from pictura.evaluation.scorers import scorer_named
from pictura.families import Family, Preset
from pictura.history import OFF
from pictura.inputs import WINDOW, Call, Item, Model, is_single, items, whole, with_attachments
from pictura.learning import Learner
from pictura.picture import Collected, Event, Step
from pictura.providers import Provider
from pictura.remote import Drawing, Elsewhere, Remote
from pictura.watching import Scorer, asynchronous, best, with_bar

if TYPE_CHECKING:  # torch is loaded with a model's weights: remote models do without
    import torch
    from torch import nn

    from pictura.drawing import Studio
    from pictura.history import History
    from pictura.loading import Loaded

__all__ = ["RemoteTextToImage", "TextToImage"]


class _Presets:
    """`cls.presets`: the named presets of a class's family, or of all families for `TextToImage`."""

    def __get__(self, instance: object, owner: type[TextToImage]) -> Mapping[str, Preset]:
        known = presets.presets()
        if owner.family_name is None:
            return known
        return {name: entry for name, entry in known.items() if entry.family == owner.family_name}


class TextToImage(Learner):
    """A text-to-image model; `from_preset` gives one.

    Calls may come in any order and from several threads: one changes nothing for the next.
    A subclass with a `family_name` takes presets of that family only. `TextToImage` itself takes all of them
    and gives an instance of the family's subclass.
    """

    family_name: ClassVar[str | None] = None
    presets = _Presets()
    history: bool | History | None = None
    """Where pictures are kept: None the user's own unless `PICTURA_HISTORY` is off, False nowhere."""

    def __init__(self, loaded: Loaded, *, exact: bool = False) -> None:
        self._loaded = loaded
        self._exact = exact
        self._model = Model(name=loaded.name, family=loaded.family, defaults=loaded.defaults())
        self._studio = self._opened(loaded.digest)

    @classmethod
    def of(cls, family: str) -> type[TextToImage]:
        """The subclass for a family, `TextToImage.of("scenes")`; made when there is none yet."""
        if family != checkpoints.DIFFUSERS:
            families.load(family)
        for known in TextToImage.__subclasses__():
            if known.family_name == family:
                return known
        title = "".join(part.capitalize() for part in family.replace("-", "_").split("_"))
        return type(f"{title}TextToImage", (TextToImage,), {"family_name": family})

    @classmethod
    def from_preset(
        cls,
        preset: str | os.PathLike[str],
        load_weights: bool = True,
        dtype: str | torch.dtype | None = None,
        device: str | torch.device = "auto",
        *,
        config: str | os.PathLike[str] | None = None,
        variant: str | None = None,
        prediction_type: str | None = None,
        exact: bool = False,
        low_memory: bool | None = None,
        history: bool | History | None = None,
        **more: Any,
    ) -> Self:
        """The model called `preset`: a name (see `presets`), a folder of Pictura's, diffusers' or KerasHub's,
        a .safetensors file in its original layout, `hf://org/name[/file.safetensors][@revision]`,
        `kaggle://owner/model/framework/variation[/version]`, or a remote one, `openai://MODEL`,
        `hf-inference://MODEL`, `http://host` with `api=` (see `providers`).

        config: another such model that gives what the first one lacks: configurations, tokenizers, parts.
        variant: which weights to take where a folder has several, such as "fp16". prediction_type: "epsilon"
        or "v_prediction", which a file of Stable Diffusion 2 does not tell ("v_prediction" is assumed).

        Without `load_weights` it has the preset's architecture and random weights, and `more` may change
        single values of it. dtype: "float32", in which a seed gives the same picture everywhere, "bfloat16",
        "float16", "auto", which takes bfloat16 where this machine gains by it, or "int8", which also computes
        the largest products in it where that is quicker still; None is float32 for models of up to 300
        million parameters and "auto" for larger ones. exact: answer for one picture at a time, so that it has
        the same bits alone and in company also on devices where batches change the last ones; slower.
        low_memory: read the blocks of large networks from the file each time they are needed; None does so
        where the weights do not fit. history: keep what is drawn in this one; None for the user's own (see
        `pictura.history`) unless the environment has PICTURA_HISTORY=off, False for none. For a remote model
        `more` are api, base_url, api_key, timeout (seconds in all, or to connect, to read and in all),
        max_retries, concurrency, rate (requests a second) and headers (sent to the service with every call).

        PresetError where there is no such preset or it is of another family than this class; CheckpointError
        where the weights do not fit, before any is read.
        """
        if (entry := presets.remote(preset)) is not None:
            presets.local_only(load_weights=load_weights, dtype=dtype, device=device, exact=exact)
            presets.local_only(low_memory=low_memory, config=config, variant=variant)
            presets.local_only(prediction_type=prediction_type)
            name, provider = presets.connect(entry, **more)
            if not issubclass(RemoteTextToImage, cls):
                raise PresetError(f"preset {name} is remote; load it with pictura.TextToImage.from_preset")
            distant = RemoteTextToImage(name, Remote(provider))
            distant.history = history
            return cast(Self, distant)
        from pictura import loading

        loaded = loading.load(
            preset,
            load_weights=load_weights,
            dtype=dtype,
            device=device,
            family=cls.family_name,
            low_memory=low_memory,
            changes=more,
            config=config,
            variant=variant,
            prediction_type=prediction_type,
        )
        owner = cls if cls.family_name is not None else TextToImage.of(loaded.family.name)
        if not issubclass(owner, cls):
            raise PresetError(f"{cls.__name__} has no family_name, so it cannot be loaded; give it one")
        model = owner(loaded, exact=exact)
        model.history = history
        return model

    # Drawing

    def generate(
        self,
        inputs: object,
        num_steps: int | None = None,
        guidance_scale: float | None = None,
        seed: int | None = None,
        *,
        progress: bool | None = None,
        on_step: Callable[[Step], object] | None = None,
        **more: Any,
    ) -> Any:
        """A `Picture` for one text or `Request`; `Pictures`, in the order of the inputs, for everything else.

        inputs: a text, a `Request`, {"prompts": ..., "negative_prompts": ...}, or any iterable of these: a
        list, a generator, a data set, a data loader. None anywhere means the model's own default, which the
        picture records. progress: show a bar on standard error; by default on a terminal only.
        on_step: called with each `Step`. `more`: see `stream`.

        Raises the error of the first picture that could not be made; its `pictures` are the others, which
        `stream` gives as they come.
        """
        collected = Collected(on_step)
        events = self.stream(inputs, num_steps, guidance_scale, seed, **more)
        if sys.stderr.isatty() if progress is None else progress:
            events = with_bar(events)
        for event in events:
            collected.take(event)
        return collected.result(_single(inputs, more))

    def stream(
        self,
        inputs: object,
        num_steps: int | None = None,
        guidance_scale: float | None = None,
        seed: int | None = None,
        *,
        negative_prompts: object = None,
        size: tuple[int, int] | str | None = None,
        sampler: str | None = None,
        schedule: str | None = None,
        num_images: int = 1,
        strict: bool = True,
        previews: bool = False,
        best_of: int = 1,
        scorer: Scorer | str | None = None,
        batch_size: int = WINDOW,
        wildcards: str | os.PathLike[str] | None = None,
        styles: str | os.PathLike[str] | None = None,
        history: bool | History | None = None,
        **options: Any,
    ) -> Iterator[Event]:
        """The same as events, as they come: `Step`, `Preview` (if `previews`), `Picture` and `Failure`.

        num_images: so many for each input, adjacent. seed: of the first picture; the next ones have seed + 1,
        seed + 2, ... strict: a parameter that the model cannot use is a ParameterError; otherwise it is
        listed in `picture.ignored`. best_of: make so many for each picture and keep the one that `scorer`
        likes best: a function, or one of `pictura.evaluation.scorers`, by default the detector of scenes.
        size: (width, height), "WIDTHxHEIGHT", or a shape such as "3:2", for models that draw several.
        batch_size: pictures worked on at once, and inputs read ahead. wildcards: a folder with the lines that
        `__name__` in a prompt stands for; styles: a file of your own styles. history: where the pictures are
        kept by the time of the last event, instead of the model's own; False for nowhere. options: what the
        model has more of, see `family.options`, and those about the text: style, prompt_syntax,
        template_seed.

        Everything that can be checked is checked before this returns: ParameterError. Close the iterator to
        cancel what is not finished.
        """
        if isinstance(size, str) and re.fullmatch(r"[\d.\s]+[:/][\d.\s]+", size):
            size, options = None, {"aspect": size, **options}
        call = Call(
            values={
                "num_steps": num_steps,
                "guidance_scale": guidance_scale,
                "size": size,
                "sampler": sampler,
                "schedule": schedule,
            },
            options=with_attachments({n: v for n, v in options.items() if v is not None}, self._model.family),
            seed=seed,
            num_images=whole("num_images", num_images, 10_000) * whole("best_of", best_of, 1000),
            strict=strict,
            wildcards=wildcards,
            styles=styles,
        )
        wanted = items(inputs, negative_prompts, call, self._model)
        window = whole("batch_size", batch_size, 4096)
        judge = scorer if callable(scorer) else scorer_named(scorer) if best_of > 1 else None
        events = self._draw(wanted, call.num_images, window, previews)
        if best_of > 1 and judge is not None:
            events = best(events, best_of, judge)
        if (place := self._history(history)) is False:
            return events
        from pictura.history.recording import recorded

        return recorded(events, place)

    async def agenerate(
        self,
        inputs: object,
        *args: Any,
        on_step: Callable[[Step], object] | None = None,
        **more: Any,
    ) -> Any:
        """`generate` for asyncio: the work is done in a thread; cancelling the task cancels the pictures."""
        collected = Collected(on_step)
        async with aclosing(self.astream(inputs, *args, **more)) as events:
            async for event in events:
                collected.take(event)
        return collected.result(_single(inputs, more))

    async def astream(self, inputs: object, *args: Any, **more: Any) -> AsyncGenerator[Event]:
        """`stream` for asyncio. Leaving the loop early cancels the rest; close it (`aclosing`)."""
        async with aclosing(asynchronous(lambda: self.stream(inputs, *args, **more))) as events:
            async for event in events:
                yield event

    # Keeping and knowing

    def save_to_preset(self, folder: str | os.PathLike[str], *, overwrite: bool = False) -> None:
        """Write a preset folder, whole or not at all; `from_preset(folder)` gives the same bits.

        FileError where something is there already, unless it is a preset and `overwrite` is set.
        """
        from pictura import loading

        self._current()  # notices changes
        loading.save(self._loaded, Path(folder), overwrite=overwrite)

    @property
    def family(self) -> Family:
        """The algorithm and its networks."""
        return self._loaded.family

    @property
    def name(self) -> str:
        """As pictures record it; of a model from the hub with the commit."""
        return self._loaded.name

    @property
    def digest(self) -> str | None:
        """SHA-256 of the weights as a file, as they are now; None of a remote model."""
        return self._current().digest

    @property
    def backbone(self) -> nn.ModuleDict:
        """The networks by name. They are the model's own: changing them changes it."""
        from torch import nn

        return nn.ModuleDict(self.family.networks())

    @property
    def preprocessor(self) -> Callable[[Sequence[Mapping[str, Any]]], Mapping[str, torch.Tensor]]:
        """Examples {"images": picture, "prompts": text} to the tensors that training sees."""
        return self.family.prepare

    def summary(self, print_fn: Callable[[str], object] = print) -> None:
        """Tell the networks, their parts and how many parameters they have."""
        from pictura.formats import networks

        rows = [(name, kind, f"{count:,}") for name, kind, count in networks.summary(self.family.networks())]
        total = sum(tensor.numel() for tensor in self.backbone.parameters())
        width = max(len(name) for name, _, _ in rows)
        print_fn(f"{type(self).__name__} {self.name!r} on {self._loaded.device} in {self._loaded.dtype}")
        for name, kind, count in rows:
            print_fn(f"  {name:<{width}}  {kind:<20}  {count:>15}")
        print_fn(f"  {total:,} parameters")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} {self.name!r}>"

    def _history(self, said: bool | History | None) -> History | Literal[False] | None:
        """Where a call's pictures are kept; None is the user's own place."""
        place = self.history if said is None else said
        if place is None and os.environ.get("PICTURA_HISTORY", "").lower() in OFF:
            return False
        return None if place is True else place

    def _draw(self, wanted: Iterator[Item], together: int, window: int, previews: bool) -> Iterator[Event]:
        """The events of complete requests, of which `together` neighbours differ in their seeds alone."""
        return self._current().draw(wanted, window=window, previews=previews)

    def _current(self) -> Studio:
        """The studio; a new one when weights have changed, since the old one remembers answers of theirs."""
        if self._studio.outdated():
            self._loaded.changed = True
            self._studio = self._opened(None)
        if self._studio.digest is None:
            from pictura import loading

            self._studio.digest = loading.digest(self._loaded)
        return self._studio

    def _opened(self, digest: str | None) -> Studio:
        from pictura.drawing import Studio

        loaded = self._loaded
        return Studio(
            loaded.family, device=loaded.device, dtype=loaded.dtype, exact=self._exact, digest=digest
        )


class RemoteTextToImage(Elsewhere, TextToImage):
    """A model behind a service: it draws like any other, and its weights are somewhere else."""

    def __init__(self, name: str, remote: Remote) -> None:
        self._remote = remote
        self._model = remote.model(name)

    def _draw(self, wanted: Iterator[Item], together: int, window: int, previews: bool) -> Iterator[Event]:
        return self._remote.draw(wanted, together=together, previews=previews)

    async def astream(self, inputs: object, *args: Any, **more: Any) -> AsyncGenerator[Event]:
        """`stream` in the running event loop, without a thread for the calls."""
        place = self._history(more.pop("history", None))
        events = await asyncio.to_thread(self.stream, inputs, *args, **more, history=False)
        source = events.here() if isinstance(events, Drawing) else asynchronous(lambda: events)
        if place is not False:
            from pictura.history.recording import arecorded

            source = arecorded(source, place)
        async with aclosing(source):
            async for event in source:
                yield event

    @property
    def name(self) -> str:
        """As pictures record it; `from_preset` takes it back."""
        return self._model.name

    @property
    def provider(self) -> Provider:
        """The service, with the address and limits it is used with."""
        return self._remote.provider


def _single(inputs: object, more: Mapping[str, Any]) -> bool:
    return is_single(inputs) and more.get("num_images", 1) == 1
