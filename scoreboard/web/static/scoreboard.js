/**
 * The browser client: a live board over whatever gets through, and signed actions.
 *
 *   const live = connect({ token });   // events: board, personal, viewers, state
 *   live.addEventListener('board', ({ detail }) => draw(detail.leaderboard));
 *
 * The rest comes when needed: fallback.js (other transports), actions.js, element.js (<live-scoreboard>).
 *
 * @typedef {{rank: number, userId: string, username: string, score: number, avatarUrl?: string | null}} Entry
 * @typedef {{leaderboard: Entry[], position: string, timestamp: string, stale?: boolean}} Board
 * @typedef {{changed: (Entry & {previousRank: number | null})[], removed: string[]}} Delta
 * @typedef {string | null | ((renew: boolean) => Promise<string | null> | string | null)} Token   renew: the last one was refused
 * @typedef {ReturnType<typeof setTimeout>} Timer
 * @typedef {{url: string, mode: string, level: number, token?: string, quiet?: number, signal: AbortSignal, began: number, close(): void, since(): string,
 *   subscribe(): boolean, send(message: object): boolean, hear(message: any): void, lost(code: number, wait?: number): void}} Link
 */
const PROOF = 3_000; // ms for a transport's first message
const PING = 25_000; // ms of silence until a ping
const ANSWER = 10_000; // ms for a pong or an answer
const LATE = 1_500; // ms that a promised heartbeat may be late until it shows
const HIDE = 5_000; // ms out of sight until it pauses
const CLIMB = [60_000, 600_000]; // ms until a better transport is tried: at first, at most
const STEADY = 10_000; // ms; what lasted longer was no failure
const BACKOFF = [500, 30_000]; // ms; ceiling of the first wait and of any
/** @type {Record<string, string>} */ let memory = {};
try {
  memory = sessionStorage;
} catch {}

/** Full jitter: a crowd comes back spread out. */
const jittered = (attempt = 0) => Math.random() * Math.min(BACKOFF[1], BACKOFF[0] * 2 ** attempt);

/** One request to the API; never rejects: status 0 is no answer. `wait` is Retry-After in ms. */
export async function ask(path = '', { url = '', body = '', token = '', headers = {}, signal = AbortSignal.timeout(ANSWER) } = {}) {
  const type = body && { 'Content-Type': 'application/json' };
  const proof = token && { Authorization: 'Bearer ' + token };
  const to = new URL('/api/v1/' + path, url || location.origin);
  /** @type {RequestInit} */
  const options = { method: body ? 'POST' : 'GET', body: body || null, headers: { ...headers, ...type, ...proof }, signal, cache: 'no-store' };
  const answer = await fetch(to, options).catch(() => null);
  const head = (name = '') => answer?.headers.get(name) ?? '';
  const stream = head('Content-Type').startsWith('text/event') && answer?.body;
  const said = stream ? null : await answer?.json().catch(() => null);
  return { status: answer?.status ?? 0, head, wait: 1000 * Number(head('Retry-After')) || 0, said, stream };
}

/** The rows after a delta. @param {Entry[]} rows @param {Delta} delta */
export function applyDelta(rows, { changed, removed }) {
  const gone = new Set([...removed, ...changed.map((row) => row.userId)]);
  const now = changed.map(({ previousRank, ...row }) => row);
  return [...rows.filter((row) => !gone.has(row.userId)), ...now].sort((a, b) => a.rank - b.rank);
}

/** What to do about a lost connection: its close code, how many failed before. */
export function afterClose(code = 0, attempt = 0, { anonymous = true, proven = true } = {}) {
  const renew = code === 4401;
  const asked = renew || code === 1001 || code === 1012; // the server's wish, not a failure
  return {
    renew,
    stop: code === 4403 || (renew && anonymous),
    down: [1002, 1007, 1008, 1009, 4400].includes(code) || !(proven || asked || code === 1013), // not by this transport
    delay: asked && attempt < 2 ? Math.random() * 1000 : 200 + jittered(code === 1013 ? attempt + 3 : attempt),
  };
}

// ---- transports ----

/** @param {Link} link */
async function overWebSocket(link) {
  const socket = new WebSocket(new URL('/api/v1/scores/live', link.url).href.replace('http', 'ws'));
  link.send = (message) => (socket.readyState === 1 && socket.send(JSON.stringify(message)), true);
  socket.onopen = () => {
    if (link.token) link.send({ action: 'auth', token: link.token });
    link.subscribe();
  };
  socket.onmessage = ({ data }) => link.hear(JSON.parse(data));
  socket.onclose = ({ code }) => link.lost(code);
  link.signal.onabort = () => (socket.readyState ? socket.close() : (socket.onopen = () => socket.close()));
}

const beside = (name = '') => import(new URL('/static/' + name, import.meta.url).href);
/** @type {Promise<typeof import('./fallback.js')>} */ const fallback = beside('fallback.js'); // now: the network may fail
fallback.catch(() => {});
const NAMES = ['WebSocket', 'SSE', 'polling'];

/** @param {Link} link */
const start = async (link) => {
  if (!link.level) return overWebSocket(link);
  (await fallback.catch(() => beside('fallback.js?' + Date.now()))).start(link, ask);
};

// ---- the live board ----

/**
 * A board that keeps itself current until it is closed. `state.name`: connecting, live, waiting, paused (out of sight), stopped.
 * @param {{url?: string, token?: Token, mode?: 'delta' | 'full'}} [options]
 */
export function connect({ url = location.origin, token = null, mode = 'delta' } = {}) {
  const events = new EventTarget();
  const end = new AbortController();
  const state = { name: 'connecting', transport: '', retryAt: 0, stale: '', silent: '', code: 0, viewers: 0 };
  /** @type {Board | null} */ let board = null;
  /** @type {Link | null} */ let link = null; // has proven itself
  /** @type {Link | null} */ let trial = null; // not yet
  /** @type {Record<string, Timer>} */ const timers = {};
  /** @type {Timer | undefined} */ let hiding;
  let attempt = 0; // failures in a row
  let climb = CLIMB[0];
  let best = Math.max(0, NAMES.indexOf(memory.transport));

  const emit = (type = '', detail = {}) => events.dispatchEvent(new CustomEvent(type, { detail }));
  const tell = (change = {}) => emit('state', Object.assign(state, change));
  const after = (name = '', ms = 0, act = () => {}) => {
    clearTimeout(timers[name]);
    timers[name] = setTimeout(act, ms);
  };
  /** No token, or a fixed one refused: it watches as a stranger. */
  const prove = async (renew = false) =>
    typeof token === 'function' ? Promise.resolve(token(renew)).catch(() => '') : renew ? (token = null) : token;

  async function open(level = 0, renew = false) {
    trial?.close();
    clearTimeout(timers.dial);
    const control = new AbortController();
    const { signal } = control;
    /** @type {Link} */ const mine = {
      url, mode, level, signal, began: Infinity,
      close: () => control.abort(),
      since: () => board?.position ?? '',
      subscribe: () => mine.send({ action: 'subscribe', channel: 'leaderboard', mode, heartbeat: true, since: board?.position }),
      send: () => false,
      hear: (message) => signal.aborted || hear(mine, message),
      lost: (code, wait) => signal.aborted || lost(mine, code, wait),
    };
    trial = mine;
    if (!link) tell({ name: 'connecting' });
    mine.token = (await prove(renew)) || '';
    if (signal.aborted) return;
    after('proof', PROOF, () => mine.lost(0));
    start(mine).catch(() => mine.lost(0));
  }

  function hear(/** @type {Link} */ from, { event = '', data = /** @type {any} */ (0) }) {
    if (from === trial && event !== 'error') adopt(from);
    if (from !== link) return;
    if (event === 'subscribed') from.quiet = 1000 * data.heartbeatSeconds || 0;
    if (state.silent) tell({ silent: '' });
    beat();
    listen();
    if (event === 'leaderboard:update') show(data);
    if (event === 'leaderboard:stale') tell({ stale: data.since });
    if (event === 'authenticated') emit('personal', data);
    if (event === 'score:personal') emit('personal', { score: data.newScore, rank: data.rank, points: data.pointsAwarded });
    if (event === 'viewers') {
      tell({ viewers: data.count });
      emit(event, data);
    }
    if (event !== 'leaderboard:delta') return;
    if (board && data.previousPosition === board.position) show({ ...data, leaderboard: applyDelta(board.leaderboard, data) });
    else if (data.position !== board?.position) link.subscribe() || open(link.level); // a gap
  }

  function show(/** @type {Board} */ now) {
    board = now;
    tell({ stale: now.stale ? state.stale || new Date().toISOString() : '' });
    emit('board', now);
  }

  function adopt(/** @type {Link} */ proven) {
    link?.close();
    [link, trial, best] = [proven, null, proven.level];
    link.began = Date.now();
    clearTimeout(timers.proof);
    clearTimeout(timers.climb);
    if (best) after('climb', climb, () => open(0));
    else climb = CLIMB[0];
    tell({ name: 'live', transport: (memory.transport = NAMES[best]), silent: '', code: 0, viewers: 0 });
  }

  function beat(ms = PING) {
    if (ms && link?.quiet) return after('beat', ANSWER * (1 + Math.random()), () => link?.lost(4408)); // spread: the server may have paused
    after('beat', ms, () => {
      link?.send({ action: 'ping' });
      after('beat', ANSWER, () => link?.lost(4408));
    });
  }

  /** Says so if nothing is heard for longer than the server has promised. */
  function listen() {
    const since = new Date().toISOString();
    if (link?.quiet) after('listen', link.quiet + LATE, () => tell({ silent: since }));
  }

  function lost(/** @type {Link} */ dead, code = 0, wait = 0) {
    const proven = dead === link;
    const next = dead.level + 1;
    dead.close();
    if (proven) link = null;
    else trial = null;
    if (link || trial) {
      if (!link) tell({ name: 'connecting' });
      if (link && next < link.level) open(next);
      else if (link) after('climb', (climb = Math.min(CLIMB[1], climb * 2)), () => open(0));
      return;
    }
    if (Date.now() - dead.began > STEADY) attempt = 0;
    const { stop, renew, down, delay } = afterClose(code, attempt, { anonymous: !dead.token, proven });
    if (down && !stop && next < NAMES.length) return open(next);
    drop();
    if (stop) return tell({ name: 'stopped', code, transport: '' });
    attempt++;
    const pause = wait + delay;
    after('dial', pause, () => open(down ? 0 : dead.level, renew));
    tell({ name: 'waiting', code: code || 1006, retryAt: Date.now() + pause });
  }

  function drop() {
    Object.values(timers).forEach(clearTimeout);
    link?.close();
    trial?.close();
    link = trial = null;
    state.silent = '';
  }

  /** Whatever waited while the tab slept is due. */
  function wake() {
    if (document.hidden) return;
    listen();
    if (link) link.level ? open(0) : beat(0);
    else if (!trial && state.name !== 'stopped') open(best);
  }

  function seen() {
    clearTimeout(hiding);
    if (!document.hidden) return wake();
    hiding = setTimeout(pause, HIDE);
  }

  function pause() {
    clearTimeout(hiding);
    if (state.name === 'stopped') return;
    drop();
    tell({ name: 'paused' });
  }

  /** Starts over, as another user or none. */
  function redial() {
    drop();
    attempt = 0;
    open(best);
    if (document.hidden) seen();
  }

  /** Proves the user on the open connection: at log-in, with every new token. */
  function identify(renewed = '') {
    if (typeof token !== 'function') token = renewed;
    if (state.name === 'stopped') redial();
    for (const each of [link, trial]) {
      if (!each || each.token === undefined || each.token === renewed) continue;
      each.token = renewed;
      each.send({ action: 'auth', token: renewed }) || open(each.level);
    }
  }

  document.addEventListener('visibilitychange', seen, end);
  addEventListener('online', wake, end);
  addEventListener('pagehide', pause, end); // an open connection keeps a page out of the back/forward cache
  addEventListener('pageshow', (event) => event.persisted && redial(), end);
  redial();
  return Object.assign(events, { state, identify, redial, close: () => (end.abort(), clearTimeout(hiding), drop()) });
}

/** See actions.js. @param {import('./actions.js').Action} action */
export async function submitAction(action) {
  /** @type {typeof import('./actions.js')} */ const { submit } = await beside('actions.js');
  return submit(action, ask);
}

/** <live-scoreboard src limit theme>; how it looks is fetched with the first one. */
class LiveScoreboard extends HTMLElement {
  unmount = () => {};

  async connectedCallback() {
    /** @type {typeof import('./element.js')} */ const { mount } = await beside('element.js');
    this.unmount();
    if (this.isConnected) this.unmount = mount(this, connect);
  }

  disconnectedCallback() {
    this.unmount();
  }
}
customElements.get('live-scoreboard') ?? customElements.define('live-scoreboard', LiveScoreboard);
