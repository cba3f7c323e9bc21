"""Calls that are made again because nobody answered get the job that was made for them."""

from __future__ import annotations

import pytest

from pictura.history.calls import Calls
from pictura.history.jobs import Jobs
from pictura.request import Request

ONE = [Request(prompt="a cat", model="m", seed=1)]


@pytest.fixture
def submit(history):
    calls = Calls(Jobs(history))

    def submit(attempt, said=b"body", owner="me"):
        return calls.submit(ONE, owner=owner, said=said, attempt=attempt).id

    submit.calls = calls
    return submit


def test_a_repeated_call_gets_its_job(submit):
    first = submit(0)
    assert submit(1) == first and submit(2) == first


def test_a_call_whose_first_attempt_never_came(submit):
    made = submit(1)
    assert submit(2) == made and submit(1) != made


def test_equal_calls_at_the_same_time_keep_their_jobs(submit):
    first, second = submit(0), submit(0)
    assert first != second
    assert {submit(1), submit(1)} == {first, second}
    assert {submit(2), submit(2)} == {first, second}
    assert submit(2) not in (first, second)


def test_what_was_answered_is_over_soon(submit, monkeypatch):
    first, second = submit(0), submit(0)
    submit.calls.answered(first)
    assert submit(1) == second and submit(1) == first  # perhaps the answer did not arrive
    submit.calls.answered(first)
    monkeypatch.setattr("pictura.history.calls.GRACE", -1.0)
    assert submit(2) == second and submit(2) != first


def test_what_failed_is_tried_anew(submit):
    first = submit(0)
    submit.calls.answered(first, failed=True)
    assert submit(1) != first


def test_a_refused_call_is_a_new_one_when_it_is_made_again(submit):
    first, second = submit(0), submit(0)
    submit.calls.answered(first)
    submit.calls.settled(owner="me", said=b"body")
    assert submit(1) == second and submit(1) != first


@pytest.mark.parametrize("other", [{"said": b"another"}, {"owner": "you"}])
def test_other_bodies_and_owners_are_others(submit, other):
    first = submit(0)
    assert submit(1, **other) != first and submit(1) == first


def test_a_call_of_long_ago_is_forgotten(submit, history, monkeypatch):
    first = submit(0)
    monkeypatch.setattr("pictura.history.calls.WINDOW", -1.0)
    assert submit(1) != first
