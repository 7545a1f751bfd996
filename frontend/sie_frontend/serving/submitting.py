"""Rows on their way to Triton and back, and what a caller is told of those that fail."""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence

from sie_frontend.contract import errors
from sie_frontend.rows import Row
from sie_frontend.serving.admission import as_wire_error
from sie_frontend.serving.readiness import Readiness
from sie_frontend.serving.runs import Outcome, RowFailure
from sie_frontend.serving.served import NotFinite, ServedInput, ServedModel
from sie_frontend.triton.client import FailureKind, TritonFailure
from sie_frontend.watch.metrics import Metrics

log = logging.getLogger("sie_frontend")


class Submitter:
    """Puts rows into the queues of `inputs`, which may change, and tells `readiness` of models that fail."""

    def __init__(self, inputs: Mapping[str, ServedInput], readiness: Readiness, metrics: Metrics) -> None:
        self._inputs = inputs
        self._readiness = readiness
        self._metrics = metrics

    async def submit(
        self,
        served: ServedModel,
        modality: str,
        rows: Sequence[Row],
        names: tuple[str, ...],
        activity: str,
        places: Sequence[str],
    ) -> Outcome:
        """The named outputs of each row; `places` says where in the request its item stands."""
        if not names:
            return Outcome([()] * len(rows), 0.0, 0.0)
        served.readers[modality].check(rows, places)
        target = self._inputs[served.model.inputs[modality].triton_model]
        try:
            outcome = await target.queue.submit(rows, names)
        except RowFailure as failure:
            place = places[failure.row]
            if isinstance(failure.cause, NotFinite):
                log.warning("model %s: `%s` of %s is not finite", served.model_id, failure.cause.tensor, place)
                raise errors.not_finite(served.model_id, activity, place) from failure
            assert isinstance(failure.cause, TritonFailure)
            where = place if len(rows) > 1 else None
            raise self._told(failure.cause, served.model_id, target, names, activity, where) from failure
        except TritonFailure as failure:
            raise self._told(failure, served.model_id, target, names, activity) from failure
        self._metrics.queue_seconds.labels(target.label).observe(outcome.queue_s)
        return outcome

    def _told(
        self,
        failure: TritonFailure,
        model_id: str,
        target: ServedInput,
        names: tuple[str, ...],
        activity: str,
        place: str | None = None,
    ) -> errors.WireError:
        where = f" ({place})" if place else ""
        log.warning("Triton failed on %s%s: %s: %s", target.triton_model, where, failure.kind.value, failure)
        if failure.kind in (FailureKind.UNREACHABLE, FailureKind.NOT_READY, FailureKind.BROKEN):
            self._readiness.lost(target.triton_model, names if failure.kind is FailureKind.BROKEN else ())
        return as_wire_error(failure.kind, model_id, activity, where)
