/**
 * Who is logged in: log-in, registration, silent renewal, log-out. Token and action secret are kept in memory only. The
 * refresh token is in a cookie that no script sees (outside a browser: in memory, too). `localStorage` holds the user's
 * id: it marks a session and tells other tabs of a change. Event: change. Loaded by scoreboard.js at the first log-in,
 * which hands in `ask`.
 *
 * @import { Credentials, Session } from './scoreboard.js'
 * @typedef {typeof import('./scoreboard.js').ask} Ask
 */
import { Refused, submit } from './actions.js';

const MARK_KEY = 'scoreboard:user';
const DEVICE_KEY = 'scoreboard:device';
const DEVICE_KEY_BYTES = 24; // 192 random bits: 48 characters
const LOCK_NAME = 'scoreboard:session';
const RENEW_AHEAD = 60_000; // ms; a token is renewed this long before its end
const RENEW_RETRY_DELAY = 5_000; // ms after a renewal that got no answer
const CLOCK_TOLERANCE = 5_000; // ms that the clock may be wrong
const REFRESH_RETRY_DELAY = 1_000; // ms until a refresh whose answer was lost is repeated with the same token
// Of one renewal. Each waits ANSWER_TIMEOUT of scoreboard.js: all end within the server's grace for a used token.
const MAX_REFRESH_ATTEMPTS = 3;
const LOCK_TIMEOUT = 20_000; // ms; more than any answer takes: a tab that holds the lock longer is frozen

/**
 * The user's id in `localStorage`, which other tabs read. null: logged out; empty: the session was found ended.
 * Where storage is refused it is kept in this tab's memory.
 */
class SessionMark {
  /** @type {string | null} */ #memory = null;

  /** @param {string} key */
  constructor(key) {
    this.key = key;
  }

  get value() {
    try {
      return globalThis.document ? localStorage.getItem(this.key) : null;
    } catch {
      return this.#memory; // the session ends with the page
    }
  }

  set value(value) {
    this.#memory = value;
    try {
      if (!globalThis.document) return;
      if (value === null) localStorage.removeItem(this.key);
      else localStorage.setItem(this.key, value);
    } catch {}
  }
}

/**
 * Runs it in one tab at a time, where the browser can: else two answers could leave the wrong session's cookie.
 * @template T @param {() => Promise<T>} act
 */
async function withLock(act) {
  const locks = globalThis.navigator?.locks; // https only
  let begun = false;
  const run = () => ((begun = true), act());
  if (!locks || !globalThis.document) return act();
  return locks.request(LOCK_NAME, { signal: AbortSignal.timeout(LOCK_TIMEOUT) }, run).catch((error) => {
    if (begun) throw error;
    return act();
  });
}

/** A random key, by which this device's guest is known. */
const newDeviceKey = () =>
  Array.from(crypto.getRandomValues(new Uint8Array(DEVICE_KEY_BYTES)), (byte) =>
    byte.toString(16).padStart(2, '0'),
  ).join('');

/** A user's session, or nobody's. @implements {Session} */
export class Account extends EventTarget {
  /** @type {{userId: string, username: string} | null} */ user = null;
  left = false; // whether the last session ended by the user's wish, here or in another tab
  /** @type {Credentials | null} */ #session = null;
  /** @type {Promise<void> | null} */ #renewing = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer;
  #renewAt = 0;
  #refreshToken = ''; // outside a browser
  #ask;
  #generation = 0; // counts sessions; an answer of an earlier one is ignored
  #isLeaving = false; // a renewal is not repeated any more
  deviceKey = ''; // of the guest who plays here
  #mark;
  #device; // the device key in `localStorage`: with it a guest comes back
  #lasting;
  #end = new AbortController(); // of its session, and of listening

  /**
   * @param {Ask} ask sends a request
   * @param {string} [url] the server; the page's own by default
   * `lasting`: follows every session of the browser, also another tab's; else it is for one session
   */
  constructor(ask, url = '', { lasting = false } = {}) {
    super();
    this.#ask = ask;
    this.url = url;
    this.#lasting = lasting;
    const server = URL.canParse(url) ? new URL(url).origin : '';
    const suffix = server && server !== globalThis.location?.origin ? ' ' + server : '';
    this.#mark = new SessionMark(MARK_KEY + suffix);
    this.#device = new SessionMark(DEVICE_KEY + suffix);
    if (lasting) this.#listen();
  }

  /** The session that this browser has from before; null: nobody is logged in. @param {Ask} ask @param {string} url */
  static async resume(ask, url) {
    const account = new Account(ask, url);
    if (account.expected) account.#listen();
    try {
      return (await account.token()) ? account : null;
    } catch (error) {
      account.#stop(); // nobody has it
      if (/** @type {Refused} */ (error).status === 401) return null; // it has ended meanwhile
      throw error;
    }
  }

  /** Whether somebody is logged in, or was when the browser was last closed. */
  get expected() {
    return Boolean(this.user || (!this.#end.signal.aborted && this.#mark.value));
  }

  /** Takes over the session that the server has opened for this user by another way. @param {string} userId */
  adopt(userId) {
    this.#mark.value = userId; // the next `token` renews the session, as after a reload
  }

  /** Logs in or registers. @param {string} path login or register @param {object} fields */
  async enter(path, fields) {
    await withLock(() => this.#enter(path, fields));
  }

  /** Plays as the guest of this device, who is made at first. @param {import('./scoreboard.js').Guest} [who] */
  async enterAsGuest({ username, deviceKey = this.#device.value || newDeviceKey() } = {}) {
    this.#device.value = deviceKey; // before it is sent: the same one goes out again when no answer comes
    try {
      await this.enter('guest', { username, deviceKey });
      this.deviceKey = deviceKey;
    } catch (error) {
      // its guest has an account now: the next one is another
      if (/** @type {Refused} */ (error).status === 401) this.#device.value = null;
      throw error;
    }
  }

  /** Makes an account of the guest. @param {import('./scoreboard.js').Account} fields */
  async link(fields) {
    await this.token();
    await this.enter('link', fields);
    this.#device.value = null;
    this.deviceKey = '';
  }

  /**
   * One request as this user, once more with a new token when the old one is refused.
   * @param {string} path @param {Parameters<Ask>[1]} [options]
   */
  async ask(path, options) {
    for (let renewed = false; ; renewed = true) {
      const token = (await this.token(renewed)) ?? '';
      const answer = await this.#ask(path, { ...options, url: this.url, token });
      if (answer.status !== 401 || renewed) return answer;
    }
  }

  /** Ends the session, here and in every tab. */
  async leave() {
    this.#isLeaving = true;
    await this.#renewing?.catch(() => {}); // its answer would leave a cookie behind
    const token = (await this.token().catch(() => null)) ?? '';
    this.#isLeaving = false;
    this.#clear(null);
    await withLock(() => this.#ask('auth/logout', { url: this.url, body: '{}', token }));
  }

  /** `leave`, as the client's users know it. */
  async logout() {
    await this.leave();
  }

  /** The access token, renewed if need be; null for a stranger. */
  token = async (renew = false) => {
    if (this.expected && (renew || Date.now() > this.#renewAt)) await (this.#renewing ??= this.#renew());
    return this.#session?.token ?? null;
  };

  /** What `submitAction` asks for. */
  credentials = async (renew = false) => {
    await this.token(renew);
    if (this.#session) return this.#session;
    throw new Refused({ status: 401, json: { code: 'UNAUTHORIZED', detail: 'Nobody is logged in.' } });
  };

  /**
   * Submits an action of this user.
   * @template {import('./scoreboard.js').Scored | import('./scoreboard.js').Held} [R=import('./scoreboard.js').Scored]
   * @param {string} actionType @param {object} [metadata] @param {object} [proof] @returns {Promise<R>}
   */
  submitAction(actionType, metadata, proof) {
    return submit({ url: this.url, actionType, metadata, ...proof, credentials: this.credentials }, this.#ask);
  }

  /** Takes over the session that an answer brings. @param {string} path @param {object} fields */
  async #enter(path, fields) {
    const generation = this.#generation;
    const token = path === 'link' ? this.#session?.token : '';
    const answer = await this.#ask('auth/' + path, { url: this.url, token, body: JSON.stringify(fields) });
    const { json, header } = answer;
    if (!json?.success) throw new Refused(answer);
    if (path === 'refresh' && generation !== this.#generation) return; // logged out meanwhile
    const { userId, username, expiresIn } = json.data;
    const { accessToken, actionSecret: secret, actionKeyVersion: keyVersion } = json.data;
    const skew = Date.parse(header('Date')) - Date.now() || 0; // a clock minutes wrong would have every action refused
    this.user = { userId, username };
    this.#session = { userId, token: accessToken, secret, keyVersion, skew: Math.abs(skew) > CLOCK_TOLERANCE ? skew : 0 };
    this.#refreshToken = json.data.refreshToken ?? '';
    const life = Math.max(expiresIn * 1000 - RENEW_AHEAD, expiresIn * 500);
    this.#renewAt = Date.now() + life;
    this.#listen();
    this.#scheduleRenewal(life);
    this.#mark.value = userId;
    this.dispatchEvent(new Event('change'));
  }

  /** Renews the session, with several attempts. Clears it when it has ended. */
  async #renew() {
    const generation = this.#generation;
    try {
      for (let tries = 1; ; tries++) {
        const failed = await this.#refresh();
        if (!failed || generation !== this.#generation) return;
        // Another tab may have logged in meanwhile: then the cookie has changed.
        const mayBeOther = failed.status === 401 && this.#session && tries === 1;
        if (tries === MAX_REFRESH_ATTEMPTS || this.#isLeaving || (failed.status && !mayBeOther)) throw failed;
        await new Promise((done) => setTimeout(done, REFRESH_RETRY_DELAY));
      }
    } catch (error) {
      const { status = 0, wait = 0 } = /** @type {Refused} */ (error);
      if (status === 401) this.#clear('');
      else this.#scheduleRenewal(Math.max(RENEW_RETRY_DELAY, wait));
      throw error;
    } finally {
      this.#renewing = null;
    }
  }

  /**
   * One refresh, for the user whom this browser knows. It uses the same token until an answer brings another one.
   * @returns {Promise<Refused | null>}
   */
  async #refresh() {
    const fields = () => ({
      refreshToken: this.#refreshToken || undefined,
      userId: this.#mark.value || this.user?.userId,
    });
    const refreshed = withLock(() => this.#enter('refresh', fields()));
    return refreshed.then(() => null, (/** @type {Refused} */ error) => error);
  }

  /**
   * From now on nobody is logged in.
   * @param {string | null} mark null: the user logged out, in every tab; empty: each other tab finds out for itself
   */
  #clear(mark) {
    if (!this.#lasting) this.#stop();
    clearTimeout(this.#timer);
    this.#generation++;
    this.user = this.#session = null;
    this.#renewAt = 0;
    this.#refreshToken = '';
    this.left = mark === null;
    this.#mark.value = mark;
    this.dispatchEvent(new Event('change'));
  }

  /** Stops following the browser's session: a later log-in is another session. */
  #stop() {
    clearTimeout(this.#timer);
    this.#end.abort();
  }

  /** Follows log-in and log-out in other tabs. */
  #listen() {
    if (globalThis.document) addEventListener('storage', this.#onStorage, this.#end);
  }

  /** Another tab logged in or out. @param {StorageEvent} event */
  #onStorage = ({ key, newValue }) => {
    if (key !== this.#mark.key || newValue === this.user?.userId) return;
    if (newValue === null) this.#clear(null);
    else this.token(true).catch(() => {});
  };

  /** Sets the timer of the next renewal. */
  #scheduleRenewal(ms = 0) {
    clearTimeout(this.#timer);
    if (this.#end.signal.aborted) return;
    this.#timer = setTimeout(() => this.token(true).catch(() => {}), ms);
    /** @type {any} */ (this.#timer).unref?.(); // node: the timer keeps no program running
  }
}

const FIELDS = { login: ['username', 'password'], register: ['username', 'email', 'password'], exchange: ['token'] };

/**
 * Logs in or registers.
 * @param {keyof typeof FIELDS} path @param {any} who @param {Ask} ask @returns {Promise<Session>}
 */
export async function begin(path, who, ask) {
  const { url, ...fields } = who ?? {};
  for (const name of FIELDS[path])
    if (typeof fields[name] !== 'string' || !fields[name]) throw new TypeError(`${path}: ${name} is missing`);
  const account = new Account(ask, url);
  await account.enter(path, fields);
  return account;
}

/** Plays without an account. @param {any} who @param {Ask} ask @returns {Promise<Session>} */
export async function beginAsGuest(who, ask) {
  const { url, ...fields } = who ?? {};
  const account = new Account(ask, url);
  await account.enterAsGuest(fields);
  return account;
}

/**
 * The browser's session, if there is one.
 * @param {{url?: string} | undefined} where @param {Ask} ask @returns {Promise<Session | null>}
 */
export const resume = async (where, ask) => Account.resume(ask, where?.url ?? '');
