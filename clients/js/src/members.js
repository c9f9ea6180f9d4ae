/** The members of a room that is watched: a list from the server, and what changed since. */

export class Members {
  #byId = new Map();
  #count = 0;
  #max;
  // The list as it is given out, until the next change.
  #list = null;

  /** At most `max` members are listed; `count` counts the others too. */
  constructor({ members, count }, max) {
    this.#max = max;
    for (const { client_id, sender, user } of members) this.#put(client_id, sender, user);
    this.#count = Number.isSafeInteger(count) ? Math.max(count, this.#byId.size) : this.#byId.size;
  }

  get count() {
    return this.#count;
  }

  /** The members, in a list that never changes: another one is made after a change. */
  get list() {
    this.#list ??= Object.freeze([...this.#byId.values()]);
    return this.#list;
  }

  joined({ client_id, sender, user }) {
    // A name that is known already has joined once, whatever is said.
    if (!this.#byId.has(client_id)) this.#count += 1;
    this.#put(client_id, sender, user);
    this.#list = null;
  }

  left({ client_id }) {
    // One that is not listed counts too, as long as there are members that are not.
    const isListed = this.#byId.delete(client_id);
    if (isListed || this.#count > this.#byId.size) this.#count -= 1;
    this.#list = null;
  }

  #put(client_id, sender, user) {
    const isKnown = this.#byId.has(client_id);
    if (!isKnown && this.#byId.size >= this.#max) return;
    const member = { client_id };
    if (sender !== undefined) member.sender = sender;
    if (user !== undefined) member.user = user;
    this.#byId.set(client_id, Object.freeze(member));
  }
}
