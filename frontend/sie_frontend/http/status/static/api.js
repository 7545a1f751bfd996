// Calls of this server, and of no other. The key is kept for this tab alone.

const KEY = "sie-triton-key";

export const key = {
  get: () => sessionStorage.getItem(KEY),
  set: (value) => sessionStorage.setItem(KEY, value),
  forget: () => sessionStorage.removeItem(KEY),
};

/** What the server refused, with its status and code; status 0 where it did not answer. */
export class Refused extends Error {
  constructor(status, code, message, retryAfter = 0) {
    super(message);
    Object.assign(this, { status, code, retryAfter });
  }
}

/** A JSON answer. Throws Refused. */
export async function call(path, body, { timeout = 120000 } = {}) {
  const headers = { Accept: "application/json" };
  const mine = key.get();
  if (mine) headers.Authorization = `Bearer ${mine}`;
  if (body) headers["Content-Type"] = "application/json";
  let answer, text;
  try {
    answer = await fetch(path, {
      method: body ? "POST" : "GET", headers, body: body && JSON.stringify(body), signal: AbortSignal.timeout(timeout),
      credentials: "omit", cache: "no-store", redirect: "error", referrerPolicy: "no-referrer",
    });
    text = await answer.text();
  } catch (error) {
    throw new Refused(0, null, error.name === "TimeoutError" ? "The server takes too long" : "The server does not answer");
  }
  let said = null;
  try { said = JSON.parse(text); } catch { /* a proxy may say something else */ }
  if (answer.ok && said !== null) return { said, ms: Number(answer.headers.get("x-total-time")) || null };
  const detail = said?.detail ?? {};
  const message = detail.message ?? (typeof detail === "string" ? detail : `The server answered ${answer.status}`);
  throw new Refused(answer.status, detail.code ?? null, String(message), Number(answer.headers.get("retry-after")) || 0);
}

/** The path of a model's route; an id may hold slashes. */
export function path(route, model) {
  return `v1/${route}/${model.split("/").map(encodeURIComponent).join("/")}`;
}
