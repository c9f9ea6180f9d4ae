/**
 * A room as a `Tracker` keeps it.
 *
 * A room has a position, `{epoch, seq}`: everything up to it was yielded, is our own, or was reported as lost.
 * Above it there is a queue, in the order of `seq`, of
 *
 * - `message`: yielded when it is at the head of the queue of every room it counts in;
 * - `own`: the number of an own message, which the server does not send back;
 * - `mark`: all numbers below it have arrived;
 * - `gap`: a range that was not delivered. It is fetched when it is at the head, and all behind it waits. It
 *   is `isSupposed` if that is only guessed: what is not found of it was not said, or is on its way;
 * - `lost`: a range that cannot be fetched.
 */
import { weightOf } from './weight.js';

/** The number of a message in a room. */
export function seqIn(message, name) {
  return message.rooms?.find(({ room }) => room === name)?.seq ?? message.seq;
}

/**
 * Whether earlier messages than `seq`, whose number an answer has told, may still be on their way. They
 * come before later messages, but not before answers.
 */
export function isAhead({ seq: reached, queue }, seq) {
  return seq > reached + 1 && queue.every(({ kind }) => kind === 'own');
}

/** Whether something waits in `room` that must be yielded before its message `seq`. */
export function isBefore(room, seq) {
  const head = room.queue[0];
  return head !== undefined && !(head.kind === 'message' && head.seq === seq) && head.seq <= seq;
}

/** The highest number that is dealt with or waits. */
export function reach(seq, items) {
  return items.reduce((most, item) => Math.max(most, item.to ?? item.seq), seq);
}

/** The part of an item that is not above `seq`. */
export function upTo(item, seq) {
  if (!('to' in item) || item.to <= seq) return item;
  const known = item.known && new Map([...item.known].filter(([at]) => at <= seq));
  return { ...item, to: seq, ...(known ? { known } : {}) };
}

/** The rooms in which a message counts, if these are several. */
export function placesOf({ message, places }) {
  return places ?? message?.rooms;
}

/** What waits in `room` counts no more in room `name`, if its number there is above `seq`. */
export function forgetPlaces(room, name, seq) {
  const isGone = (place) => place.room === name && place.seq > seq;
  const change = (item) => {
    if (placesOf(item)?.some(isGone)) item.places = placesOf(item).filter((place) => !isGone(place));
  };
  for (const item of [...room.queue, ...room.spare.values()]) {
    change(item);
    if (item.kind === 'gap') for (const known of item.known.values()) change(known);
  }
}

export function held(room) {
  const gap = room.queue[0]?.kind === 'gap' ? room.queue[0].known.size : 0;
  return room.queue.length + gap;
}

/** The weight of all that a room holds. */
export function weigh(room) {
  const items = [...room.queue, ...room.spare.values()];
  for (const item of room.queue) if (item.kind === 'gap') items.push(...item.known.values());
  return items.reduce((sum, { message }) => sum + (message ? weightOf(message) : 0), 0);
}

export function inOrder(found) {
  return [...found.values()].sort((a, b) => a.seq - b.seq);
}

/** The messages found of `from..=to`, in order, with the ranges between them as lost. */
export function withHoles(found, from, to, reason) {
  const items = [];
  let next = from;
  const hole = (end) => {
    if (next <= end) items.push({ kind: 'lost', seq: next, from: next, to: end, reason });
  };
  for (const item of inOrder(found)) {
    hole(item.seq - 1);
    items.push(item);
    next = item.seq + 1;
  }
  hole(to);
  return items;
}
