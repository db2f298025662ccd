/**
 * Who is logged in: log-in, registration, silent renewal, log-out. Token and action secret live in memory only. The refresh token is in a
 * cookie that no script sees (outside a browser: in memory, too). `localStorage` holds the user's id, as the sign of a session and as news for
 * other tabs. Event: change. Loaded by scoreboard.js with the first log-in.
 *
 * @import { Credentials, Session } from './scoreboard.js'
 */
import { Refused } from './actions.js';
import { ask, submitAction } from './scoreboard.js';

const MARK = 'scoreboard:user';
const TURN = 'scoreboard:session';
const EARLY = 60_000; // ms; a token is renewed this long before its end
const AGAIN = 5_000; // ms after a renewal that found nobody; also the clock's error that matters to nobody
const PAUSE = 1_000; // ms until a refresh whose answer was lost is repeated with the same token
const TRIES = 3; // of one renewal; each waits ANSWER of scoreboard.js, so all are over within the server's grace for a spent token
const LONGEST_TURN = 20_000; // ms; more than any answer takes: a tab that holds its turn for longer is frozen

/** What another tab reads. null: logged out; empty: the session was found ended. Where storage is refused this tab's memory serves. */
class Mark {
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

/** One tab at a time, where the browser can: answers that cross would leave the cookie of the wrong session. @template T @param {() => Promise<T>} act */
async function inTurn(act) {
  const locks = globalThis.navigator?.locks; // https only
  let begun = false;
  const run = () => ((begun = true), act());
  if (!locks || !globalThis.document) return act();
  return locks.request(TURN, { signal: AbortSignal.timeout(LONGEST_TURN) }, run).catch((error) => {
    if (begun) throw error;
    return act();
  });
}

/** @implements {Session} */
export class Account extends EventTarget {
  /** @type {{userId: string, username: string} | null} */ user = null;
  left = false; // whether the last session ended by the user's wish, here or in another tab
  /** @type {Credentials | null} */ #session = null;
  /** @type {Promise<void> | null} */ #renewing = null;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer;
  #renewAt = 0;
  #refreshToken = ''; // outside a browser
  #era = 0; // of one user; what was asked in another is void
  #isLeaving = false; // a renewal is not repeated any more
  #mark;
  #lasting;
  #end = new AbortController(); // of its session, and of listening

  /** @param {string} [url] the server; the page's own by default; lasting: for any session, of another tab too, not for one */
  constructor(url = '', { lasting = false } = {}) {
    super();
    this.url = url;
    this.#lasting = lasting;
    const server = URL.canParse(url) ? new URL(url).origin : '';
    this.#mark = new Mark(server && server !== globalThis.location?.origin ? `${MARK} ${server}` : MARK);
    if (lasting) this.#listen();
  }

  /** The session that this browser has from before; null: nobody is logged in. @param {string} url */
  static async resume(url) {
    const account = new Account(url);
    if (account.expected) account.#listen();
    try {
      return (await account.token()) ? account : null;
    } catch (error) {
      account.#stop(); // nobody has it
      if (/** @type {Refused} */ (error).status === 401) return null; // it has ended meanwhile
      throw error;
    }
  }

  /** A session is here, or was when the browser was last closed. */
  get expected() {
    return Boolean(this.user || (!this.#end.signal.aborted && this.#mark.value));
  }

  /** @param {string} path login or register @param {object} fields */
  async enter(path, fields) {
    await inTurn(() => this.#enter(path, fields));
  }

  /** Ends the session, here and in every tab. */
  async leave() {
    this.#isLeaving = true;
    await this.#renewing?.catch(() => {}); // its answer would leave a cookie behind
    const token = (await this.token().catch(() => null)) ?? '';
    this.#isLeaving = false;
    this.#forget(null);
    await inTurn(() => ask('auth/logout', { url: this.url, body: '{}', token }));
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
    if (!this.#session) throw new Refused({ status: 401, said: { code: 'UNAUTHORIZED', detail: 'Nobody is logged in.' } });
    return this.#session;
  };

  /** @param {string} actionType @param {object} [metadata] */
  submitAction(actionType, metadata) {
    return submitAction({ url: this.url, actionType, metadata, credentials: this.credentials });
  }

  /** @param {string} path @param {object} fields */
  async #enter(path, fields) {
    const era = this.#era;
    const answer = await ask('auth/' + path, { url: this.url, body: JSON.stringify(fields) });
    const { said, head } = answer;
    if (!said?.success) throw new Refused(answer);
    if (path === 'refresh' && era !== this.#era) return; // logged out meanwhile
    const { userId, username, accessToken: token, expiresIn, actionSecret: secret, actionKeyVersion: keyVersion } = said.data;
    const skew = Date.parse(head('Date')) - Date.now() || 0; // a clock minutes wrong would have every action refused
    this.user = { userId, username };
    this.#session = { userId, token, secret, keyVersion, skew: Math.abs(skew) > AGAIN ? skew : 0 };
    this.#refreshToken = said.data.refreshToken ?? '';
    const life = Math.max(expiresIn * 1000 - EARLY, expiresIn * 500);
    this.#renewAt = Date.now() + life;
    this.#listen();
    this.#later(life);
    this.#mark.value = userId;
    this.dispatchEvent(new Event('change'));
  }

  async #renew() {
    const era = this.#era;
    try {
      for (let tries = 1; ; tries++) {
        const failed = await this.#refresh();
        if (!failed || era !== this.#era) return;
        const other = failed.status === 401 && this.#session && tries === 1; // the cookie may have changed under way: another tab logged in
        if (tries < TRIES && !this.#isLeaving && (!failed.status || other)) await new Promise((done) => setTimeout(done, PAUSE));
        else throw failed;
      }
    } catch (error) {
      const { status = 0, wait = 0 } = /** @type {Refused} */ (error);
      if (status === 401) this.#forget('');
      else this.#later(Math.max(AGAIN, wait));
      throw error;
    } finally {
      this.#renewing = null;
    }
  }

  /** The same refresh token as long as no answer has brought another one, for the user whom this browser knows. @returns {Promise<Refused | null>} */
  async #refresh() {
    const fields = () => ({ refreshToken: this.#refreshToken || undefined, userId: this.#mark.value || this.user?.userId });
    return inTurn(() => this.#enter('refresh', fields())).then(() => null, (/** @type {Refused} */ error) => error);
  }

  /** Nobody is logged in. @param {string | null} mark null: by the user's wish, in every tab; empty: other tabs see for themselves */
  #forget(mark) {
    if (!this.#lasting) this.#stop();
    clearTimeout(this.#timer);
    this.#era++;
    this.user = this.#session = null;
    this.#renewAt = 0;
    this.#refreshToken = '';
    this.left = mark === null;
    this.#mark.value = mark;
    this.dispatchEvent(new Event('change'));
  }

  /** Its session is over: a log-in elsewhere is another one's. */
  #stop() {
    clearTimeout(this.#timer);
    this.#end.abort();
  }

  #listen() {
    if (globalThis.document) addEventListener('storage', this.#heard, this.#end);
  }

  /** News of another tab. @param {StorageEvent} event */
  #heard = ({ key, newValue }) => {
    if (key !== this.#mark.key || newValue === this.user?.userId) return;
    if (newValue === null) this.#forget(null);
    else this.token(true).catch(() => {});
  };

  #later(ms = 0) {
    clearTimeout(this.#timer);
    if (this.#end.signal.aborted) return;
    this.#timer = setTimeout(() => this.token(true).catch(() => {}), ms);
    /** @type {any} */ (this.#timer).unref?.(); // node: a program that has done its work ends
  }
}

/** Logs in or registers. @param {'login' | 'register'} path @param {any} who @returns {Promise<Session>} */
export async function begin(path, who) {
  const { url, ...fields } = who ?? {};
  for (const name of path === 'login' ? ['username', 'password'] : ['username', 'email', 'password'])
    if (typeof fields[name] !== 'string' || !fields[name]) throw new TypeError(`${path}: ${name} is missing`);
  const account = new Account(url);
  await account.enter(path, fields);
  return account;
}

/** @returns {Promise<Session | null>} */
export const resume = async ({ url = '' } = {}) => Account.resume(url);
