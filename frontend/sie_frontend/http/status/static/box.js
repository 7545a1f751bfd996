// The box: texts and images to a model, and what comes back. Similarities are computed here.

import { call, path } from "./api.js";
import { $, el, number, show, table } from "./dom.js";
import { heaviest, MEASURES, norm } from "./vectors.js";

const LOADING_TRIES = 60;
let known = [];
let running = false;

const chosen = () => known.find((model) => model.id === $("model").value);

function options(select, values, wanted) {
  if ([...select.options].map((one) => one.value).join("\n") === values.join("\n")) return;
  select.replaceChildren(...values.map((value) => el("option", { value }, value)));
  if (values.includes(wanted)) select.value = wanted;
}

/** Offer these models; what is chosen stays chosen. */
export function offer(models) {
  known = models;
  options($("model"), models.map((model) => model.id), $("model").value);
  adapt();
}

function adapt() {
  const model = chosen();
  options($("output"), model?.outputs ?? [], $("output").value);
  $("picking").hidden = !model?.inputs.includes("image");
  $("go").disabled = running || !model;
}

async function base64(file) {
  const data = new Uint8Array(await file.arrayBuffer());
  let text = "";
  for (let at = 0; at < data.length; at += 32768) text += String.fromCharCode(...data.subarray(at, at + 32768));
  return btoa(text);
}

async function items() {
  const texts = $("texts").value.split("\n").map((line) => line.trim()).filter(Boolean);
  const files = $("picking").hidden ? [] : [...$("images").files];
  const pictures = await Promise.all(files.map(async (file) => ({ images: [{ data: await base64(file) }] })));
  return { labels: [...texts, ...files.map((file) => file.name)], items: [...texts.map((text) => ({ text })), ...pictures] };
}

/** Ask again for as long as the model is being loaded. */
async function patiently(route, model, body) {
  for (let left = LOADING_TRIES; ; left--) {
    try {
      return await call(path(route, model), body);
    } catch (error) {
      if (error.code !== "MODEL_LOADING" || !left) throw error;
      say(`${error.message}. It is asked again in ${error.retryAfter || 5} s.`);
      await new Promise((go) => setTimeout(go, 1000 * (error.retryAfter || 5)));
    }
  }
}

function say(text, kind = "") {
  $("said").className = kind;
  $("said").textContent = text;
}

function digits(values, count = 8) {
  const shown = Array.from(values.slice(0, count), (value) => value.toFixed(4)).join("  ");
  return el("span", { class: "digits" }, shown + (values.length > count ? "  …" : ""));
}

const DESCRIBED = {
  dense: (value) => [`${number(value.values.length)} numbers, norm ${norm(value.values).toFixed(4)}`, digits(value.values)],
  sparse: (value) => [
    `${number(value.indices.length)} weights that are not zero; the heaviest token ids`,
    el("span", { class: "digits" }, heaviest(value, 10).map(([index, weight]) => `${index}: ${weight.toFixed(3)}`).join("  ")),
  ],
  multivector: (value) => [
    `${number(value.values.length)} vectors of ${number(value.values[0]?.length ?? 0)} numbers; the first`,
    digits(value.values[0] ?? []),
  ],
};

function described(labels, values, output) {
  const rows = labels.map((label, at) => {
    const [shape, first] = DESCRIBED[output](values[at][output]);
    return [label, shape, first];
  });
  return table("What came back", [["Text or image", ""], ["Shape", ""], ["Numbers", ""]], rows);
}

function ranked(caption, labels, scores, measure) {
  const order = scores.map((score, at) => [score, at]).sort((a, b) => b[0] - a[0] || a[1] - b[1]);
  const [best, worst] = [order[0][0], Math.min(0, order.at(-1)[0])];
  const rows = order.map(([score, at], rank) => {
    const bar = el("div", { class: "bar" }, score.toFixed(4));
    bar.style.setProperty("--share", best > worst ? (score - worst) / (best - worst) : 1);
    return [number(rank + 1), labels[at], bar];
  });
  return table(caption, [["Rank", ""], ["Text or image", ""], [measure, "number"]], rows);
}

const took = (ms) => say(ms == null ? "Done." : `Done: the server took ${number(ms)} ms.`);

async function score(model, query, labels, all) {
  if (!query) throw new Error("A model that scores needs a query");
  const { said, ms } = await patiently("score", model, { query: { text: query }, items: all });
  const scores = new Array(labels.length);
  for (const one of said.scores) scores[Number(one.item_id.slice("item-".length))] = one.score;
  took(ms);
  show($("result"), ranked(`Scores for “${query}”`, labels, scores, "Score"));
}

async function encode(model, output, query, labels, all) {
  const ask = (items, extra) => patiently("encode", model, { items, params: { output_types: [output], ...extra } });
  const asked = query ? await ask([{ text: query }], { options: { is_query: true } }) : null;
  const { said, ms } = all.length ? await ask(all) : { said: { items: [] }, ms: asked.ms };
  const values = said.items;
  const parts = [];
  const [measure, alike] = MEASURES[output];
  if (values.length > 1 || (asked && values.length)) {
    const first = asked ? asked.said.items[0][output] : values[0][output];
    const scores = values.map((value) => alike(first, value[output]));
    const title = asked ? `Neighbours of “${query}”` : `Neighbours of the first one, “${labels[0]}”`;
    parts.push(ranked(title, labels, scores, measure));
  }
  const [names, found] = asked ? [[query, ...labels], [asked.said.items[0], ...values]] : [labels, values];
  took(ms);
  show($("result"), ...parts, described(names, found, output));
}

async function run(event) {
  event.preventDefault();
  if (running) return;
  const [model, output, query] = [$("model").value, $("output").value, $("query").value.trim()];
  running = true;
  adapt();
  say("Computing …");
  show($("result"));
  try {
    const { labels, items: all } = await items();
    if (!all.length && (output === "score" || !query)) throw new Error("There is no text yet");
    await (output === "score" ? score(model, query, labels, all) : encode(model, output, query, labels, all));
  } catch (error) {
    say(error.message, "bad");
  } finally {
    running = false;
    adapt();
  }
}

export function start() {
  $("box").addEventListener("submit", run);
  $("model").addEventListener("change", adapt);
}
