"""The side of `TextToImage` that learns: `compile`, `fit` and `evaluate`."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from pictura.inputs import whole
from pictura.request import parse_size

if TYPE_CHECKING:
    from pictura.families import Family
    from pictura.loading import Loaded
    from pictura.training.compiling import Compiled
    from pictura.training.fitting import History

# Training is imported where it is asked for: most models only draw, and start the sooner.

__all__ = ["Learner"]


class Learner:
    """What a loaded model can also do. `stop_training`: set by a callback to end after the current epoch."""

    stop_training: bool = False
    _loaded: Loaded
    _compiled: Compiled | None = None
    _taught: Family | None = None  # what is trained, once it is known

    def compile(
        self,
        optimizer: Any = "auto",
        loss: Any = "auto",
        metrics: Any = "auto",
        *,
        learning_rate: float | None = None,
        clip: float = 1.0,
    ) -> None:
        """Say how `fit` is to train. Without it, everything is "auto".

        optimizer: a name ("adamw"; "auto" is AdamW at 3e-4), a torch.optim class, a function of parameters,
        or an optimizer made of `backbone.parameters()`. loss: "auto" is the model's own; a name ("mse",
        "mae", "huber") or a function compares what the model predicts with what it should; "dpo", or a
        `pictura.training.preference.DPO` with another beta, learns from pairs which of two pictures people
        like better, and holds the model to what it was at the first `fit` or `evaluate` after this call.
        metrics: "auto" is "mse"; a name, a function or several. clip: largest norm of the gradient.
        ParameterError for what the model cannot use.
        """
        from pictura.training.compiling import Compiled

        self._compiled = Compiled.of(
            self._loaded.family, optimizer, loss, metrics, learning_rate=learning_rate, clip=clip
        )
        self._taught = None

    def fit(
        self,
        data: object,
        epochs: int = 1,
        *,
        batch_size: int = 16,
        validation_data: object = None,
        callbacks: Sequence[object] = (),
        shuffle: bool = True,
        seed: int = 0,
        verbose: bool | None = None,
    ) -> History:
        """Train on captioned pictures and return the history: `.history["loss"]`, `["val_loss"]`, ...

        data: a folder of pictures, each with its caption in a .txt file beside it or all in metadata.jsonl; a
        data set, a data loader, or any iterable of {"images": picture, "prompts": text}. Pictures of another
        size than the model's are scaled and cropped about the centre. With loss="dpo" each has a second
        picture, "losers", that was liked less: a folder of `pictura history export --preferences` has them
        (any other loss learns from its winners alone). Words that a model with room for them
        has never seen are learnt: `.new_words`. callbacks: objects with methods like those of
        `training.fitting.Callback`. verbose: a line an epoch on standard error; by default on a terminal
        only. The same call on the same weights trains the same.
        """
        from pictura.training import examples, fitting

        loaded = self._loaded
        whole("epochs", epochs, 10**9)
        size = self._size()
        how, pairs = self._how(), self._how().dpo is not None
        source = examples.read(data, epochs=epochs, size=size, pairs=pairs)
        held_out = None
        if validation_data is not None:
            held_out = examples.read(
                validation_data, epochs=epochs, size=size, name="validation_data", pairs=pairs
            )
        loaded.trainable()
        self.stop_training = False
        history = fitting.fit(
            self._learning(),
            source,
            how,
            model=self,
            device=loaded.device,
            epochs=epochs,
            batch_size=whole("batch_size", batch_size, 10**6),
            validation=held_out,
            callbacks=callbacks,
            shuffle=shuffle,
            seed=whole("seed", seed, 2**62, least=0),
            measure=not loaded.measured,
            verbose=sys.stderr.isatty() if verbose is None else verbose,
        )
        loaded.measured = True
        return history

    def evaluate(self, data: object, *, batch_size: int = 16) -> dict[str, float]:
        """Mean loss and metrics over captioned pictures (as for `fit`), the same each time."""
        from pictura.training import examples, fitting

        source = examples.read(data, size=self._size(), pairs=self._how().dpo is not None)
        self._loaded.trainable()
        return fitting.evaluate(
            self._learning(),
            source,
            self._how(),
            device=self._loaded.device,
            batch_size=whole("batch_size", batch_size, 10**6),
        )

    def _how(self) -> Compiled:
        if self._compiled is None:
            self.compile()
        assert self._compiled is not None
        return self._compiled

    def _learning(self) -> Family:
        if self._taught is None:
            self._taught = self._how().taught(self._loaded.family)
        return self._taught

    def _size(self) -> tuple[int, int] | None:
        """Of the pictures that the model draws, as far as it has one size."""
        size = self._loaded.defaults().get("size")
        return None if size is None else parse_size(size)
