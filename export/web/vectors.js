/** The little algebra that the decision needs, in float64. */

export function dot(a, b) {
  let total = 0;
  for (let i = 0; i < a.length; i++) total += a[i] * b[i];
  return total;
}

/** The vector at length 1. */
export function unit(vector) {
  const length = Math.sqrt(dot(vector, vector));
  return Float64Array.from(vector, (value) => value / length);
}

export function sum(numbers) {
  return numbers.reduce((a, b) => a + b, 0);
}

/** The middle one by size; the mean of two where there is no middle. */
export function median(numbers) {
  const sorted = Float64Array.from(numbers).sort();
  const half = sorted.length >> 1;
  return sorted.length % 2 ? sorted[half] : (sorted[half - 1] + sorted[half]) / 2;
}

/** Positive numbers that add up to 1, in the proportions of the exponentials. */
export function softmax(scores) {
  return logSoftmax(scores).map(Math.exp);
}

export function logSoftmax(scores) {
  const most = Math.max(...scores);
  const logTotal = Math.log(sum(scores.map((score) => Math.exp(score - most))));
  return scores.map((score) => score - most - logTotal);
}
