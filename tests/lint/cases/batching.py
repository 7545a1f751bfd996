"""Rules on batching, queues, ragged inputs and warm-up."""

from __future__ import annotations

from lint.builders import identity_config, identity_graph, replaced
from lint.builds import copies
from lint.configs import GOOD_WARMUP, queue, ragged, warm_x
from lint.graphs import ragged_graph

from .case import Case, texts


def raggeds(bad: str, good: str | None = None) -> Case:
    return Case(copies(bad, ragged_graph()), copies(good or ragged(), ragged_graph()))


CASES: dict[str, Case] = {
    "L401": Case(
        copies(replaced(queue(), "dims: [ 4 ]", "dims: [ -1 ]"), identity_graph(("b", "n"), output=("b", 4))),
        copies(queue()),
    ),
    "L402": texts(queue("preferred_batch_size: [ 16 ]"), queue("preferred_batch_size: [ 8 ]")),
    "L403": texts(queue("preferred_batch_size: [ 8 ]"), queue()),
    "L404": texts(queue("max_queue_delay_microseconds: 500000"), queue("max_queue_delay_microseconds: 500")),
    "L405": texts(
        queue("priority_levels: 2 default_priority_level: 3"), queue("priority_levels: 2 default_priority_level: 2")
    ),
    "L406": texts(
        queue(policy="max_queue_size: 64 timeout_action: REJECT"),
        queue(policy="max_queue_size: 64 timeout_action: REJECT default_timeout_microseconds: 1000"),
    ),
    "L407": texts(queue(policy="default_timeout_microseconds: 1000"), queue(), line=8),
    "L408": texts(
        queue("preserve_ordering: true priority_levels: 2 default_priority_level: 1"),
        queue("preserve_ordering: true priority_levels: 1 default_priority_level: 1"),
    ),
    "L409": texts(replaced(queue(), "max_batch_size: 8", "max_batch_size: 1"), queue()),
    "L410": Case(copies(ragged(), ragged_graph(("b", "t"))), copies(ragged(), ragged_graph())),
    "L411": raggeds(ragged(batch_input="")),
    "L412": raggeds(ragged(more_input="optional: true")),
    "L413": raggeds(replaced(ragged(), "TYPE_INT32", "TYPE_INT64")),
    "L414": raggeds(replaced(ragged(), 'source_input: "x"', 'source_input: "nobody"')),
    "L415": raggeds(replaced(ragged(), 'target_name: "n"', 'target_name: [ "n", "m" ]')),
    "L416": raggeds(
        ragged(inputs='batch_output [ { kind: BATCH_SCATTER_WITH_INPUT_SHAPE target_name: "z" source_input: "x" } ]'),
        ragged(inputs='batch_output [ { kind: BATCH_SCATTER_WITH_INPUT_SHAPE target_name: "y" source_input: "x" } ]'),
    ),
    "L417": raggeds(ragged(batching=False)),
    "L418": texts(warm_x("data_type: TYPE_FP32 dims: [ 5 ] zero_data: true"), GOOD_WARMUP),
    "L419": texts(warm_x("data_type: TYPE_FP32 dims: [ 4 ] zero_data: true", 9), GOOD_WARMUP),
    "L420": texts(
        queue("preserve_ordering: true"), queue("preserve_ordering: true"), triton="26.08", good_triton="26.09"
    ),
    "L421": texts(warm_x("data_type: TYPE_FP32 dims: [ 4 ] zero_data: true", 0), GOOD_WARMUP),
    "L422": texts(
        identity_config(
            more="dynamic_batching { default_queue_policy { max_queue_size: 64 } }",
            group="instance_group [ { kind: KIND_CPU count: 2 } ]",
        ),
        identity_config(more="dynamic_batching { }", group="instance_group [ { kind: KIND_CPU count: 2 } ]"),
    ),
    "L606": Case(
        copies(warm_x('data_type: TYPE_FP32 dims: [ 4 ] input_data_file: "x.bin"')),
        lambda r: r.add(
            "copy",
            warm_x('data_type: TYPE_FP32 dims: [ 4 ] input_data_file: "x.bin"'),
            identity_graph(),
            files={"warmup/x.bin": bytes(16)},
        ),
    ),
}
