/** Adds to a set that forgets its oldest value beyond `max`. */
export function addBounded(set, value, max) {
  set.add(value);
  if (set.size > max) set.delete(set.values().next().value);
}
