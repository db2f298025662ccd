/**
 * Who is logged in: log-in, registration, silent renewal, log-out. Token and action secret live in memory only, the refresh
 * token in a cookie that no script sees; `localStorage` holds the user's id, as the sign of a session and as news for other
 * tabs. Event: change.
 */
import { Refused } from './actions.js';
import { ask } from './scoreboard.js';

const MARK = 'scoreboard.user';
const EARLY = 60_000; // ms; a token is renewed this long before its end
const AGAIN = 5_000; // ms after a renewal that found nobody; also the clock's error that matters to nobody

/** @param {string} [value] empty: nobody */
function mark(value) {
  try {
    if (value) localStorage.setItem(MARK, value);
    else if (value === '') localStorage.removeItem(MARK);
    return localStorage.getItem(MARK);
  } catch {
    return null; // storage is switched off: the session ends with the page
  }
}

export class Account extends EventTarget {
  /** @type {{userId: string, username: string} | null} */ user = null;
  /** @type {import('./actions.js').Credentials | null} */ #session = null;
  /** @type {Promise<void> | null} */ #renewing = null;
  #renewAt = 0;
  /** @type {ReturnType<typeof setTimeout> | undefined} */ #timer;

  constructor() {
    super();
    addEventListener('storage', ({ key, newValue }) => {
      if (key !== MARK || newValue === this.user?.userId) return;
      if (newValue) this.token(true).catch(() => {});
      else this.#forget();
    });
  }

  /** A session is here, or was when the browser was last closed. */
  get expected() {
    return Boolean(this.user || mark());
  }

  /** @param {string} path login or register @param {object} fields */
  async enter(path, fields) {
    const answer = await ask('auth/' + path, { body: JSON.stringify(fields) });
    const { said, head } = answer;
    if (!said?.success) throw new Refused(answer);
    const { userId, username, accessToken: token, expiresIn, actionSecret: secret, actionKeyVersion: keyVersion } = said.data;
    const skew = Date.parse(head('Date')) - Date.now(); // a clock minutes wrong would have every action refused
    this.user = { userId, username };
    this.#session = { userId, token, secret, keyVersion, skew: Math.abs(skew) > AGAIN ? skew : 0 };
    const life = Math.max(expiresIn * 1000 - EARLY, expiresIn * 500);
    this.#renewAt = Date.now() + life;
    this.#later(life);
    mark(userId);
    this.dispatchEvent(new Event('change'));
  }

  async leave() {
    await this.#renewing?.catch(() => {}); // it would log in again
    const token = (await this.token().catch(() => null)) ?? '';
    this.#forget();
    await ask('auth/logout', { body: '{}', token });
  }

  /** The access token, renewed if need be; null for a stranger. */
  async token(renew = false) {
    if (this.expected && (renew || Date.now() > this.#renewAt)) await (this.#renewing ??= this.#renew());
    return this.#session?.token ?? null;
  }

  /** What `submitAction` asks for. */
  async credentials(renew = false) {
    await this.token(renew);
    if (!this.#session) throw new Refused({ status: 401, said: { code: 'UNAUTHORIZED' } });
    return this.#session;
  }

  async #renew() {
    try {
      await this.enter('refresh', {});
    } catch (error) {
      const { status = 0, wait = 0 } = /** @type {Refused} */ (error);
      if (status === 401) this.#forget();
      else this.#later(Math.max(AGAIN, wait));
      throw error;
    } finally {
      this.#renewing = null;
    }
  }

  #forget() {
    clearTimeout(this.#timer);
    this.user = this.#session = null;
    this.#renewAt = 0;
    mark('');
    this.dispatchEvent(new Event('change'));
  }

  #later(ms = 0) {
    clearTimeout(this.#timer);
    this.#timer = setTimeout(() => this.token(true).catch(() => {}), ms);
  }
}
