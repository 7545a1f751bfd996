// Asks for the report every few seconds while somebody looks, and says so when nothing comes.

import { call, key } from "./api.js";
import * as box from "./box.js";
import { $ } from "./dom.js";
import { overview } from "./overview.js";

const everyMs = () => Number(document.documentElement.dataset.everyMs);
let timer = null;
let asking = false;
let answeredAt = null;

function health(kind, text) {
  if ($("health").textContent === text) return;
  $("health").className = `state ${kind}`;
  $("health").textContent = text;
}

function healthOf(report) {
  if (report.phase !== "serving") return ["wait", "◑ This server is leaving"];
  if (report.ready) return ["good", "● Ready"];
  return report.models.some((model) => model.state === "failed") ? ["bad", "✕ Not ready"] : ["wait", "◐ Not ready yet"];
}

function needKey(error) {
  const mine = key.get() !== null;
  $("keyform").hidden = false;
  $("forget").hidden = true;
  $("keywhy").textContent = mine ? error.message : "This server asks for an API key. It needs the verb models; metrics for numbers.";
  health("wait", "An API key is needed");
  if (!mine) $("key").focus();
}

async function ask() {
  if (asking) return;
  asking = true;
  clearTimeout(timer);
  let wait = everyMs();
  try {
    const { said } = await call("v1/status", null, { timeout: 10000 });
    answeredAt = new Date().toLocaleTimeString();
    $("keyform").hidden = true;
    $("forget").hidden = key.get() === null;
    document.body.classList.remove("stale");
    overview(said);
    $("try").hidden = $("more").hidden = !said.api;
    box.offer(said.models);
    health(...healthOf(said));
  } catch (error) {
    wait = refused(error);
  }
  asking = false;
  if (!document.hidden && wait) timer = setTimeout(ask, wait);
}

/** Say what is wrong; how many milliseconds later to ask again, 0 for not by itself. */
function refused(error) {
  if (error.status === 401 || error.status === 403) {
    needKey(error);
    return 0;
  }
  if (error.status === undefined) throw error;
  const since = answeredAt === null ? "" : `; what is below is from ${answeredAt}`;
  health("bad", `✕ ${error.message}${since}`);
  document.body.classList.add("stale");
  return Math.max(everyMs(), 1000 * error.retryAfter);
}

document.addEventListener("visibilitychange", () => {
  clearTimeout(timer);
  if (!document.hidden) ask();
});
$("keyform").addEventListener("submit", (event) => {
  event.preventDefault();
  key.set($("key").value.trim());
  $("key").value = "";
  ask();
});
$("forget").firstElementChild.addEventListener("click", () => {
  key.forget();
  location.reload();
});
box.start();
ask();
