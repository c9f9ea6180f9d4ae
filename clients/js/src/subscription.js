/**
 * One room for all its users in the program: joined for the first of them, left after the last.
 *
 * A user is a `Room`, by what it gives to `enter`: `wantsPresence`, `message(message)`,
 * `event(name, event)`, `entered()` and `ended(error)`, the error being `null` if nothing went
 * wrong. The client is known by `link`; see `Rooms`.
 */
import { RustySocksError } from './errors.js';
import { Members } from './members.js';
import { boundWait, settleable } from './wait.js';

export class Subscription {
  #name;
  #link;
  #forget;
  #users = new Set();
  // Calls of `enter` that wait: `{user, resolve, reject}`.
  #waiters = new Set();
  // Calls of `leave` that wait until the server has let go of the room.
  #leavers = [];
  // `out`, `joining` or `in`.
  #phase = 'out';
  // Whether the client is in the room because of us: then it leaves after the last user.
  #isOurs = false;
  // The join under way: `{abort, isWithdrawn}`.
  #join = null;
  // The timers until the room is left, and until its members are not watched any more.
  #linger = null;
  #unwatching = null;
  #members = null;
  // Whether the server sends the changes of members.
  #isWatched = false;
  #wasWatched = false;
  // The command under way that begins or ends this.
  #asking = null;
  #isTelling = false;

  /** `forget()` is called when there is nothing left to keep. */
  constructor(name, link, forget) {
    this.#name = name;
    this.#link = link;
    this.#forget = forget;
  }

  get members() {
    return this.#members;
  }

  get isIn() {
    return this.#phase === 'in';
  }

  /** Begins what a user gets of the room, and gives a promise of where it begins. */
  enter(user, options) {
    this.#users.add(user);
    this.#link.clock.clearTimeout(this.#linger);
    this.#linger = null;
    for (const resolve of this.#leavers.splice(0)) resolve();
    const waiter = { user, ...settleable() };
    const { timeoutMs, signal } = options;
    const end = (makeError) => this.#giveUp(waiter, makeError(false));
    boundWait(waiter, { timeoutMs, signal, clock: this.#link.clock, end });
    this.#waiters.add(waiter);
    if (this.#phase === 'out' && this.#link.isIn(this.#name)) this.#phase = 'in';
    if (this.#phase === 'out') this.#begin(options);
    this.#look();
    return waiter.promise;
  }

  /** Ends what a user gets. Settles when the room is left, or at once while there are other users. */
  leave(user) {
    if (!this.#users.delete(user)) return Promise.resolve();
    this.#reject((waiter) => waiter.user === user, leftBefore(this.#name));
    if (this.#users.size > 0) {
      this.#look();
      return Promise.resolve();
    }
    // Others may come within the turn, or a little later: a part of a page that is made anew.
    return new Promise((resolve) => {
      this.#leavers.push(resolve);
      this.#linger = this.#later(() => this.#end());
    });
  }

  message(message) {
    for (const user of [...this.#users]) if (this.#users.has(user)) user.message(message);
  }

  /** Takes an event of the client that names this room. */
  event(name, event) {
    if (name === 'presence') {
      // Of the program's own question, perhaps, and then not for us.
      if (!this.#wantsPresence() && !this.#isWatched && !this.#wasWatched) return;
      this.#isWatched = true;
      this.#members = new Members(event, this.#link.membersMax);
    } else if (name === 'joined' || name === 'left') {
      if (!this.#members) return;
      this.#members[name](event);
    }
    if (name !== 'presence') this.#tell(name, event);
    if (name !== 'lost') this.#membersChanged();
  }

  /**
   * The client is not in the room any more: it was left by name, or the server has excluded it.
   * Calls that wait are rejected with `reason`.
   */
  ended(error, reason = error ?? new RustySocksError('left', `the room ${this.#name} was left`)) {
    if (this.#phase === 'out') return;
    this.#reset();
    this.#reject(() => true, reason);
    for (const resolve of this.#leavers.splice(0)) resolve();
    const users = [...this.#users];
    this.#users.clear();
    for (const user of users) user.ended(error);
    this.#drop();
  }

  /** There is a session again; the members of what it watches are told before it is restored. */
  sessionBegan() {
    this.#wasWatched ||= this.#isWatched;
    this.#isWatched = false;
  }

  /** The session is restored. */
  live() {
    this.#wasWatched = false;
    this.#look();
  }

  #begin(options) {
    const join = { abort: new AbortController(), isWithdrawn: false };
    this.#join = join;
    this.#phase = 'joining';
    const { since, sender } = options;
    const presence = this.#wantsPresence() ? true : undefined;
    this.#link
      .join(this.#name, { since, sender, presence, signal: join.abort.signal }, {
        // Called before the next frame is read, so that no change of the members is missed.
        joined: (answer, isOurs) => this.#joined(join, answer, isOurs),
        withdrawn: () => {
          join.isWithdrawn = true;
        },
      })
      .catch((error) => this.#join === join && this.ended(error));
  }

  #joined(join, answer, isOurs) {
    if (this.#join !== join) return answer;
    this.#join = null;
    this.#phase = 'in';
    this.#isOurs = isOurs;
    if (answer.members) {
      this.#isWatched = true;
      this.#members = new Members(answer, this.#link.membersMax);
      this.#membersChanged();
    }
    this.#look(answer);
    return answer;
  }

  /** Begins or ends watching, and settles what waited for the room. */
  #look(answer) {
    if (this.#phase !== 'in') return;
    const isWanted = this.#wantsPresence();
    if (isWanted && !this.#isWatched && this.#asking === null) this.#watch(true);
    else if (!isWanted && this.#isWatched) this.#unwatchSoon();
    for (const waiter of [...this.#waiters]) {
      // A listener may have left the room.
      if (!this.#isSettled(waiter.user) || !this.#waiters.delete(waiter)) continue;
      waiter.user.entered();
      const place = { ...this.#link.position(this.#name), ...this.#listed(waiter.user) };
      waiter.resolve({ ...place, recovered: answer?.recovered ?? false });
    }
  }

  /** Whether a user has what it asked for. */
  #isSettled(user) {
    return this.#phase === 'in' && !(user.wantsPresence && this.#members === null);
  }

  #listed({ wantsPresence }) {
    return wantsPresence ? { members: [...this.#members.list], count: this.#members.count } : {};
  }

  /** Ends watching, unless somebody wants it again within the time for which a room is kept. */
  #unwatchSoon() {
    if (this.#unwatching !== null) return;
    this.#unwatching = this.#later(() => {
      this.#unwatching = null;
      const isDue = this.#phase === 'in' && this.#isWatched && this.#asking === null && this.#users.size > 0;
      if (isDue && !this.#wantsPresence()) this.#watch(false);
    });
  }

  /** Runs what is due when a room has been kept for as long as it may. */
  #later(run) {
    return this.#link.clock.setTimeout(run, this.#link.lingerMs);
  }

  #watch(isOn) {
    const asking = {};
    this.#asking = asking;
    const watched = (answer) => {
      if (this.#asking !== asking) return;
      this.#asking = null;
      this.#isWatched = isOn;
      this.#members = isOn ? new Members(answer, this.#link.membersMax) : null;
      this.#membersChanged();
      this.#look();
    };
    this.#link.watch(this.#name, isOn, watched).catch((error) => {
      if (this.#asking !== asking) return;
      this.#asking = null;
      // Without the right to watch, those who asked for it are out, and the others stay.
      const users = isOn ? [...this.#users].filter(({ wantsPresence }) => wantsPresence) : [];
      this.#reject(({ user }) => users.includes(user), error);
      for (const user of users) user.ended(error);
    });
  }

  #wantsPresence() {
    return [...this.#users].some(({ wantsPresence }) => wantsPresence);
  }

  /** A call of `enter` is not waited for any more. */
  #giveUp(waiter, error) {
    if (!this.#waiters.delete(waiter)) return;
    waiter.reject(error);
    const isWaitedFor = [...this.#waiters].some(({ user }) => user === waiter.user);
    if (!isWaitedFor && !this.#isSettled(waiter.user)) waiter.user.ended(error);
  }

  /** There has been no user for a while. */
  #end() {
    const leavers = this.#leavers.splice(0);
    const done = () => leavers.forEach((resolve) => resolve());
    const [join, wasIn] = [this.#join, this.#phase === 'in'];
    const mustLeave = wasIn ? this.#isOurs : join !== null;
    const isWatched = wasIn && this.#isWatched && !this.#isOurs;
    this.#reset();
    this.#drop();
    join?.abort.abort();
    if (mustLeave && !join?.isWithdrawn) this.#link.leave(this.#name).then(done, done);
    else if (isWatched) this.#link.watch(this.#name, false, () => {}).then(done, done);
    else done();
  }

  #reset() {
    this.#link.clock.clearTimeout(this.#linger);
    this.#link.clock.clearTimeout(this.#unwatching);
    this.#linger = null;
    this.#unwatching = null;
    this.#asking = null;
    this.#join = null;
    this.#phase = 'out';
    this.#isOurs = false;
    this.#isWatched = false;
    this.#wasWatched = false;
    this.#members = null;
  }

  #drop() {
    if (this.#users.size === 0 && this.#linger === null) this.#forget();
  }

  #reject(matches, error) {
    for (const waiter of [...this.#waiters]) {
      if (!matches(waiter)) continue;
      this.#waiters.delete(waiter);
      waiter.reject(error);
    }
  }

  #tell(name, event) {
    const isPresence = name === 'joined' || name === 'left';
    for (const user of [...this.#users]) {
      if (this.#users.has(user) && (!isPresence || user.wantsPresence)) user.event(name, event);
    }
  }

  /** Told once for all changes of a turn. */
  #membersChanged() {
    if (this.#isTelling) return;
    this.#isTelling = true;
    queueMicrotask(() => {
      this.#isTelling = false;
      if (!this.#members) return;
      const { list, count } = this.#members;
      for (const user of [...this.#users]) if (user.wantsPresence) user.event('members', { members: list, count });
    });
  }
}

/** The error of a `join` that is overtaken by `leave`. */
export function leftBefore(name) {
  return new RustySocksError('left', `the room ${name} was left before it was joined`);
}
