// How alike two values are, as clients compute it.

export function dot(a, b) {
  let sum = 0;
  for (let at = 0; at < a.length; at++) sum += a[at] * b[at];
  return sum;
}

export function norm(a) {
  return Math.sqrt(dot(a, a));
}

/** Of two dense vectors; 0 where one has no direction. */
export function cosine(a, b) {
  const size = norm(a) * norm(b);
  return size ? dot(a, b) / size : 0;
}

/** Of two sparse vectors, `{indices, values}` in any order. */
export function sparseDot(a, b) {
  const weights = new Map(a.indices.map((index, at) => [index, a.values[at]]));
  return b.indices.reduce((sum, index, at) => sum + (weights.get(index) ?? 0) * b.values[at], 0);
}

/** MaxSim: for each vector of the query the best of the document, summed. */
export function maxSim(query, document) {
  if (!document.length) return 0;
  return query.reduce((sum, a) => sum + document.reduce((best, b) => Math.max(best, dot(a, b)), -Infinity), 0);
}

/** The heaviest entries of a sparse vector, as [index, weight]. */
export function heaviest(sparse, count) {
  return sparse.indices.map((index, at) => [index, sparse.values[at]]).sort((a, b) => b[1] - a[1]).slice(0, count);
}

/** By output type: the measure's name, and the measure of two values as the API gives them. */
export const MEASURES = {
  dense: ["cosine", (query, other) => cosine(query.values, other.values)],
  sparse: ["dot product", sparseDot],
  multivector: ["MaxSim", (query, other) => maxSim(query.values, other.values)],
};
