"""Rules on the dynamic batcher and its queue."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from sie_triton.backends.releases import Release
from sie_triton.lint.rule import LintSubject, Problem, rule
from sie_triton.lint.wording import quoted

_MAX_SENSIBLE_DELAY_MICROSECONDS = 100_000
_DELAY = 1  # ModelQueuePolicy.TimeoutAction.DELAY


@rule(
    "L401",
    "info",
    title="only requests of equal shape are merged",
    explanation="The dynamic batcher never pads. Lengths 3, 3, 5, 3 run as 3 + 1.",
    hint="pad to a few bucket lengths, set `allow_ragged_batch`, or send many rows in one request",
)
def _merges_equal_shapes(s: LintSubject) -> Iterator[Problem]:
    if s.config.message.HasField("dynamic_batching") and s.config.max_batch_size > 1:
        variable = [t for t in s.config.inputs if -1 in t.dims and not t.ragged]
        if variable:
            names = quoted(t.name for t in variable)
            yield Problem(
                f"requests are merged only where {names} have equal shapes", s.tensor_line(variable[0], "dims")
            )


@rule(
    "L402",
    "error",
    title="a preferred batch size is impossible",
    explanation="Triton refuses preferred sizes below 1 or above `max_batch_size`.",
    hint="write sizes from 1 to `max_batch_size`, or none",
)
def _preferred_sizes(s: LintSubject) -> Iterator[Problem]:
    message = s.config.message
    for place, sizes in (
        (("dynamic_batching",), message.dynamic_batching.preferred_batch_size),
        (("sequence_batching", "oldest"), message.sequence_batching.oldest.preferred_batch_size),
    ):
        for size in sizes:
            if not 1 <= size <= s.config.max_batch_size:
                text = f"preferred batch size {size} is not between 1 and `max_batch_size`, {s.config.max_batch_size}"
                yield Problem(text, s.line(*place, "preferred_batch_size"))


@rule(
    "L403",
    "info",
    title="preferred batch sizes are for TensorRT profiles",
    explanation="Elsewhere they only make the batcher wait for sizes that are no faster.",
    hint="remove `preferred_batch_size`",
    scope="repository",
)
def _preferred_sizes_useful(s: LintSubject) -> Iterator[Problem]:
    if s.config.message.dynamic_batching.preferred_batch_size and s.backend not in ("tensorrt", ""):
        line = s.line("dynamic_batching", "preferred_batch_size")
        yield Problem(f"`preferred_batch_size` is written for the {s.backend} backend", line)


@rule(
    "L404",
    "warning",
    title="requests wait long for company",
    explanation=(
        "The delay is microseconds and is added to a lone request's latency. While an instance is busy, requests "
        "gather without any delay."
    ),
    hint="0 for interactive requests, 500 to 2000 for bulk",
)
def _queue_delay(s: LintSubject) -> Iterator[Problem]:
    delay = int(s.config.message.dynamic_batching.max_queue_delay_microseconds)
    if delay > _MAX_SENSIBLE_DELAY_MICROSECONDS:
        line = s.line("dynamic_batching", "max_queue_delay_microseconds")
        yield Problem(f"a request may wait {delay / 1000:.0f} ms for others", line)


@rule(
    "L405",
    "error",
    title="priority levels contradict each other",
    explanation="With `priority_levels` N, the default level and all policies are from 1 to N.",
    hint="write `default_priority_level` and the keys of `priority_queue_policy` between 1 and `priority_levels`",
)
def _priorities(s: LintSubject) -> Iterator[Problem]:
    batching = s.config.message.dynamic_batching
    levels, default = int(batching.priority_levels), int(batching.default_priority_level)
    line = s.line("dynamic_batching", "priority_levels")
    if levels and not 1 <= default <= levels:
        yield Problem(f"`default_priority_level` is {default}, `priority_levels` is {levels}", line)
    for level in sorted(batching.priority_queue_policy):
        if not 1 <= level <= levels:
            line = s.line("dynamic_batching", "priority_queue_policy")
            yield Problem(f"a queue policy for level {level}, while `priority_levels` is {levels}", line)


def _policies(s: LintSubject) -> Iterator[tuple[str, Any, tuple[str | int, ...]]]:
    """Queue policies with what they are called and where they stand."""
    batching = s.config.message.dynamic_batching
    if batching.HasField("default_queue_policy"):
        path = ("dynamic_batching", "default_queue_policy")
        yield "`default_queue_policy`", batching.default_queue_policy, path
    for index, level in enumerate(batching.priority_queue_policy):
        policy = batching.priority_queue_policy[level]
        yield f"the policy of level {level}", policy, ("dynamic_batching", "priority_queue_policy", index, "value")


@rule(
    "L406",
    "warning",
    title="a timeout action that never comes",
    explanation=(
        "Without `default_timeout_microseconds` and without `allow_timeout_override` no request ever times out."
    ),
    hint="write `default_timeout_microseconds`",
)
def _timeout_action(s: LintSubject) -> Iterator[Problem]:
    for name, policy, path in _policies(s):
        chosen = policy.timeout_action == _DELAY or s.config.lines.has(
            *(p for p in path if isinstance(p, str)), "timeout_action"
        )
        if chosen and not policy.default_timeout_microseconds and not policy.allow_timeout_override:
            yield Problem(f"{name} has a `timeout_action` and no timeout", s.line(*path, "timeout_action"))


@rule(
    "L407",
    "warning",
    title="a queue policy without a limit",
    explanation="Under overload memory and waiting times grow until clients give up, and their requests still run.",
    hint=(
        "write `max_queue_size: N`: further requests are then refused at once; or limit them in front of Triton, and "
        "write no policy"
    ),
)
def _bounded_queue(s: LintSubject) -> Iterator[Problem]:
    for name, policy, path in _policies(s):
        if not policy.max_queue_size:
            yield Problem(f"{name} has no `max_queue_size`, so the queue grows without limit", s.line(*path))


@rule(
    "L422",
    "warning",
    title="a queue policy beside several instances",
    explanation=(
        "With a limit or a timeout the batcher prepares nothing ahead and sometimes misses that an instance became "
        "idle: one request in twenty waited for another's run to end (measured with 24.10)."
    ),
    hint="limit requests in front of Triton, and remove `default_queue_policy`",
)
def _prepares_ahead(s: LintSubject) -> Iterator[Problem]:
    instances = sum(group.count for group in s.config.message.instance_group)
    for name, policy, path in _policies(s):
        limits = policy.max_queue_size or policy.default_timeout_microseconds or policy.allow_timeout_override
        if limits and instances > 1:
            yield Problem(f"{name} makes requests wait beside idle ones of {instances} instances", s.line(*path))
            return


@rule(
    "L408",
    "error",
    title="`preserve_ordering` excludes this",
    explanation="Triton refuses preserved order with several priority levels or with delayed requests.",
    hint="remove `preserve_ordering`",
)
def _ordering(s: LintSubject) -> Iterator[Problem]:
    batching = s.config.message.dynamic_batching
    if not batching.preserve_ordering:
        return
    if batching.priority_levels > 1:
        line = s.line("dynamic_batching", "priority_levels")
        yield Problem(f"`preserve_ordering` with {batching.priority_levels} priority levels", line)
    for name, policy, path in _policies(s):
        if policy.default_timeout_microseconds and policy.timeout_action == _DELAY:
            yield Problem(f"`preserve_ordering`, while {name} delays late requests", s.line(*path))


@rule(
    "L420",
    "warning",
    title="`preserve_ordering` has bugs before 26.09",
    explanation="Answers could be late or stuck; the batcher was mended in 26.08 and 26.09.",
    hint="remove `preserve_ordering`, or serve with 26.09 or newer",
    until=Release(26, 9),
)
def _ordering_bugs(s: LintSubject) -> Iterator[Problem]:
    if s.config.message.dynamic_batching.preserve_ordering:
        yield Problem("`preserve_ordering` is on", s.line("dynamic_batching", "preserve_ordering"))


@rule(
    "L409",
    "warning",
    title="the dynamic batcher has nothing to merge",
    explanation="Batches have at most `max_batch_size` rows.",
    hint="raise `max_batch_size`, or remove `dynamic_batching`",
)
def _batcher_works(s: LintSubject) -> Iterator[Problem]:
    if s.config.message.HasField("dynamic_batching") and s.config.max_batch_size <= 1:
        text = f"`dynamic_batching` merges nothing while `max_batch_size` is {s.config.max_batch_size}"
        yield Problem(text, s.line("dynamic_batching"))
