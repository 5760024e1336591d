"""An engine on a Ray cluster: one job an attempt, whose entry point is :mod:`assay.worker.node`.

Ray keeps jobs apart in no way and never retries one, so nothing is asked of it but a place: the node runs the same
sandbox as every worker, sealed bytes go through the exchange folder alone, and the supervisor owns retries. A job's
``submission_id`` follows from task and try, and is looked up before it is submitted, so that a supervisor killed at any
moment finds its job again. Spoken over the job service's REST interface: a supervisor needs no Ray, only nodes do.
"""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import json
import shlex
import shutil
import time
import urllib.error
import urllib.request
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from assay import durable
from assay.digests import sha256_file
from assay.errors import AssayError, PreconditionError, UnavailableError
from assay.identity import read_private
from assay.worker import exchange, kept
from assay.worker.attempt import Progress
from assay.worker.engine import Ended, Events
from assay.worker.settings import RaySettings, WorkerKeys, WorkerSettings
from assay.worker.spool import RESULT_FILE, TASK_FILE, MeterTotals, Spool, TaskRecord

_LOOPBACK = ("127.0.0.1", "localhost", "[::1]", "::1")
_CALL_SECONDS = 15.0
_RUNNING = ("PENDING", "RUNNING")
_LATE_SECONDS = 3.0
_CANCEL_SECONDS = 10.0


class RayClient:
    """The job service of one cluster.

    Args:
        address: its base address.
        token: the cluster's token.

    Raises:
        PreconditionError: ``RAY_UNPROTECTED`` for an address that is neither https nor loopback, a missing token, or a
            cluster that answers without one: whoever reaches its job service runs code on it.
    """

    def __init__(self, address: str, token: str) -> None:
        parts = urlsplit(address)
        if parts.scheme != "https" and parts.hostname not in _LOOPBACK:
            _refuse("the address is neither https nor this machine's loopback")
        if len(token) < 32:
            _refuse("the token has fewer than 32 characters")
        self._address, self._token = address.rstrip("/"), token
        self._token_is_asked_for = False

    def status(self, submission_id: str) -> str | None:
        """``PENDING``, ``RUNNING``, ``SUCCEEDED``, ``FAILED`` or ``STOPPED``; None for an id never submitted.

        Raises:
            UnavailableError: ``RAY_UNREACHABLE``.
        """
        self._demand_protection()
        try:
            answer = self._call("GET", f"/api/jobs/{submission_id}")
        except urllib.error.HTTPError as error:
            if error.code == 404:
                return None
            raise _unreachable(error) from error
        if not isinstance(answer, dict) or not isinstance(answer.get("status"), str):
            raise _unreachable(ValueError())
        return str(answer["status"])

    def submit(self, submission_id: str, command: str, settings: RaySettings) -> None:
        """Submits a job once: an id that is known already is left as it is. Errors are those of :meth:`status`."""
        if self.status(submission_id) is not None:
            return
        job = {
            "submission_id": submission_id,
            "entrypoint": command,
            "entrypoint_num_cpus": settings.cpus,
            "entrypoint_num_gpus": settings.gpus,
            "entrypoint_resources": dict(settings.resources),
        }
        try:
            self._call("POST", "/api/jobs/", job)
        except urllib.error.HTTPError as error:
            # The service answers an id that came in meanwhile with an error and a traceback, not with a conflict.
            if self.status(submission_id) is None:
                raise _unreachable(error) from error

    def stop(self, submission_id: str) -> None:
        """Ends a job; one that ended or was never there is left as it is."""
        try:
            self._demand_protection()
            self._call("POST", f"/api/jobs/{submission_id}/stop")
        except (urllib.error.HTTPError, AssayError):
            # Its node ends it all the same, by the file in the exchange.
            return

    def _demand_protection(self) -> None:
        """Asks once without the token: a cluster that answers such a question takes code from anybody."""
        if self._token_is_asked_for:
            return
        try:
            self._call("GET", "/api/jobs/", token="")
        except urllib.error.HTTPError as error:
            if error.code == 429 or error.code >= 500:
                # Of whoever stands before the service, or of one that is not up yet: it says nothing of the token.
                raise _unreachable(error) from error
            self._token_is_asked_for = error.code in (401, 403)
        if not self._token_is_asked_for:
            _refuse("the cluster answers without its token; start it with RAY_AUTH_MODE=token")

    def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None, token: str | None = None) -> Any:
        data = None if body is None else json.dumps(body).encode()
        headers = {"Content-Type": "application/json"}
        if token is None:
            headers["Authorization"] = f"Bearer {self._token}"
        request = urllib.request.Request(self._address + path, data, headers, method=method)  # noqa: S310
        try:
            with _DIRECT.open(request, timeout=_CALL_SECONDS) as answer:
                return json.loads(answer.read() or b"{}")
        except urllib.error.HTTPError:
            raise
        except (OSError, ValueError, http.client.HTTPException) as error:
            raise _unreachable(error) from error


class _NoRedirects(urllib.request.HTTPRedirectHandler):
    def redirect_request(self, *_: Any) -> None:
        """None: the answer that redirects is then an error."""


_DIRECT = urllib.request.build_opener(urllib.request.ProxyHandler({}), _NoRedirects())
"""The token goes to the address that the operator wrote and nowhere else: to no proxy, and after no redirect."""


class RayJobs:
    """Runs attempts as Ray jobs; see the module's text for what is asked of whom."""

    def __init__(
        self, folder: Path, spool: Spool, settings: RaySettings, worker: WorkerSettings, keys: WorkerKeys
    ) -> None:
        self._spool, self._settings, self._keys = spool, settings, keys
        self._client = RayClient(settings.address, read_private(folder / settings.token_file).decode().strip())
        self._exchange = folder / settings.exchange
        self._exchange.mkdir(mode=0o700, parents=True, exist_ok=True)
        # Two workers may use one cluster: their task ids come from one gateway, but a test's may not.
        self._mark = hashlib.sha256(str(self._exchange.resolve()).encode()).hexdigest()[:12]
        self._places = asyncio.Semaphore(worker.slots)
        self._killed: dict[str, tuple[str, float]] = {}
        self._detached = False

    async def acquire(self, since: str) -> tuple[int, int]:
        """A job may be submitted; the cluster itself waits for a free node."""
        await self._places.acquire()
        return 0, 0

    def release(self, place: int) -> None:
        """Another job may be submitted."""
        self._places.release()

    async def run(self, record: TaskRecord, number: int, events: Events) -> Ended:
        """Submits a try, or goes on with the one that an earlier life left, and follows it to its end."""
        self._killed.pop(record.task_id, None)
        attempt = await asyncio.to_thread(self._try, record)
        try:
            return await self._follow(record, attempt, events)
        except Exception:
            # Nobody follows it any more, so it must not go on.
            with contextlib.suppress(OSError):
                await asyncio.to_thread(self._give_up, attempt, record)
            raise

    async def _follow(self, record: TaskRecord, attempt: Path, events: Events) -> Ended:
        wish = events.wish()
        if wish == "pause" and not self._detached:
            self.pause(record.task_id)
        if wish == "cancel":
            self.kill(record.task_id, "TASK_CANCELLED: ended on request")
        # A sign of life is one that comes while somebody looks: what an earlier life left may be of a dead node.
        last = exchange.read(attempt / exchange.BEAT) or {}
        started, meter = bool(last), _meter(last, record.meter)
        heard = beaten = time.monotonic()
        while True:
            if self._detached:
                return Ended("left", meter)
            end = exchange.read(attempt / exchange.END)
            if end is not None:
                events.progress(_progress(end))
                return await asyncio.to_thread(self._take, end, attempt, replace(record, meter=_meter(end, meter)))
            beat = exchange.read(attempt / exchange.BEAT)
            if beat is not None and beat != last:
                started, last, meter = True, beat, _meter(beat, meter)
                heard = beaten = time.monotonic()
                events.placed(beat.get("placed") is True)
                events.progress(_progress(beat))
                events.metered(meter)
            if record.task_id in self._killed:
                reason, since = self._killed[record.task_id]
                # A node that has begun is given time to end the sandbox itself.
                if not started or time.monotonic() - since >= _CANCEL_SECONDS:
                    await asyncio.to_thread(self._give_up, attempt, record)
                    return Ended("failed", meter, reason)
            try:
                lost = await asyncio.to_thread(self._lost, attempt, record)
            except UnavailableError:
                # The head is away: jobs die with it, or have ended and left their end in the exchange. It must say.
                lost = ""
                beaten = time.monotonic()
                if beaten - heard > self._settings.heartbeat_seconds:
                    # No word of either: then it cannot be said to run, and nobody is to pay for it.
                    events.placed(False)
            if not lost and started and time.monotonic() - beaten > self._settings.heartbeat_seconds:
                lost = "NODE_SILENT: the node gave no sign of life"
            if lost:
                await asyncio.to_thread(self._give_up, attempt, record)
                return Ended("lost", meter, lost)
            await asyncio.sleep(self._settings.poll_seconds)

    def pause(self, task_id: str) -> None:
        """Leaves the wish for the node."""
        self._newest(task_id, exchange.PAUSE, wanted=True)

    def unpause(self, task_id: str) -> None:
        """Takes the wish back."""
        self._newest(task_id, exchange.PAUSE, wanted=False)

    def kill(self, task_id: str, reason: str) -> None:
        """Leaves the wish for the node, which ends and cleans up; stops the job where the node does not."""
        if self._detached:
            # It is the supervisor that ends, and in a hurry; what was cancelled is seen to by its next start.
            return
        self._killed[task_id] = reason, time.monotonic()
        self._newest(task_id, exchange.CANCEL, wanted=True)

    def detach(self) -> None:
        """Lets the jobs run on: the next start finds them by their ids."""
        self._detached = True

    def after_fault(self, record: TaskRecord, fault: str) -> str:
        """The newest checkpoint lies sealed in the exchange, left there by a try that was paused."""
        try:
            with (self._exchange / record.task_id / exchange.WORK).open("rb") as stream:
                found = exchange.read_work(stream, record.task_id, self._keys)
        except (OSError, AssayError):
            return ""
        return kept.after_fault(record, fault, int(found.get("step", 0)))

    def forget(self, task_id: str) -> None:
        """Removes a task's sealed files."""
        shutil.rmtree(self._exchange / task_id, ignore_errors=True)

    def left(self, record: TaskRecord) -> bool:
        """A try of this attempt that was not given up; whether it has ended meanwhile is for :meth:`run` to see."""
        newest = self._newest_try(record.task_id)
        if newest is None or (newest / exchange.GIVEN_UP).exists():
            return False
        return (exchange.read(newest / exchange.RECORD) or {}).get("attempts") == record.attempts

    def _try(self, record: TaskRecord) -> Path:
        """The folder of the attempt's try, made where there is none yet."""
        task, newest, meter, number = self._exchange / record.task_id, self._newest_try(record.task_id), record.meter, 0
        if newest is not None:
            if self.left(record):
                return newest
            number = int(newest.name)
            signs = exchange.read(newest / exchange.END)
            if signs is None:
                self._give_up(newest, record)
                signs = exchange.read(newest / exchange.BEAT) or {}
            # What its node counted last may not have reached the spool.
            meter = _meter(signs, meter)
        staging = task / f".try-{number + 1}"
        staging.mkdir(mode=0o700, parents=True, exist_ok=True)
        if not (task / exchange.TASK).exists():
            partial = task / f".{exchange.TASK}"
            shutil.copyfile(self._spool.folder(record.task_id) / TASK_FILE, partial)
            partial.rename(task / exchange.TASK)
        exchange.publish(staging / exchange.RECORD, asdict(replace(record, meter=meter)))
        return staging.rename(task / str(number + 1))

    def _take(self, end: Mapping[str, Any], attempt: Path, record: TaskRecord) -> Ended:
        """The end of a try as the node wrote it, and its result into the task's spool folder."""
        kind, reason = str(end.get("kind")), str(end.get("reason", ""))[:2000]
        if reason.partition(":")[0] == exchange.NODE_STOPPED:
            return Ended("lost", record.meter, reason)
        if kind == "paused":
            return Ended("paused", record.meter, reason)
        if kind != "done":
            # What this try could not even open, such as a node without a sandbox, another may.
            kept_reason = self.after_fault(record, reason)
            return Ended("paused" if kept_reason else "failed", record.meter, kept_reason or reason)
        target = self._spool.folder(record.task_id) / RESULT_FILE
        with (attempt / exchange.RESULT).open("rb") as source, durable.replacing(target) as sink:
            shutil.copyfileobj(source, sink)
        return Ended("done", record.meter, result_sha256=sha256_file(target))

    def _lost(self, attempt: Path, record: TaskRecord) -> str:
        """Submits what was not submitted yet; else tells why a try that the cluster no longer runs has no end."""
        name = self._submission(attempt, record)
        status = self._client.status(name)
        if status in _RUNNING:
            return ""
        mark = attempt / ".submitted"
        if status is None and not mark.exists():
            # The mark first: killed between the two, this try counts as lost, and no two jobs ever run in one folder.
            mark.touch()
            try:
                self._client.submit(name, self._command(attempt), self._settings)
            except UnavailableError:
                # A head without a node to start jobs on refuses for a while; the next look asks again.
                mark.unlink()
                raise
            return ""
        # The end may have been written just before the job ended, and a shared folder may show it late.
        deadline = time.monotonic() + _LATE_SECONDS
        while time.monotonic() < deadline:
            if (attempt / exchange.END).exists():
                return ""
            time.sleep(0.1)
        return f"NODE_LOST: the cluster says {status or 'that it knows no such job'}"

    def _give_up(self, attempt: Path, record: TaskRecord) -> None:
        """A node that is still alive ends by the file; what it writes lies in a folder that nobody reads any more."""
        for name in (exchange.GIVEN_UP, exchange.CANCEL):
            (attempt / name).touch()
        self._client.stop(self._submission(attempt, record))

    def _submission(self, attempt: Path, record: TaskRecord) -> str:
        return f"assay-{self._mark}-{record.task_id}-{attempt.name}"

    def _command(self, attempt: Path) -> str:
        return shlex.join([*self._settings.command, str(self._settings.node_dir), str(attempt)])

    def _newest_try(self, task_id: str) -> Path | None:
        task = self._exchange / task_id
        number = exchange.newest_try(task)
        return task / str(number) if number else None

    def _newest(self, task_id: str, name: str, *, wanted: bool) -> None:
        newest = self._newest_try(task_id)
        if newest is None:
            return
        if wanted:
            (newest / name).touch()
        else:
            (newest / name).unlink(missing_ok=True)


def _meter(message: Mapping[str, Any], known: MeterTotals) -> MeterTotals:
    """What a node counted, all attempts together; what was known before where it says less: nothing is uncounted."""
    try:
        found = MeterTotals(**message["meter"])
        return found if found.wall_ms >= known.wall_ms else known
    except (TypeError, KeyError):
        return known


def _progress(message: Mapping[str, Any]) -> Progress:
    found = message.get("progress")
    try:
        return Progress(**found) if isinstance(found, dict) else Progress()
    except TypeError:
        return Progress()


def _refuse(why: str) -> None:
    raise PreconditionError(
        "RAY_UNPROTECTED",
        f"this Ray cluster is not used: {why}",
        remedy="start it with RAY_AUTH_MODE=token, reach it by TLS or on loopback, and put the token into token_file",
    )


def _unreachable(error: Exception) -> UnavailableError:
    code = getattr(error, "code", "")
    return UnavailableError("RAY_UNREACHABLE", f"the Ray job service does not answer: {type(error).__name__} {code}")
