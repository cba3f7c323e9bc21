"""The algorithm asks, the engine answers.

A picture is a *program*: a generator that yields tuples of questions (`Ask`), receives a tuple of answers and
returns the picture. `solve` answers one program alone and is the oracle; `Engine` answers many at once:

    add(program) -> ticket       step(): every live program advances by one question

Questions that agree in network, variant, shapes and dtypes share a forward pass, whatever request they come
from. The engine knows no family and no sampler. (Over 300 lines: batching, memory, errors of one loop.)
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Callable, Generator, Hashable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from functools import partial
from itertools import islice
from typing import ParamSpec, Protocol

import torch
from torch import Tensor

from pictura.errors import Cancelled, EngineError, OutOfMemory
from pictura.levels import Level
from pictura.nn.rows import one_thread

_log = logging.getLogger(__name__)
P = ParamSpec("P")


@dataclass(frozen=True, slots=True, eq=False)
class Ask:
    """One question to one network.

    `inputs` have one row each, (1, ...). Asks of equal `variant` may share a pass (LoRA set, control kind).
    Asks with equal `memo` have equal answers: the first is kept for the others, which must not write into it.
    """

    net: str
    inputs: Mapping[str, Tensor]
    variant: Hashable = ()
    memo: Hashable | None = None


Answers = tuple[Tensor, ...]
Program = Generator[tuple[Ask, ...], Answers, Tensor]  # one picture; returns (1, 3, h, w) in [-1, 1]
SubProgram = Program
Solver = Generator[tuple[Tensor, Level], Tensor, Tensor]  # yields x (b, ...) and its level, receives x_0
Denoise = Callable[[Tensor, Level], SubProgram]
MakeAsk = Callable[[Tensor, Level, Tensor], Ask]  # x, level and a condition -> the question


class Evaluates(Protocol):
    """The only side of a family that the engine sees."""

    def evaluate(self, net: str, variant: Hashable, **inputs: Tensor) -> Tensor:
        """The answers of one network to a batch of questions, (b, ...) -> (b, ...)."""
        ...


def translate(solver: Solver, denoise: Denoise) -> SubProgram:
    """A solver's questions "what is x_0 here?" put through `denoise`; closes the solver however it ends."""
    x0: Tensor | None = None
    try:
        while True:
            try:
                x, level = next(solver) if x0 is None else solver.send(x0)
            except StopIteration as done:
                return _returned(done)
            x0 = yield from denoise(x, level)
    finally:
        solver.close()


def plain(ask: MakeAsk, condition: Tensor) -> Denoise:
    """The network's own answer to `condition`, one question a step."""

    def denoise(x: Tensor, level: Level) -> SubProgram:
        (x0,) = yield (ask(x, level, condition),)
        return x0

    return denoise


def watched(denoise: Denoise, note: Callable[[Level, Tensor], None]) -> Denoise:
    """Call `note(level, x_0)` after every guided answer; `note` must not raise (see `guarded`)."""

    def noted(x: Tensor, level: Level) -> SubProgram:
        x0 = yield from denoise(x, level)
        note(level, x0)
        return x0

    return noted


@torch.no_grad()
def solve(family: Evaluates, program: Program) -> Tensor:
    """The oracle: one program, one question at a time, no batching. An `exact` engine gives the same bits."""
    answers: Answers | None = None
    while True:
        try:
            with one_thread():
                asks = next(program) if answers is None else program.send(answers)
        except StopIteration as done:
            return _returned(done)
        answers = tuple(family.evaluate(ask.net, ask.variant, **ask.inputs) for ask in asks)


@dataclass(slots=True, eq=False)
class Ticket:
    """What `Engine.add` hands out: once `done`, either `result` or `error` is there.

    `evaluations` counts the questions asked so far, those answered from memory included.
    """

    result: Tensor | None = None
    error: Exception | None = None
    done: bool = False
    evaluations: int = 0
    cancelled: bool = False

    def cancel(self) -> None:
        """Ask for the end; any thread may. The engine closes the program between two steps."""
        self.cancelled = True


Answer = Tensor | Exception


@dataclass(slots=True, eq=False)
class _Run:
    """A program on its way: what it asked last and which answers have come."""

    program: Program
    ticket: Ticket
    background: bool
    on_done: Callable[[Ticket], None] | None
    asks: tuple[Ask, ...] = ()
    answers: list[Answer | None] = field(default_factory=list)


@dataclass(frozen=True, slots=True, eq=False)
class _Row:
    """A question in a batch; `places` (run, slot) wait for its answer, several if they share a memo."""

    ask: Ask
    memo: Hashable | None
    places: list[tuple[_Run, int]]


class Engine:
    """Answers programs in shared batches. One a process and model; `step` belongs to one thread.

    `rows` caps the rows of a pass, for all networks or by name. None is 64 on accelerators and, on a CPU, one
    row a thread or 4: more gains nothing there. Up to 4 rows, a row's bits were measured not to depend on the
    others with 1 to 4 threads, if per-picture vectors and small convolutions are padded
    (`nn.transformer.pad_rows`, `nn.convolution`); networks that use `nn.rows` hold it for any number.
    `exact` answers one row at a time, so that a picture has the same bits alone and in company on any device.
    `sizes` pads a batch to the next of these sizes by repeating its last row, for compiled networks that want
    few shapes. So many `memos` are kept.
    `add` and `Ticket.cancel` may be called from any thread.
    """

    def __init__(
        self,
        family: Evaluates,
        *,
        rows: int | Mapping[str, int] | None = None,
        exact: bool = False,
        sizes: Sequence[int] = (),
        memos: int = 256,
    ) -> None:
        self.family = family
        self._rows = rows
        self._exact = exact
        self._sizes = sorted(sizes)
        self._memos = memos
        self._memory: OrderedDict[Hashable, Tensor] = OrderedDict()  # least recently used first
        self._fits: dict[Hashable, int] = {}  # rows of a group that fitted after one ran out of memory
        self._arrivals: deque[_Run] = deque()
        self._live: list[_Run] = []

    @property
    def busy(self) -> bool:
        """Whether any program is not finished."""
        return bool(self._live or self._arrivals)

    def add(
        self, program: Program, *, background: bool = False, on_done: Callable[[Ticket], None] | None = None
    ) -> Ticket:
        """Take a program in; it starts with the next step.

        A `background` program (a preview) has low priority: a step serves all others first and then gives
        the background ones one pass at most. `on_done(ticket)` runs in the engine's thread; its errors are
        logged.
        """
        run = _Run(program, Ticket(), background, on_done)
        self._arrivals.append(run)
        return run.ticket

    def step(self) -> None:
        """Every live program advances by one question; cancelled ones are closed."""
        while self._arrivals:
            run = self._arrivals.popleft()
            self._live.append(run)
            if not run.ticket.cancelled:
                self._advance(run, run.program.__next__)
        for run in self._live:
            if run.ticket.cancelled and not run.ticket.done:
                self._cancel(run)
        self._serve([run for run in self._live if not run.background and not run.ticket.done])
        self._serve([run for run in self._live if run.background and not run.ticket.done], passes=1)
        self._live = [run for run in self._live if not run.ticket.done]

    def run(self) -> None:
        """Step until every program has ended."""
        while self.busy:
            self.step()

    def close(self) -> None:
        """Cancel every program, at once. For the engine's own thread."""
        self._live.extend(self._arrivals)
        self._arrivals.clear()
        for run in self._live:
            if not run.ticket.done:
                self._cancel(run)
        self._live = []

    def _serve(self, runs: Sequence[_Run], passes: int | None = None) -> None:
        """Answer what `runs` asked, in so many forward passes at most, and let the answered ones go on."""
        for key, rows in islice(self._batches(runs), passes):
            for row, answer in self._evaluate(key, rows):
                if row.memo is not None and isinstance(answer, Tensor):
                    answer = self._remember(row.memo, answer)
                for run, slot in row.places:
                    run.answers[slot] = answer
        for run in runs:
            self._reply(run)

    def _batches(self, runs: Sequence[_Run]) -> Iterator[tuple[Hashable, list[_Row]]]:
        """Open questions as batches of rows that may share a pass, capped; memos are answered on the way."""
        groups: dict[Hashable, list[_Row]] = {}
        waiting: dict[Hashable, _Row] = {}
        for run in runs:
            for slot, ask in enumerate(run.asks):
                memo = None if ask.memo is None else (ask.net, ask.variant, ask.memo)
                if run.answers[slot] is not None:
                    continue
                if memo in self._memory:
                    self._memory.move_to_end(memo)
                    run.answers[slot] = self._memory[memo]
                elif memo in waiting:
                    waiting[memo].places.append((run, slot))
                else:
                    row = _Row(ask, memo, [(run, slot)])
                    groups.setdefault(_key(ask), []).append(row)
                    if memo is not None:
                        waiting[memo] = row
        for key, rows in groups.items():
            while rows:
                cap = self._cap(rows[0].ask, key)
                yield key, rows[:cap]
                rows = rows[cap:]

    def _cap(self, ask: Ask, key: Hashable) -> int:
        cap = self._rows.get(ask.net) if isinstance(self._rows, Mapping) else self._rows
        if cap is None:
            on_cpu = all(x.device.type == "cpu" for x in ask.inputs.values())
            cap = max(4, torch.get_num_threads()) if on_cpu else 64
        return 1 if self._exact else min(cap, self._fits.get(key, cap))

    def _evaluate(self, key: Hashable, rows: Sequence[_Row]) -> Iterator[tuple[_Row, Answer]]:
        """Answer a batch. One that fails is halved and tried again until the error is a single row's own."""
        answer = self._forward([row.ask for row in rows])
        if isinstance(answer, Tensor):
            yield from ((row, answer[i : i + 1]) for i, row in enumerate(rows))
        elif len(rows) == 1:
            yield rows[0], answer
        else:
            half = (len(rows) + 1) // 2
            if isinstance(answer, OutOfMemory):
                self._fits[key] = min(half, self._fits.get(key, half))
            del answer  # its traceback may hold the memory that the halves need
            yield from self._evaluate(key, rows[:half])
            yield from self._evaluate(key, rows[half:])

    def _forward(self, asks: Sequence[Ask]) -> Answer:
        """One forward pass over the rows of `asks`, (len(asks), ...), or the error it ended in."""
        padding = next((size for size in self._sizes if size >= len(asks)), len(asks)) - len(asks)
        padded = [*asks, *[asks[-1]] * padding]
        net, variant = asks[0].net, asks[0].variant
        try:
            with torch.no_grad():
                with one_thread():
                    inputs = {n: torch.cat([ask.inputs[n] for ask in padded]) for n in asks[0].inputs}
                answer = self.family.evaluate(net, variant, **inputs)
        except Exception as error:
            if not _is_out_of_memory(error):
                return error
            return OutOfMemory(
                f"network {net!r} ran out of memory on {len(padded)} rows; ask for a smaller size"
            )
        if answer.shape[:1] != (len(padded),):
            return EngineError(
                f"network {net!r} answered {tuple(answer.shape)} to {len(padded)} rows; "
                "its first dimension must be the rows"
            )
        return answer[: len(asks)]

    def _remember(self, memo: Hashable, answer: Tensor) -> Tensor:
        answer = answer.clone()  # a slice would keep its whole batch
        self._memory[memo] = answer
        if len(self._memory) > self._memos:
            self._memory.popitem(last=False)
        return answer

    def _reply(self, run: _Run) -> None:
        """Hand a program its answers once all are there; an error is thrown in where the program asked."""
        good = tuple(answer for answer in run.answers if isinstance(answer, Tensor))
        bad = next((answer for answer in run.answers if isinstance(answer, Exception)), None)
        if bad is not None:
            self._advance(run, partial(run.program.throw, bad))
        elif len(good) == len(run.asks):
            self._advance(run, partial(run.program.send, good))

    def _advance(self, run: _Run, resume: Callable[[], tuple[Ask, ...]]) -> None:
        """Let a program run to its next question or its end; a senseless question is thrown back."""
        try:
            # Entered anew each time: a program's own grad mode never leaks out.
            with torch.no_grad(), one_thread():
                asks = resume()
        except StopIteration as done:
            if isinstance(done.value, Tensor):
                self._end(run, done.value)
            else:
                self._end(run, EngineError("a program must return a tensor; this one returned none"))
        except Exception as error:
            self._end(run, error)
        else:
            fault = _fault(asks)
            run.asks = () if fault else asks
            run.answers = [fault] if fault else [None] * len(asks)
            run.ticket.evaluations += len(run.asks)

    def _cancel(self, run: _Run) -> None:
        try:
            with torch.no_grad():
                run.program.close()
        except Exception:
            _log.exception("a cancelled program failed while it was closed")
        run.ticket.cancelled = True
        self._end(run, Cancelled("the picture was cancelled before it was finished"))

    def _end(self, run: _Run, outcome: Answer) -> None:
        if isinstance(outcome, Tensor):
            run.ticket.result = outcome
        else:
            run.ticket.error = outcome
        run.ticket.done = True
        if run.on_done is not None:
            guarded(run.on_done)(run.ticket)


def guarded(callback: Callable[P, object]) -> Callable[P, None]:
    """`callback` with its errors logged: nothing a watcher does reaches a program."""

    def call(*args: P.args, **kwargs: P.kwargs) -> None:
        try:
            callback(*args, **kwargs)
        except Exception:
            _log.exception("a callback failed; the picture goes on")

    return call


def _key(ask: Ask) -> Hashable:
    """What must be equal for two questions to share a forward pass."""
    inputs = tuple((name, x.shape[1:], x.dtype, x.device) for name, x in sorted(ask.inputs.items()))
    return ask.net, ask.variant, inputs


def _fault(asks: object) -> EngineError | None:
    """What is wrong with what a program yielded, if anything."""
    if not isinstance(asks, tuple) or not all(isinstance(ask, Ask) for ask in asks):
        return EngineError(f"a program must yield a tuple of Ask; this one yielded {type(asks).__name__}")
    for ask in asks:
        try:
            hash((ask.variant, ask.memo))
        except TypeError as error:
            return EngineError(
                f"variant and memo of a question to network {ask.net!r} must be hashable: {error}"
            )
        if not ask.inputs:
            return EngineError(
                f"a question to network {ask.net!r} has no inputs; give it one tensor at least"
            )
        for name, x in ask.inputs.items():
            if x.shape[:1] != (1,):
                return EngineError(
                    f"input {name!r} of network {ask.net!r} has shape {tuple(x.shape)}; "
                    "a question has one row, (1, ...)"
                )
    return None


def _is_out_of_memory(error: Exception) -> bool:
    """torch.OutOfMemoryError on GPUs; on the CPU the allocator raises a plain RuntimeError."""
    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


def _returned(done: StopIteration) -> Tensor:
    value: Tensor = done.value
    return value
