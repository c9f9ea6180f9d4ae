/**
 * The size of waiting messages: the length of their text.
 *
 * To weigh each as it comes and goes would cost every message; so all that wait are weighed at
 * once, each time that a part of the bound has come in.
 */
export class Weight {
  #max;
  #since = 0;

  constructor(max) {
    this.#max = max;
  }

  /** Takes note of `bytes` that have come in, and says whether it is time to weigh what waits. */
  isDue(bytes) {
    this.#since += bytes;
    if (this.#since < this.#max / 4) return false;
    this.#since = 0;
    return true;
  }
}

const weights = new WeakMap();

export function weightOf(message) {
  let weight = weights.get(message);
  if (weight === undefined) {
    weight = JSON.stringify(message).length;
    weights.set(message, weight);
  }
  return weight;
}
