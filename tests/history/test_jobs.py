"""The queue: accepted is made, once, whoever dies; on SQLite and PostgreSQL alike."""

from __future__ import annotations

import threading
import time

import pytest

from crowds import together
from pictura.errors import EngineError, InputError, ParameterError
from pictura.history.jobs import KeyConflict
from pictura.request import Request


def requests(count, model="toy"):
    return [Request(prompt=f"number {i}", seed=i, model=model) for i in range(count)]


def make(task, picture):
    return picture(task.request.prompt, seed=task.request.seed)


def told(jobs, job):
    return [event.data["status"] for event in jobs.events(job.id) if event.kind == "status"]


def test_a_job_from_the_first_to_the_last_state(jobs, claims, picture):
    job = jobs.submit(requests(3))
    assert job.status == "queued" and claims.waiting() == 3
    first, second = claims.claim("w", limit=2, lease=60)
    assert [first.index, second.index] == [0, 1] and jobs.get(job.id).status == "running"
    entry = claims.finish(first, make(first, picture))
    assert entry.job == job.id and entry.index == 0
    assert claims.fail(second, EngineError("no memory"))
    assert jobs.get(job.id).status == "running"
    (third,) = claims.claim("w", limit=9, lease=60)
    claims.finish(third, make(third, picture))
    done = jobs.get(job.id)
    assert done.status == "done" and [image.index for image in done.images] == [0, 2]
    assert [(f.index, f.error, f.kind) for f in done.failures] == [(1, "no memory", "EngineError")]
    assert told(jobs, job) == ["queued", "running", "done"]
    kinds = [event.kind for event in jobs.events(job.id)]
    assert kinds == ["status", "status", "picture", "failure", "picture", "status"]
    resumed = jobs.events(job.id, after=jobs.events(job.id)[2].seq)
    assert [event.kind for event in resumed] == ["failure", "picture", "status"]


def test_a_job_may_be_ones_own_from_the_start(jobs, claims, picture):
    wanted = requests(2)
    first, second = claims.take("here", wanted, lease=60, owner="me")
    assert claims.claim("w", limit=9, lease=60) == [] and claims.wanted() == []
    assert (jobs.get(first.job).status, jobs.get(first.job).owner) == ("running", "me")
    assert jobs.requests(first.job) == tuple(wanted)
    claims.finish(second, make(second, picture))
    assert claims.fail(first, EngineError("no"))
    assert told(jobs, jobs.get(first.job)) == ["queued", "running", "done"]


def test_one_who_dies_with_a_job_of_his_own_is_taken_over(jobs, claims, picture):
    (task,) = claims.take("here", requests(1), lease=0.01, owner="me")
    time.sleep(0.05)
    (other,) = claims.claim("w", limit=9, lease=60)
    assert claims.finish(task, make(task, picture)) is None
    assert claims.finish(other, make(other, picture)) is not None
    assert jobs.get(task.job).status == "done"


def test_without_any_picture_it_has_failed(jobs, claims):
    job = jobs.submit(requests(1))
    (task,) = claims.claim("w", limit=1, lease=60)
    claims.fail(task, EngineError("no"))
    assert jobs.get(job.id).status == "failed"


def test_the_same_key_is_the_same_job(jobs):
    job = jobs.submit(requests(2), owner="me", key="k")
    assert jobs.submit(requests(2), owner="me", key="k").id == job.id
    assert jobs.submit(requests(2), owner="you", key="k").id != job.id
    assert jobs.submit(requests(2), owner="me").id != jobs.submit(requests(2), owner="me").id
    with pytest.raises(KeyConflict):
        jobs.submit(requests(3), owner="me", key="k")


def test_the_same_key_from_many_threads_at_once_is_one_job(jobs, claims):
    found = together(lambda _: jobs.submit(requests(2), key="k").id, range(6))
    assert len(set(found)) == 1 and claims.waiting() == 2


def test_cancelling_keeps_what_is_finished(jobs, claims, picture):
    job = jobs.submit(requests(3))
    first, second = claims.claim("w", limit=2, lease=60)
    claims.finish(first, make(first, picture))
    done = jobs.cancel(job.id)
    assert done.status == "cancelled" and len(done.images) == 1
    assert claims.extend([second], 60) == [second]
    assert claims.finish(second, make(second, picture)) is None
    assert claims.claim("w", limit=9, lease=60) == []
    assert jobs.cancel(job.id).status == "cancelled" and told(jobs, job)[-1] == "cancelled"
    assert len(jobs.get(job.id).images) == 1


def test_a_dead_workers_task_is_taken_over_and_finished_once(jobs, claims, picture):
    job = jobs.submit(requests(1))
    (dead,) = claims.claim("dead", limit=1, lease=2)
    assert claims.claim("other", limit=1, lease=60) == []
    time.sleep(2.1)
    (taken,) = claims.claim("other", limit=1, lease=60)
    assert taken.fence > dead.fence
    assert claims.finish(dead, make(dead, picture)) is None  # it was only slow
    assert not claims.fail(dead, EngineError("late")) and claims.extend([dead], 60) == [dead]
    assert claims.finish(taken, make(taken, picture)) is not None
    assert claims.finish(taken, make(taken, picture)) is None
    assert len(jobs.get(job.id).images) == 1 and jobs.get(job.id).status == "done"


def test_a_lease_can_be_kept(jobs, claims):
    jobs.submit(requests(1))
    (task,) = claims.claim("w", limit=1, lease=0.2)
    for _ in range(4):
        time.sleep(0.1)
        assert claims.extend([task], 0.2) == []
    assert claims.claim("other", limit=1, lease=60) == []


def test_what_kills_its_workers_is_given_up(jobs, claims):
    job = jobs.submit(requests(1))
    for _ in range(3):
        assert len(claims.claim("w", limit=1, lease=0.01)) == 1
        time.sleep(0.03)
    assert claims.claim("w", limit=1, lease=60) == []
    failed = jobs.get(job.id)
    assert failed.status == "failed" and "died 3 times" in failed.failures[0].error


def test_given_back_is_free_at_once(jobs, claims):
    jobs.submit(requests(2))
    held = claims.claim("w", limit=2, lease=60)
    claims.give_back(held)
    again = claims.claim("v", limit=2, lease=60)
    assert [task.attempts for task in again] == [1, 1]


def test_only_the_models_one_has(jobs, claims):
    jobs.submit(requests(1, "big"))
    jobs.submit(requests(1, "small"))
    assert [t.request.model for t in claims.claim("w", limit=9, lease=60, models=["small"])] == ["small"]


def test_leases_do_not_follow_the_wall_clock(jobs, claims, monkeypatch):
    jobs.submit(requests(1))
    claims.claim("w", limit=1, lease=60)
    monkeypatch.setattr(time, "time", lambda: 4e9)
    assert claims.claim("other", limit=1, lease=60) == []


def test_many_workers_make_each_task_once(jobs, claims, picture):
    job = jobs.submit(requests(40))
    made = []

    def work(name):
        while held := claims.claim(name, limit=3, lease=60):
            made.extend(claims.finish(task, make(task, picture)).index for task in held)

    together(work, [f"w{i}" for i in range(5)])
    assert sorted(made) == list(range(40))
    done = jobs.get(job.id)
    assert done.status == "done" and [image.index for image in done.images] == list(range(40))


def test_bad_calls(jobs):
    with pytest.raises(ParameterError):
        jobs.submit([])
    for id in ("", "x", "f" * 32, "\0" * 32):
        with pytest.raises(InputError):
            jobs.get(id)


def test_jobs_are_cancelled_while_they_are_claimed(jobs, claims, picture):
    """Whoever locks a job and whoever locks its tasks never wait for each other."""
    made, wrong, over = [], [], threading.Event()

    def work(name):
        try:
            while not over.is_set():
                for task in claims.claim(name, limit=9, lease=60):
                    claims.finish(task, make(task, picture))
        except Exception as error:
            wrong.append(error)

    workers = [threading.Thread(target=work, args=(f"w{i}",)) for i in range(3)]
    for worker in workers:
        worker.start()
    try:
        for number in range(40):
            made.append(jobs.submit(requests(30)))
            time.sleep(0.001 * (number % 7))
            jobs.cancel(made[-1].id)
    finally:
        over.set()
        for worker in workers:
            worker.join()
    assert not wrong
    for job in made:
        done = jobs.get(job.id)
        assert done.status == ("done" if len(done.images) == 30 else "cancelled")
