/** A `Retry-After` in seconds or as a date (RFC 9110 section 10.2.3), in milliseconds. */
export function retryAfter(value, now = Date.now()) {
  if (value === undefined || value === null) return undefined;
  if (/^\d+$/.test(value)) return Number(value) * 1000;
  const at = Date.parse(value);
  return Number.isNaN(at) ? undefined : Math.max(0, at - now);
}
