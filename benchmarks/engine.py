"""Sixteen different requests through one engine against one after the other.

Samplers, step counts, guidance and seeds all differ. "together" adds all to one engine, "one at a time"
gives each an engine of its own, "solve" is the oracle: no engine, one question a pass.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from _common import arguments, in_turn, machine, seconds, spread, write

from pictura.engine import Engine, Evaluates, Program, solve
from pictura.request import Request
from pictura.task import TextToImage

SAMPLERS = ("euler", "heun", "ddim", "dpmpp_2m", "euler_ancestral", "unipc", "dpmpp_2m_sde", "lcm")
PROMPTS = ("a cat", "two dogs", "a rocket above a pizza", "a star on a blue background")


class Counting:
    """A family that counts passes and rows and times nothing."""

    def __init__(self, family: Evaluates) -> None:
        self.family, self.passes, self.rows = family, 0, 0

    def evaluate(self, net: str, variant: object, **inputs: torch.Tensor) -> torch.Tensor:
        self.passes += 1
        self.rows += len(next(iter(inputs.values())))
        return self.family.evaluate(net, variant, **inputs)


class Nothing:
    """Answers at once, in the right shapes: what is left is the engine and the samplers."""

    def evaluate(self, net: str, variant: object, **inputs: torch.Tensor) -> torch.Tensor:
        return inputs["x"] if net == "denoiser" else torch.zeros(len(inputs["ids"]), 8, 257)


def main() -> None:
    options, before = arguments(__doc__ or ""), machine()
    count, runs = (4, 1) if options.quick else (16, 5)
    model = TextToImage.from_preset("scenes", history=False)
    family = model.family
    requests = [
        Request(
            prompt=PROMPTS[i % len(PROMPTS)],
            seed=i,
            sampler=SAMPLERS[i % len(SAMPLERS)],
            num_steps=2 if options.quick else 4 + i % 8,
            guidance_scale=(1.0, 2.0, 3.0, 4.0)[i // 2 % 4],
        ).completed(family.defaults())
        for i in range(count)
    ]

    def programs() -> list[Program]:
        return [family.run(request, lambda level, x0: None) for request in requests]

    def together(answers: Evaluates, rows: int | None = None) -> list[torch.Tensor]:
        engine = Engine(answers, rows=rows)
        tickets = [engine.add(program) for program in programs()]
        engine.run()
        for ticket in tickets:
            if ticket.error is not None:
                raise ticket.error
        return [ticket.result for ticket in tickets if ticket.result is not None]

    def alone(answers: Evaluates) -> list[torch.Tensor]:
        pictures = []
        for program in programs():
            engine = Engine(answers)
            ticket = engine.add(program)
            engine.run()
            assert ticket.result is not None
            pictures.append(ticket.result)
        return pictures

    def solved(answers: Evaluates) -> list[torch.Tensor]:
        return [solve(answers, program) for program in programs()]

    counts = {}
    drawn = {}
    ways: dict[str, Callable[[Evaluates], list[torch.Tensor]]] = {
        "together": lambda answers: together(answers, family.rows),  # as `generate` does
        "together, 4 rows": lambda answers: together(answers, 4),
        "one at a time": alone,
        "solve": solved,
    }
    for name, way in ways.items():
        counting = Counting(family)
        drawn[name] = way(counting)
        counts[name] = {"passes": counting.passes, "rows": counting.rows}
    off = {
        name: max((a - b).abs().max().item() for a, b in zip(pictures, drawn["solve"], strict=True))
        for name, pictures in drawn.items()
    }
    took = in_turn(
        {name: lambda w=way: seconds(lambda: w(family)) for name, way in ways.items()}, runs, warm=0
    )
    empty = in_turn({"engine": lambda: seconds(lambda: together(Nothing()))}, runs)
    rates = {name: spread([count / s for s in values], 3) for name, values in took.items()}
    rows = counts["together"]["rows"]
    results = {
        "requests": count,
        "threads": torch.get_num_threads(),
        "pictures_per_second": rates,
        "ratio": round(rates["together"]["median"] / rates["one at a time"]["median"], 3),
        "ratio_to_solve": round(rates["together"]["median"] / rates["solve"]["median"], 3),
        "passes_and_rows": counts,
        "largest_difference_from_solve": {name: float(f"{value:.2g}") for name, value in off.items()},
        "engine_and_sampler_ms_a_row": spread([1000 * s / rows for s in empty["engine"]], 3),
    }
    write("engine", results, options, before)


if __name__ == "__main__":
    main()
