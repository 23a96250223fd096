"""One thread that does waiting jobs, several at a time, and answers on the reactor's thread."""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Sequence
from typing import Generic, TypeVar

from attrs import define, field
from twisted.internet.defer import Deferred
from twisted.internet.interfaces import IReactorFromThreads
from twisted.logger import Logger

from teleconch.errors import Unavailable

log = Logger()

WAITING_MAX = 20_000
BATCH_MAX = 512

Job = TypeVar("Job")
Answer = TypeVar("Answer")


@define
class _Waiting(Generic[Job, Answer]):
    job: Job
    answer: Deferred[Answer] = field(factory=Deferred)


class Worker(Generic[Job, Answer]):
    """Runs ``work(jobs)`` in its own thread with the waiting jobs, in order, up to 512 at a time.

    ``work`` returns an answer or an exception for each job, in the same order. Answers are delivered on the reactor's
    thread, after ``told(answers)`` has been called there. When 20,000 jobs wait, more are refused.
    """

    def __init__(
        self,
        name: str,
        reactor: IReactorFromThreads,
        work: Callable[[Sequence[Job]], Sequence[Answer | Exception]],
        told: Callable[[Sequence[Answer | Exception]], None] = lambda _: None,
    ) -> None:
        self._reactor = reactor
        self._work = work
        self._told = told
        self._jobs: deque[_Waiting[Job, Answer]] = deque()
        self._condition = threading.Condition()
        self._closing = False
        self._closed: Deferred[None] = Deferred()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)  # unanswered jobs may be lost
        self._thread.start()

    def submit(self, job: Job) -> Deferred[Answer]:
        """Have a job done. Unavailable if too many wait, or after :meth:`close`."""
        with self._condition:
            if self._closing:
                raise Unavailable("The store was closed; start the auth server again.")
            if len(self._jobs) >= WAITING_MAX:
                raise Unavailable("The auth server's disk is too slow for what is asked of it; try again in a minute.")
            waiting: _Waiting[Job, Answer] = _Waiting(job)
            self._jobs.append(waiting)
            self._condition.notify()
        return waiting.answer

    async def close(self) -> None:
        """Do the waiting jobs, then end the thread. Call it once."""
        with self._condition:
            self._closing = True
            self._condition.notify()
        await self._closed

    def _run(self) -> None:
        while True:
            with self._condition:
                while not self._jobs and not self._closing:
                    self._condition.wait()
                batch = [self._jobs.popleft() for _ in range(min(BATCH_MAX, len(self._jobs)))]
            if not batch:
                self._reactor.callFromThread(self._closed.callback, None)
                return
            answers: Sequence[Answer | Exception]
            try:
                answers = self._work([waiting.job for waiting in batch])
            except Exception:  # noqa: BLE001 - the thread's boundary: it must live on, and answer each job
                log.failure("the store's thread failed")
                answers = [
                    Unavailable("The state could not be read or written; the auth server's log says why.")
                ] * len(batch)
            self._reactor.callFromThread(self._answer, batch, answers)

    def _answer(self, batch: Sequence[_Waiting[Job, Answer]], answers: Sequence[Answer | Exception]) -> None:
        self._told(answers)
        for waiting, answer in zip(batch, answers, strict=True):
            if waiting.answer.called:  # the caller gave up
                continue
            if isinstance(answer, Exception):
                waiting.answer.errback(answer)
            else:
                waiting.answer.callback(answer)
