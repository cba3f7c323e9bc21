"""The engine against its oracle `solve`, over a small network with convolution and attention."""

from __future__ import annotations

import random

import pytest
import torch

from pictura import samplers
from pictura.engine import Ask, Engine, guarded, solve
from pictura.errors import Cancelled, EngineError, OutOfMemory
from pictura.levels import Flow
from small_family import Small


def requests(count, seed=0):
    """Pictures that differ in everything a request can choose."""
    rng = random.Random(seed)
    names = samplers.names()
    return [
        dict(
            prompt=rng.choice(["cat", "dog", "two stars"]),
            seed=rng.randrange(2**40),
            num_steps=rng.randint(1, 9),
            scale=rng.choice([1.0, 1.5, 4.0, 7.5]),
            sampler=names[i % len(names)],
            schedule=rng.choice(["own", "karras", "exponential", "sgm_uniform"]),
            size=rng.choice([8, 12]),
            process=rng.choice(["flow", "vp"]),
        )
        for i in range(count)
    ]


@pytest.mark.parametrize("threads", [1, 4])
def test_all_samplers_at_once_with_late_arrivals_and_a_cancellation(threads):
    """Every picture has the bits that it has alone, whatever shares its passes."""
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        wanted = requests(27)
        alone = [solve(Small(), Small().run(**request)) for request in wanted]
        family = Small()
        engine = Engine(family)
        tickets = [engine.add(family.run(**request)) for request in wanted[:14]]
        doomed = engine.add(family.run("dog", seed=5, num_steps=50))
        for request in wanted[14:]:  # one more at every step
            engine.step()
            tickets.append(engine.add(family.run(**request)))
        doomed.cancel()
        engine.run()
    finally:
        torch.set_num_threads(before)
    assert isinstance(doomed.error, Cancelled) and doomed.result is None
    for request, ticket, picture in zip(wanted, tickets, alone, strict=True):
        assert torch.equal(ticket.result, picture), request
    assert family.passes["text"] <= 2, "four different texts in all"
    assert family.rows["denoiser"] / family.passes["denoiser"] > 2.5


@pytest.mark.parametrize("options", [{"rows": 64}, {"sizes": (1, 2, 4, 8, 16)}, {"rows": {"denoiser": 3}}])
def test_any_batch_agrees_to_less_than_a_grey_level(options):
    wanted = requests(18, seed=1)
    family = Small()
    engine = Engine(family, **options)
    tickets = [engine.add(family.run(**request)) for request in wanted]
    engine.run()
    for request, ticket in zip(wanted, tickets, strict=True):
        difference = (ticket.result - solve(Small(), Small().run(**request))).abs().max().item()
        assert difference < 2e-4 < 2 / 255, request


def test_exact_answers_one_row_at_a_time():
    wanted = requests(9, seed=2)
    family = Small()
    engine = Engine(family, exact=True, rows=64)
    tickets = [engine.add(family.run(**request)) for request in wanted]
    engine.run()
    assert family.rows == family.passes
    for request, ticket in zip(wanted, tickets, strict=True):
        assert torch.equal(ticket.result, solve(Small(), Small().run(**request)))


@pytest.mark.parametrize("name", samplers.names())
def test_pictures_share_passes(name):
    family = Small()
    engine = Engine(family, rows=64)
    tickets = [engine.add(family.run(seed=seed, num_steps=5, sampler=name)) for seed in range(6)]
    engine.run()
    asked = samplers.evaluations(name, Flow().levels(5))
    assert family.passes == {"text": 1, "denoiser": asked, "decoder": 1}
    assert family.rows == {"text": 2, "denoiser": 12 * asked, "decoder": 6}
    assert [ticket.evaluations for ticket in tickets] == [2 + 2 * asked + 1] * 6


def test_a_prompt_is_encoded_once():
    family = Small()
    engine = Engine(family)
    for seed in range(5):
        engine.add(family.run("cat", seed=seed))
        engine.run()
    assert family.rows["text"] == 2


def test_memory_of_answers_is_bounded():
    family = Small()
    engine = Engine(family, memos=3)
    for prompt in ("a", "b", "c", "d"):
        engine.add(family.run(prompt, num_steps=1))
        engine.run()
    assert len(engine._memory) == 3
    engine.add(family.run("d", num_steps=1))
    engine.run()
    assert family.rows["text"] == 5, "the latest prompt and the empty one were still known"


def test_out_of_memory_halves_the_batch_and_remembers():
    family = Small(limit=3)
    engine = Engine(family, rows=16)
    tickets = [engine.add(family.run(seed=seed, num_steps=3)) for seed in range(4)]
    engine.run()
    for seed, ticket in enumerate(tickets):
        expected = solve(Small(), Small().run(seed=seed, num_steps=3))
        torch.testing.assert_close(ticket.result, expected, rtol=0, atol=1e-5)
    # First step: 8 rows fail, both 4s fail, four pairs pass. What fits is then known: four passes each.
    assert family.passes["denoiser"] == (1 + 2 + 4) + 4 + 4


def test_out_of_memory_on_one_row_is_that_pictures_error():
    engine = Engine(Small(limit=0))
    ticket = engine.add(Small().run())
    engine.run()
    assert isinstance(ticket.error, OutOfMemory)
    assert "smaller" in str(ticket.error)


class Picky(Small):
    """Fails for any batch that holds a row of NaN, as a real kernel with a check would."""

    def evaluate(self, net, variant, **inputs):
        answer = super().evaluate(net, variant, **inputs)
        if net == "denoiser" and inputs["x"].isnan().any():
            raise ValueError("a row is not a number")
        return answer


def poisoned(family):
    (text,) = yield (family.ask_text("cat"),)
    x = torch.full((1, 3, 8, 8), float("nan"))
    (x0,) = yield (Ask("denoiser", {"x": x, "level": torch.zeros(1, 2), "text": text}),)
    return x0


def test_an_error_belongs_to_the_row_that_asked():
    family = Picky()
    engine = Engine(family, rows=16)
    good = [engine.add(family.run(seed=seed)) for seed in range(5)]
    bad = engine.add(poisoned(family))
    engine.run()
    assert isinstance(bad.error, ValueError)
    lines = []
    trace = bad.error.__traceback__
    while trace is not None:
        lines.append(trace.tb_frame.f_code.co_name)
        trace = trace.tb_next
    assert "poisoned" in lines, "the traceback names the algorithm that asked"
    for seed, ticket in enumerate(good):
        torch.testing.assert_close(ticket.result, solve(Small(), Small().run(seed=seed)), rtol=0, atol=1e-5)


def test_a_program_may_answer_an_error_with_another_question():
    family = Picky()

    def careful():
        try:
            return (yield from poisoned(family))
        except ValueError:
            return (yield from family.run(seed=3))

    engine = Engine(family)
    ticket = engine.add(careful())
    engine.run()
    assert torch.equal(ticket.result, solve(Small(), Small().run(seed=3)))


def test_stop_iteration_inside_is_an_error_and_not_an_end():
    """PEP 479, for an algorithm and for a network."""

    class Empty(Small):
        def evaluate(self, net, variant, **inputs):
            return next(iter(()))

    def careless():
        yield (Small().ask_text("cat"),)
        return next(iter(()))

    for family, program in ((Small(), careless()), (Empty(), Small().run())):
        engine = Engine(family)
        ticket = engine.add(program)
        engine.run()
        assert isinstance(ticket.error, RuntimeError) and ticket.result is None


@pytest.mark.parametrize(
    ("question", "words"),
    [
        (Ask("text", {"ids": torch.zeros(1, 4)}), "tuple"),
        ((Ask("text", {"ids": torch.zeros(2, 4)}),), "one row"),
        ((Ask("text", {}),), "no inputs"),
        ((Ask("text", {"ids": torch.zeros(1, 4)}, variant=[]),), "hashable"),
    ],
)
def test_a_senseless_question_is_thrown_back(question, words):
    def program():
        yield question
        return torch.zeros(1)

    family = Small()
    engine = Engine(family)
    ticket, other = engine.add(program()), engine.add(family.run())
    engine.run()
    assert isinstance(ticket.error, EngineError) and words in str(ticket.error)
    assert other.result is not None


def test_a_program_must_return_a_picture():
    def program():
        yield (Small().ask_text("cat"),)

    engine = Engine(Small())
    ticket = engine.add(program())
    engine.run()
    assert isinstance(ticket.error, EngineError)


def test_an_answer_must_have_the_rows_of_its_question():
    class Summing(Small):
        def evaluate(self, net, variant, **inputs):
            return super().evaluate(net, variant, **inputs).sum(0)

    engine = Engine(Summing())
    ticket = engine.add(Small().run())
    engine.run()
    assert isinstance(ticket.error, EngineError) and "rows" in str(ticket.error)


def test_cancellation_runs_finally_between_two_steps():
    freed = []

    def holding(family):
        try:
            return (yield from family.run(num_steps=20))
        finally:
            freed.append(True)

    family = Small()
    engine = Engine(family)
    ticket, unstarted = engine.add(holding(family)), engine.add(holding(family))
    unstarted.cancel()
    engine.step()
    engine.step()
    assert not ticket.done and unstarted.done
    ticket.cancel()
    assert not freed, "only the engine closes"
    engine.step()
    assert ticket.done and freed == [True]
    assert not engine.busy


def test_close_ends_everything():
    family = Small()
    engine = Engine(family)
    tickets = [engine.add(family.run(num_steps=9)) for _ in range(3)]
    engine.step()
    tickets.append(engine.add(family.run()))
    engine.close()
    assert all(isinstance(ticket.error, Cancelled) for ticket in tickets) and not engine.busy


def test_previews_wait_for_pictures_and_take_one_pass_a_step():
    family = Small()
    engine = Engine(family, rows=2)
    previews = []

    def decode(latent):
        (image,) = yield (Ask("decoder", {"latent": latent}),)
        return image

    def note(level, x0):
        previews.append(engine.add(decode(x0), background=True))

    ticket = engine.add(family.run(num_steps=6, note=note))
    passes = []
    while engine.busy:
        before = family.passes["decoder"]
        engine.step()
        passes.append(family.passes["decoder"] - before)
        if not ticket.done:
            assert passes[-1] <= 1
    assert len(previews) == 6 and all(preview.result.shape == (1, 3, 16, 16) for preview in previews)
    assert torch.equal(ticket.result, solve(Small(), Small().run(num_steps=6)))
    assert sum(preview.done for preview in previews) == 6


def test_nothing_a_watcher_does_reaches_a_program(caplog):
    def broken(*_):
        raise RuntimeError("the watcher fell over")

    family = Small()
    engine = Engine(family)
    ticket = engine.add(family.run(note=guarded(broken)), on_done=broken)
    other = engine.add(family.run(seed=1))
    engine.run()
    assert ticket.result is not None and other.result is not None
    assert "the watcher fell over" in caplog.text


def test_on_done_is_told_once():
    seen = []
    family = Small()
    engine = Engine(family)
    ticket = engine.add(family.run(), on_done=seen.append)
    engine.run()
    assert seen == [ticket] and ticket.done


def test_global_random_numbers_are_not_touched():
    state = torch.get_rng_state()
    family = Small()
    engine = Engine(family)
    engine.add(family.run(sampler="dpmpp_sde"))
    engine.run()
    assert torch.equal(torch.get_rng_state(), state)


def test_an_interrupted_step_can_be_taken_again():
    """Ctrl-C inside a network: nothing is lost, and the picture is the same."""

    class Interrupted(Small):
        def evaluate(self, net, variant, **inputs):
            answer = super().evaluate(net, variant, **inputs)
            if net == "denoiser" and self.passes[net] == 3:
                raise KeyboardInterrupt
            return answer

    family = Interrupted()
    engine = Engine(family)
    tickets = [engine.add(family.run(seed=seed)) for seed in range(3)]
    with pytest.raises(KeyboardInterrupt):
        engine.run()
    engine.run()
    for seed, ticket in enumerate(tickets):
        assert torch.equal(ticket.result, solve(Small(), Small().run(seed=seed)))
