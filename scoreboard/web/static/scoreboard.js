/**
 * The scoreboard's browser client: one live board, signed actions. No dependency; touches no document, holds no words.
 *
 *   const live = connect({ token });   // events: board, personal, state
 *   live.addEventListener('board', ({ detail }) => draw(detail.leaderboard));
 *
 * @typedef {{rank: number, userId: string, username: string, score: number, avatarUrl?: string | null}} Entry
 * @typedef {{name: 'connecting' | 'live' | 'waiting' | 'stopped', transport: string, retryAt: number, stale: string, code: number}} State
 * @typedef {(renew: boolean) => Promise<string | null> | string | null} TokenSource   renew: the last one was refused
 * @typedef {{userId: string, token: string, secret: string, keyVersion: number, skew: number}} Credentials   skew: server's clock - ours, ms
 */

const PING = 25_000; // ms of silence; the server closes what is silent for 60 s
const ANSWER = 10_000; // ms for a pong, a first frame, an HTTP answer; then it counts as lost
const POLL = 3_000; // ms between polls while there is no socket
const RANK = 15_000; // ms; below the top others pass me without a frame
const BACKOFF = [500, 30_000]; // ms; ceiling of the first wait and of any
const TRIES = 4; // of one action, about 8 s; its timestamp is good for 5 min

/** Full jitter: a crowd that was cut off together comes back spread out. @param {number} attempt */
const jittered = (attempt) => Math.random() * Math.min(BACKOFF[1], BACKOFF[0] * 2 ** attempt);

/** One request to the API; never rejects: status 0 is no answer. `wait` is Retry-After in ms. */
export async function ask(/** @type {string} */ path, { url = location.origin, body = '', token = '', headers = {} } = {}) {
  const answer = await fetch(new URL('/api/v1/' + path, url), {
    method: body ? 'POST' : 'GET',
    body: body || null,
    cache: 'no-store', // the ETag is ours: a 304 must reach us
    headers: { ...headers, ...(body && { 'Content-Type': 'application/json' }), ...(token && { Authorization: 'Bearer ' + token }) },
    signal: AbortSignal.timeout(ANSWER),
  }).catch(() => null);
  const head = (/** @type {string} */ name) => answer?.headers.get(name) ?? '';
  return { status: answer?.status ?? 0, head, wait: 1000 * Number(head('Retry-After')) || 0, said: await answer?.json().catch(() => null) };
}

/** A refusal by the server, or, with status 0, no answer at all. */
export class Refused extends Error {
  code = '';
  layer = '';
  errors = /** @type {{field: string, message: string}[]} */ ([]);

  /** @param {{status: number, wait?: number, said?: any}} answer */
  constructor({ status, wait = 0, said }) {
    super(said?.detail);
    this.status = status;
    this.wait = wait;
    for (const member of ['code', 'layer', 'errors']) if (said?.[member]) this[member] = said[member];
  }
}

/** What to do about a lost socket. @param {number} code of its close @param {number} attempt failures before, in a row */
export function afterClose(code, attempt, anonymous = true) {
  const renew = code === 4401;
  const stop = code === 4403 || (renew && anonymous);
  const quick = attempt < 2 && (renew || code === 1001 || code === 1012);
  return { stop, renew, delay: quick ? Math.random() * 1000 : 200 + jittered(code === 1013 ? attempt + 3 : attempt) };
}

export class LiveBoard extends EventTarget {
  /** @type {State} */ state = { name: 'connecting', transport: '', retryAt: 0, stale: '', code: 0 };
  /** @type {WebSocket | null} */ #socket = null;
  #timers = {};
  #attempt = 0; // failures since the last board
  #dials = 0; // an older dial that wakes up late gives way
  /** @type {string | null} */ #proof = null; // the token that the socket is given; none: a stranger
  #etag = '';
  #away = false; // the last poll found nobody

  /** @param {{url?: string, token?: string | null | TokenSource}} options */
  constructor({ url = location.origin, token = null } = {}) {
    super();
    this.url = url;
    /** @type {TokenSource} */ this.token = typeof token === 'function' ? token : () => token;
    // Browsers freeze hidden tabs and machines sleep: whatever waited is due now.
    document.addEventListener('visibilitychange', () => document.hidden || this.#wake());
    addEventListener('online', () => this.#wake());
    addEventListener('pageshow', (event) => event.persisted && this.redial());
  }

  /** Proves the user on the open socket: after log-in, and with every new token. @param {string} token */
  identify(token) {
    this.#proof = token;
    this.#send({ action: 'auth', token });
    this.refresh();
  }

  /** Starts over, as another user or none. */
  redial() {
    this.#attempt = 0;
    this.#etag = '';
    this.#dial();
  }

  /** Asks for the present rank at once, and goes on asking. */
  refresh() {
    this.#after('poll', 0, () => this.#poll());
  }

  async #dial(renew = false) {
    const dial = ++this.#dials;
    this.#drop();
    this.#tell({ name: 'connecting' });
    const token = await this.#token(renew);
    if (dial !== this.#dials) return;
    const socket = (this.#socket = new WebSocket(new URL('/api/v1/scores/live', this.url).href.replace('http', 'ws')));
    this.#proof = token;
    socket.onopen = () => {
      if (this.#proof) this.#send({ action: 'auth', token: this.#proof });
      this.#send({ action: 'subscribe', channel: 'leaderboard' });
    };
    socket.onmessage = ({ data }) => this.#hear(JSON.parse(data));
    socket.onclose = ({ code }) => this.#lost(code);
    this.#after('beat', ANSWER, () => this.#lost(4408));
  }

  /** No token to be had: better to watch as a stranger than not at all. */
  #token(renew = false) {
    return Promise.resolve(this.token(renew)).catch(() => null);
  }

  #drop() {
    clearTimeout(this.#timers.beat);
    clearTimeout(this.#timers.dial);
    const socket = this.#socket;
    this.#socket = null;
    if (!socket) return;
    socket.onopen = socket.onmessage = socket.onclose = null;
    socket.close();
  }

  /** @param {number} code */
  #lost(code) {
    this.#drop();
    const { stop, renew, delay } = afterClose(code, this.#attempt++, !this.#proof);
    if (stop) return this.#tell({ name: 'stopped', code, transport: '' });
    if (this.state.transport !== 'polling') this.#after('poll', Math.min(delay, POLL), () => this.#poll());
    this.#after('dial', delay, () => this.#dial(renew));
    this.#tell({ name: 'waiting', code, retryAt: Date.now() + delay });
  }

  #hear({ event, data }) {
    this.#after('beat', PING, () => this.#ping());
    if (event === 'leaderboard:update') {
      this.#attempt = 0;
      this.#tell({ name: 'live', transport: 'WebSocket', stale: data.stale ? this.state.stale : '' });
      this.#emit('board', data);
    } else if (event === 'leaderboard:stale') this.#tell({ stale: data.since });
    else if (event === 'score:personal') this.#emit('personal', { score: data.newScore, rank: data.rank, points: data.pointsAwarded });
    else if (event === 'authenticated') this.#emit('personal', data);
  }

  /** Reads by HTTP: the board while there is no socket, my own rank beside it. */
  async #poll() {
    const token = (await this.#token()) ?? '';
    const headers = this.#etag ? { 'If-None-Match': this.#etag } : {};
    const { status, head, wait, said } = await ask('scores/leaderboard', { url: this.url, token, headers });
    const { name } = this.state;
    if (name === 'stopped') return;
    if (status === 401) await this.#token(true);
    const here = status === 200 || status === 304;
    if (name !== 'live') this.#tell({ transport: here ? 'polling' : '' });
    if (name === 'waiting' && here && this.#away) this.redial(); // it is back: no need to wait out the backoff
    this.#away = !here;
    if (status === 200) {
      const { leaderboard, lastUpdated, currentUser, stale } = said.data;
      this.#etag = head('ETag');
      if (name !== 'live') {
        this.#tell({ stale: stale || said.stale ? lastUpdated : '' });
        this.#emit('board', { leaderboard, timestamp: lastUpdated });
      }
      if (currentUser) this.#emit('personal', currentUser);
    }
    if (name !== 'live' || token) this.#after('poll', Math.max(wait, name === 'live' ? RANK : POLL), () => this.#poll());
  }

  #ping() {
    this.#send({ action: 'ping' });
    this.#after('beat', ANSWER, () => this.#lost(4408));
  }

  #wake() {
    if (this.state.name === 'waiting') this.#dial();
    else if (this.state.name === 'live') this.#ping();
  }

  #send(message) {
    if (this.#socket?.readyState === WebSocket.OPEN) this.#socket.send(JSON.stringify(message));
  }

  #after(name, ms, act) {
    clearTimeout(this.#timers[name]);
    this.#timers[name] = setTimeout(act, ms);
  }

  /** @param {Partial<State>} change */
  #tell(change) {
    Object.assign(this.state, change);
    this.#emit('state', this.state);
  }

  #emit(type, detail) {
    this.dispatchEvent(new CustomEvent(type, { detail }));
  }
}

/** A board that keeps itself current until the page goes. @param {ConstructorParameters<typeof LiveBoard>[0]} [options] */
export function connect(options) {
  const live = new LiveBoard(options);
  live.redial();
  return live;
}

/** The value of X-Action-Signature for exactly this body. @param {string} body @param {string} secret @param {number} keyVersion */
export async function signAction(body, secret, keyVersion) {
  const [key, data] = [secret, body].map((text) => new TextEncoder().encode(text));
  const hmac = await crypto.subtle.importKey('raw', key, { name: 'HMAC', hash: 'SHA-256' }, false, ['sign']);
  const mac = new Uint8Array(await crypto.subtle.sign('HMAC', hmac, data));
  return `v${keyVersion}.` + Array.from(mac, (byte) => byte.toString(16).padStart(2, '0')).join('');
}

/**
 * Submits one action, once: while nobody answers or nothing can be recorded, the same body goes out again.
 * Resolves to the specification's `data`, also when an earlier try had gone through; rejects with Refused.
 * @param {{url?: string, actionType: string, metadata?: object, credentials: (renew: boolean) => Promise<Credentials>}} action
 */
export async function submitAction({ url, actionType, metadata, credentials }) {
  let { token, secret, keyVersion, userId, skew } = await credentials(false);
  const timestamp = new Date(Date.now() + skew).toISOString();
  const body = JSON.stringify({ actionId: crypto.randomUUID(), actionType, timestamp, metadata, userId });
  for (let attempt = 1, renewed = false; ; attempt++) {
    const headers = { 'X-Action-Signature': await signAction(body, secret, keyVersion) };
    const answer = await ask('scores/action', { url, body, token, headers });
    const { status, said, head, wait } = answer;
    if (said?.data && (status === 200 || head('Idempotency-Replayed') === 'true')) return said.data;
    if (!renewed && (status === 401 || said?.code === 'INVALID_SIGNATURE')) {
      renewed = true; // an expired token, a rotated key
      ({ token, secret, keyVersion } = await credentials(true));
    } else if (attempt < TRIES && [0, 200, 502, 503, 504].includes(status)) {
      await new Promise((done) => setTimeout(done, Math.max(wait, 300 + jittered(attempt))));
    } else throw new Refused(answer);
  }
}
