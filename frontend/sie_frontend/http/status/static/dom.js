// Elements out of values. Text goes in as text, never as markup: nothing here parses HTML.

export const $ = (id) => document.getElementById(id);

/** An element of a tag with attributes; children are nodes or what becomes text. Null is left out. */
export function el(tag, attributes = {}, ...children) {
  const found = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) if (value != null) found.setAttribute(name, value);
  for (const child of children) if (child != null) found.append(child instanceof Node ? child : String(child));
  return found;
}

/**
 * A table whose cells know their column, so that a narrow screen can show each row as a card. The roles are said, since
 * some browsers take them away with the display.
 */
export function table(caption, columns, rows) {
  const head = columns.map(([label, kind]) => el("th", { scope: "col", role: "columnheader", class: kind }, label));
  const body = rows.map((cells) => el("tr", { role: "row" }, ...cells.map((cell, at) => at === 0
    ? el("th", { scope: "row", role: "rowheader" }, ...[cell].flat())
    : el("td", { role: "cell", class: columns[at][1], "data-label": columns[at][0] }, ...[cell].flat()))));
  return el("table", { role: "table" }, el("caption", {}, caption),
    el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ...head)), el("tbody", { role: "rowgroup" }, ...body));
}

/** Show new children where something changed, so that a reader is not told the same again. */
export function show(place, ...children) {
  const next = children.flat().filter((child) => child != null);
  const same = next.length === place.childNodes.length && next.every((node, at) => node.isEqualNode(place.childNodes[at]));
  if (!same) place.replaceChildren(...next);
}

export function number(value, digits = 1) {
  return value == null ? "–" : value.toLocaleString("en", { maximumFractionDigits: digits });
}

export function bytes(value) {
  return value == null ? "–" : value >= 1e9 ? `${number(value / 1e9, 2)} GB` : `${number(value / 1e6, 0)} MB`;
}

export function duration(seconds) {
  if (seconds < 90) return `${number(seconds, 0)} s`;
  if (seconds < 5400) return `${number(seconds / 60, 0)} min`;
  return seconds < 172800 ? `${number(seconds / 3600)} h` : `${number(seconds / 86400)} d`;
}
