// What the report says, as tables.

import { $, bytes, duration, el, number, show, table } from "./dom.js";

const STATES = { loaded: ["good", "●"], loading: ["wait", "◐"], unloading: ["wait", "◑"], failed: ["bad", "✕"] };

function state(model) {
  const [kind, mark] = STATES[model.state] ?? ["", "○"];
  const word = el("span", { class: `state ${kind}` }, el("span", { "aria-hidden": "true" }, `${mark} `), model.state);
  const failure = model.last_error;
  if (!failure) return word;
  const often = failure.permanent ? "not tried again" : `tried ${number(failure.attempts)} times`;
  return [word, el("p", { class: "why" }, `${failure.message} (${often})`)];
}

function close(model) {
  const found = model.closeness;
  if (!found) return "–";
  const said = found.min_cosine == null ? `within ${found.max_abs.toExponential(1)}` : found.min_cosine.toFixed(6);
  return el("span", { title: `worst of ${found.cases} cases, compared with ${found.implementation}` }, said);
}

function outputs(model) {
  return model.outputs.map((output) => (model.dims[output] ? `${output} ${model.dims[output]}` : output)).join(", ");
}

function models(report) {
  const traffic = report.numbers !== null;
  const columns = [
    ["Model", ""], ["State", ""], ["Output", ""], ["Precision", ""], ["Worst cosine", "number"],
    ...(traffic ? [["Requests/s", "number"], ["p95 ms", "number"], ["Memory", "number"]] : []),
  ];
  const rows = report.models.map((model) => [
    model.id, state(model), outputs(model), model.precision ?? "–", close(model),
    ...(traffic ? [number(model.traffic.requests_per_s), number(model.traffic.p95_ms), bytes(model.memory_bytes)] : []),
  ]);
  const loaded = report.models.filter((model) => model.loaded).length;
  return table(`${number(loaded)} of ${number(rows.length)} loaded`, columns, rows);
}

function tiles(numbers) {
  const { traffic } = numbers;
  const memory = numbers.memory_budget_bytes ? ` of ${bytes(numbers.memory_budget_bytes)}` : "";
  return [
    ["Requests/s", number(traffic.requests_per_s)], ["Texts or images/s", number(traffic.items_per_s)],
    ["Tokens/s", number(traffic.tokens_per_s, 0)],
    ["p50", number(traffic.p50_ms), " ms"], ["p95", number(traffic.p95_ms), " ms"],
    ["Answers 5xx/s", number(traffic.failures_per_s, 2)],
    ["Being answered", number(numbers.inflight_requests), " requests"],
    ["Queue", number(numbers.pending_items), ` of ${number(numbers.pending_items_limit)} items`],
    ["Memory of models", bytes(numbers.memory_bytes), memory],
  ].map(([name, value, unit]) => el("div", {}, el("dt", {}, name), el("dd", {}, value, unit && el("small", {}, unit))));
}

function errors(numbers) {
  return table(
    "The last one of each kind, with its message if the log has it, too",
    [["Kind", ""], ["Status", "number"], ["Within the window", "number"], ["In all", "number"], ["Last", ""], ["Message", ""]],
    numbers.errors.map((one) => [
      one.kind, one.status, number(one.recent), number(one.total),
      one.last_s == null ? "–" : `${duration(one.last_s)} ago`, one.message ?? "–",
    ]),
  );
}

function replicas(numbers, report) {
  const idle = report.load === "on-demand" && !report.models.some((model) => model.loaded);
  const [kind, none] = idle ? ["", "○ nothing is loaded"] : ["bad", "✕ answers for no model"];
  return table(
    "Tritons that this frontend asks",
    [["Triton", ""], ["State", ""], ["Runs", "number"]],
    numbers.replicas.map((one) => [
      one.url,
      el("span", { class: `state ${one.serves ? "good" : kind}` }, one.serves ? "● answers" : none),
      number(one.runs),
    ]),
  );
}

export function overview(report) {
  const { numbers } = report;
  $("about").textContent =
    `${report.version}, contract ${report.contract}, on ${report.device}, up for ${duration(report.uptime_s)}`;
  show($("models"), models(report));
  show($("tiles"), ...(numbers ? tiles(numbers) : []));
  $("method").textContent = numbers
    ? `Means of the last ${duration(numbers.window_s)}; p50 and p95 are read from the histogram of all answers.`
    : "Numbers are for whoever may read metrics: a key with the verb metrics, or the port of their own.";
  for (const [name, shown, make] of [["replicas", numbers, replicas], ["errors", numbers?.errors.length, errors]]) {
    $(`${name}-part`).hidden = !shown;
    show($(name), ...(shown ? [make(numbers, report)] : []));
  }
}
