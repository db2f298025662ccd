/**
 * The client, for pages, workers and node: a live board over whatever gets through, log-in, signed actions.
 *
 *   const live = connect({ url, token });   // events: board, personal, rejected, viewers, state
 *   live.addEventListener('board', ({ detail }) => draw(detail.leaderboard));
 *
 * Loaded when needed: fallback.js (other transports), account.js, actions.js, element.js (<live-scoreboard>).
 * Types: scoreboard.d.ts.
 * @import { Board, Delta, Entry, Link, Live, Personal, State, Token } from './scoreboard.js'
 * @typedef {typeof import('./scoreboard.js')} Client
 */
// All times are milliseconds.
const FIRST_MESSAGE_TIMEOUT = 3_000; // of a transport that was just opened
const PING_INTERVAL = 25_000; // of silence, where the server promised no heartbeat
const ANSWER_TIMEOUT = 10_000; // of a pong, a request or a token
const HEARTBEAT_GRACE = 1_500; // that a heartbeat may be late until the state is silent
const PAUSE_DELAY = 5_000; // from a hidden page to its pause
const UPGRADE_DELAYS = [60_000, 600_000]; // until a better transport is tried: at first, at most
const STABLE_AFTER = 10_000; // a connection that lasted longer resets the backoff
const BACKOFF_LIMITS = [500, 30_000]; // of the first wait, of any
const TRANSPORT_KEY = 'scoreboard:transport';
const page = globalThis.document; // none in a worker or in node

/** Reads or stores the transport that worked last; nothing where storage is refused. */
function lastTransport(transport = '') {
  try {
    if (transport) sessionStorage.setItem(TRANSPORT_KEY, transport);
    else return sessionStorage.getItem(TRANSPORT_KEY);
  } catch {}
}

/** Exponential backoff with full jitter. */
const backoff = (attempt = 0) => Math.random() * Math.min(BACKOFF_LIMITS[1], BACKOFF_LIMITS[0] * 2 ** attempt);

/** The origin of `url`, or of the page without one. */
function serverOrigin(url = '') {
  const here = globalThis.location?.href;
  if (!/^https?:\/\/./i.test(url || here))
    throw new TypeError(url ? 'url is no http address: ' + url : 'url is missing: which server?');
  return new URL(url || here).origin;
}

/** One request to the API. Never rejects for a network error: status 0 is no answer. @type {Client['ask']} */
export async function ask(path = '', options = {}) {
  const { url = '', body = '', token = '', headers = {}, signal = AbortSignal.timeout(ANSWER_TIMEOUT) } = options;
  const { method = body ? 'POST' : 'GET' } = options;
  const server = serverOrigin(url);
  const type = body && { 'Content-Type': 'application/' + (typeof body === 'string' ? 'json' : 'octet-stream') };
  const authorization = token && { Authorization: 'Bearer ' + token };
  const answer = await fetch(server + '/api/v1/' + path, {
    method,
    body: body || null,
    headers: { ...headers, ...type, ...authorization },
    signal,
    cache: 'no-store',
    credentials: path.startsWith('auth/') ? 'include' : 'same-origin', // the refresh cookie
  }).catch(async () => (signal.aborted ? null : (await loadOrigins()).refusal(server)));
  const header = (name = '') => answer?.headers.get(name) ?? '';
  const stream = header('Content-Type').startsWith('text/event') && answer?.body;
  const json = stream ? null : await answer?.json().catch(() => null);
  return { status: answer?.status ?? 0, header, wait: 1000 * Number(header('Retry-After')) || 0, json, stream };
}

/** The rows after a delta. @param {Entry[]} rows @param {Delta} delta */
export function applyDelta(rows, { changed, removed }) {
  const gone = new Set([...removed, ...changed.map((row) => row.userId)]);
  const now = changed.map(({ previousRank, ...row }) => row);
  return [...rows.filter((row) => !gone.has(row.userId)), ...now].sort((a, b) => a.rank - b.rank);
}

/** What to do after a close with this code and so many failures. */
export function afterClose(code = 0, attempt = 0, { anonymous = true, proven = true } = {}) {
  const renew = code === 4401;
  const asked = renew || code === 1001 || code === 1012; // the server's wish, not a failure
  return {
    renew,
    stop: code === 4403 || (renew && anonymous),
    down: [1002, 1007, 1008, 1009, 4400].includes(code) || !(proven || asked || code === 1013), // not by this transport
    delay: asked && attempt < 2 ? Math.random() * 1000 : 200 + backoff(code === 1013 ? attempt + 3 : attempt),
  };
}

// ---- transports ----

/** @param {Link} link */
async function openWebSocket(link) {
  const socket = new WebSocket(new URL('/api/v1/scores/live', link.url).href.replace('http', 'ws'));
  link.send = (message) => (socket.readyState === 1 && socket.send(JSON.stringify(message)), true);
  socket.onopen = () => {
    if (link.token) link.send({ action: 'auth', token: link.token });
    link.subscribe();
  };
  socket.onmessage = ({ data }) => link.receive(JSON.parse(data));
  socket.onclose = ({ code, reason = '' }) => link.lost(code, 0, reason.split(';')[0]);
  link.signal.onabort = () => (socket.readyState ? socket.close() : (socket.onopen = () => socket.close()));
}

const fallback = import('./fallback.js'); // at once: later the network may fail
fallback.catch(() => {});
/** Loads it again: a browser remembers an import that failed. */
const reloadFallback = () =>
  import(/* @vite-ignore */ /* webpackIgnore: true */ new URL('fallback.js?' + Date.now(), import.meta.url).href);
/** Explains a refused origin in the console. */
const loadOrigins = () => import('./origins.js').catch(() => ({ refusal: () => null, explain() {} }));
const TRANSPORTS = /** @type {const} */ (['WebSocket', 'SSE', 'polling']); // the best first; a level is an index

/** Opens the transport of the link's level. @param {Link} link */
const openTransport = async (link) =>
  link.level ? (await fallback.catch(reloadFallback)).start(link, ask) : openWebSocket(link);

// ---- the live board ----

/**
 * One connection, which its watchers share, and which is made anew until the last one leaves.
 * @param {string} url @param {string} mode @param {Token} token
 */
function openConnection(url, mode, token) {
  const lifetime = new AbortController();
  const healthy = { silent: '', code: 0, reason: '', layer: '', viewers: 0 };
  /** @type {State} */ const state = { name: 'connecting', transport: '', retryAt: 0, stale: '', ...healthy };
  /** @type {Set<EventTarget>} */ const watchers = new Set();
  /** @type {Board | null} */ let board = null;
  /** @type {Personal | null} */ let personal = null;
  /** @type {Link | null} */ let link = null; // has received a message
  /** @type {Link | null} */ let candidate = null; // has not yet
  /** @type {Record<string, ReturnType<typeof setTimeout>>} */ const timers = {};
  /** @type {ReturnType<typeof setTimeout> | undefined} */ let hideTimer;
  const bestLevel = globalThis.WebSocket ? 0 : 1;
  let attempt = 0; // failures in a row
  let upgradeDelay = UPGRADE_DELAYS[0];
  let level = Math.max(bestLevel, TRANSPORTS.findIndex((name) => name === lastTransport())); // that worked last

  const emit = (type = '', detail = {}, to = watchers) =>
    [...to].forEach((each) => each.dispatchEvent(new CustomEvent(type, { detail })));
  const setState = (/** @type {Partial<State>} */ change) => emit('state', { ...Object.assign(state, change) });
  /** Sets the timer of that name anew. */
  const schedule = (name = '', ms = 0, act = () => {}) => {
    clearTimeout(timers[name]);
    timers[name] = setTimeout(act, ms);
  };
  /** The token to connect with. A fixed one that was refused is dropped. */
  const getToken = async (renew = false) =>
    typeof token === 'function' ? token(renew) : renew ? (token = null) : token;

  /** Opens a candidate at a level. */
  async function open(level = bestLevel, renew = false) {
    candidate?.close();
    clearTimeout(timers.reconnect);
    const control = new AbortController();
    const { signal } = control;
    /** @type {Link} */ const opened = {
      url, mode, level, signal, liveSince: Infinity,
      close: () => control.abort(),
      since: () => board?.position ?? '',
      subscribe: () =>
        opened.send({ action: 'subscribe', channel: 'leaderboard', mode, heartbeat: true, since: board?.position }),
      send: () => false,
      receive: (message) => signal.aborted || receive(opened, message),
      lost: (...why) => signal.aborted || lost(opened, ...why),
    };
    candidate = opened;
    if (!link) setState({ name: 'connecting' });
    const pending = getToken(renew).catch(() => '');
    const timeout = new Promise((none) => schedule('token', ANSWER_TIMEOUT, () => none('')));
    opened.token = (await Promise.race([pending, timeout])) || '';
    if (signal.aborted) return;
    clearTimeout(timers.token);
    pending.then((late) => signal.aborted || (late && identify(late)));
    schedule('first', FIRST_MESSAGE_TIMEOUT, () => opened.lost(0));
    openTransport(opened).catch(() => opened.lost(0));
  }

  /** Handles one message of a link. */
  function receive(/** @type {Link} */ from, { event = '', data = /** @type {any} */ (0) }) {
    if (event === 'error') from.layer = data.layer;
    else if (from === candidate) promote(from);
    if (from !== link) return;
    if (event === 'subscribed') from.heartbeat = 1000 * data.heartbeatSeconds || 0;
    if (state.silent) setState({ silent: '' });
    checkLiveness();
    checkHeartbeat();
    if (event === 'leaderboard:update') show(data);
    if (event === 'leaderboard:stale') setState({ stale: data.since });
    if (event === 'authenticated') emit('personal', (personal = data));
    if (event === 'score:rejected') emit('rejected', data);
    if (event === 'score:personal') {
      personal = { score: data.newScore, rank: data.rank };
      emit('personal', { ...personal, points: data.pointsAwarded });
    }
    if (event === 'viewers') {
      setState({ viewers: data.count });
      emit(event, data);
    }
    if (event !== 'leaderboard:delta') return;
    if (board && data.previousPosition === board.position)
      show({ ...data, leaderboard: applyDelta(board.leaderboard, data) });
    else if (data.position !== board?.position) link.subscribe() || open(link.level); // a gap
  }

  /** Makes a board the present one. */
  function show(/** @type {Board} */ now) {
    board = now;
    setState({ stale: now.stale ? state.stale || new Date().toISOString() : '' });
    emit('board', now);
  }

  /** Replaces the link by the candidate. */
  function promote(/** @type {Link} */ proven) {
    link?.close();
    [link, candidate, level] = [proven, null, proven.level];
    link.liveSince = Date.now();
    clearTimeout(timers.first);
    clearTimeout(timers.upgrade);
    if (level > bestLevel) schedule('upgrade', upgradeDelay, () => open());
    else upgradeDelay = UPGRADE_DELAYS[0];
    lastTransport(TRANSPORTS[level]);
    setState({ name: 'live', transport: TRANSPORTS[level], ...healthy });
  }

  /** Drops a link that stays silent, after a ping where the server promised no heartbeat. */
  function checkLiveness(ms = PING_INTERVAL) {
    const dead = () => link?.lost(4408);
    // Spread: the server may have paused.
    if (ms && link?.heartbeat) return schedule('liveness', ANSWER_TIMEOUT * (1 + Math.random()), dead);
    schedule('liveness', ms, () => {
      link?.send({ action: 'ping' });
      schedule('liveness', ANSWER_TIMEOUT, dead);
    });
  }

  /** Sets the state silent when a promised heartbeat does not come. */
  function checkHeartbeat() {
    const since = new Date().toISOString();
    if (link?.heartbeat)
      schedule('heartbeat', link.heartbeat + HEARTBEAT_GRACE, () => setState({ silent: since }));
  }

  /** Decides what follows from the loss of a link or candidate. */
  function lost(/** @type {Link} */ dead, code = 0, wait = 0, reason = '', layer = dead.layer ?? '') {
    const proven = dead === link;
    const next = dead.level + 1;
    dead.close();
    if (proven) link = null;
    else candidate = null;
    if (link || candidate) {
      if (!link) setState({ name: 'connecting' });
      if (link && next < link.level) open(next);
      else if (link)
        schedule('upgrade', (upgradeDelay = Math.min(UPGRADE_DELAYS[1], upgradeDelay * 2)), () => open());
      return;
    }
    if (Date.now() - dead.liveSince > STABLE_AFTER) attempt = 0;
    const { stop, renew, down, delay } = afterClose(code, attempt, { anonymous: !dead.token, proven });
    if (down && !stop && next < TRANSPORTS.length) return open(next);
    disconnect();
    if (code === 4403) loadOrigins().then(({ explain }) => explain(url));
    if (stop) return setState({ name: 'stopped', code, reason, layer, transport: '' });
    attempt++;
    const retryAt = Date.now() + wait + delay;
    // 1013: too many connections, whatever the transport
    const retryLevel = () => (down ? bestLevel : code === 1013 ? level : dead.level);
    schedule('reconnect', wait + delay, () => open(retryLevel(), renew));
    setState({ name: 'waiting', code: code || 1006, reason, layer, retryAt });
  }

  /** Closes everything and stops all timers. */
  function disconnect() {
    Object.values(timers).forEach(clearTimeout);
    link?.close();
    candidate?.close();
    link = candidate = null;
    state.silent = '';
  }

  /** The page is visible or online again: checks the connection at once. */
  function wake() {
    if (page?.hidden) return;
    checkHeartbeat();
    if (link) link.level > bestLevel ? open() : link.level || checkLiveness(0);
    else if (!candidate && state.name !== 'stopped') open(level);
  }

  function onVisibilityChange() {
    clearTimeout(hideTimer);
    if (!page?.hidden) return wake();
    hideTimer = setTimeout(pause, PAUSE_DELAY);
  }

  /** Disconnects until the page is visible. */
  function pause() {
    clearTimeout(hideTimer);
    if (state.name === 'stopped') return;
    disconnect();
    setState({ name: 'paused' });
  }

  /** Connects anew, as another user or none. */
  function redial() {
    disconnect();
    attempt = 0;
    personal = null;
    open(level);
    if (page?.hidden) onVisibilityChange();
  }

  /** Authenticates the open connection: after a log-in, with a new token. */
  function identify(renewed = '') {
    if (typeof token !== 'function') token = renewed;
    if (state.name === 'stopped') redial();
    for (const each of [link, candidate]) {
      if (!each || each.token === undefined || each.token === renewed) continue;
      each.token = renewed;
      each.send({ action: 'auth', token: renewed }) || open(each.level);
    }
  }

  /** Adds a watcher, which gets the present state once it can listen. @param {EventTarget} one */
  function join(one) {
    watchers.add(one);
    queueMicrotask(() => {
      const to = new Set(watchers.has(one) ? [one] : []);
      emit('state', { ...state }, to);
      if (board) emit('board', board, to);
      if (personal) emit('personal', personal, to);
    });
  }

  /** Removes a watcher. The last one ends the connection, unless another joins at once. @param {EventTarget} one */
  function leave(one, ended = () => {}) {
    watchers.delete(one);
    setTimeout(() => {
      if (watchers.size) return;
      ended();
      lifetime.abort();
      clearTimeout(hideTimer);
      disconnect();
    });
  }

  page?.addEventListener('visibilitychange', onVisibilityChange, lifetime);
  globalThis.addEventListener?.('online', wake, lifetime);
  // An open connection keeps a page out of the back/forward cache.
  globalThis.addEventListener?.('pagehide', pause, lifetime);
  globalThis.addEventListener?.('pageshow', (event) => event.persisted && redial(), lifetime);
  redial();
  /** Whether these are its server, mode and token. */
  const isFor = (/** @type {unknown[]} */ ...asked) =>
    state.name !== 'stopped' && [url, mode, token].every((own, place) => own === asked[place]);
  const hasFixedToken = () => typeof token !== 'function';
  return { state, watchers, isFor, join, leave, identify, redial, board: () => board, hasFixedToken };
}

/** @type {Set<ReturnType<typeof openConnection>>} */ const connections = new Set();

/** What `connect` returns: one of those who share a connection. @implements {Live} */
class Watcher extends EventTarget {
  #connection;
  #target;

  /** @param {[url: string, mode: string]} target @param {Token} token */
  constructor(target, token) {
    super();
    this.#target = target;
    this.#connection = this.#join(token);
  }

  get state() {
    return this.#connection.state;
  }

  get board() {
    return this.#connection.board();
  }

  /** Joins the connection with this token, or opens one. */
  #join(/** @type {Token} */ token) {
    const shared = [...connections].find((each) => each.isFor(...this.#target, token));
    const connection = shared ?? openConnection(...this.#target, token);
    connections.add(connection);
    connection.join(this);
    return connection;
  }

  identify(token = '') {
    const { watchers, hasFixedToken, identify } = this.#connection;
    if (!watchers.has(this)) return; // closed
    if (watchers.size < 2 || !hasFixedToken()) return identify(token);
    this.close(); // the others keep their user
    this.#connection = this.#join(token);
  }

  redial() {
    if (this.#connection.watchers.has(this)) this.#connection.redial();
  }

  close() {
    const connection = this.#connection;
    connection.leave(this, () => connections.delete(connection));
  }
}

/** Opens the live board. @type {Client['connect']} */
export function connect({ url = '', token = null, mode = 'delta' } = {}) {
  if (mode !== 'delta' && mode !== 'full') throw new TypeError('mode is delta or full, not ' + mode);
  return new Watcher([serverOrigin(url), mode], token);
}

// ---- loaded when needed ----

/** @type {Client['submitAction']} */
export const submitAction = async (action) => (await import('./actions.js')).submit(action, ask);
/** @type {Client['startAction']} */
export const startAction = async (action) => (await import('./actions.js')).start(action, ask);
/** @type {Client['login']} */
export const login = async (who) => (await import('./account.js')).begin('login', who, ask);
/** @type {Client['register']} */
export const register = async (who) => (await import('./account.js')).begin('register', who, ask);
/** @type {Client['exchange']} */
export const exchange = async (who) => (await import('./account.js')).begin('exchange', who, ask);
/** @type {Client['guest']} */
export const guest = async (who) => (await import('./account.js')).beginAsGuest(who, ask);
/** @type {Client['resume']} */
export const resume = async (options) => (await import('./account.js')).resume(options, ask);
/** @type {Client['logout']} */
export const logout = (session) => session.logout();

/** <live-scoreboard src limit theme>, drawn by element.js. */
if (globalThis.customElements && !customElements.get('live-scoreboard')) {
  class LiveScoreboard extends HTMLElement {
    unmount = () => {};

    async connectedCallback() {
      const { mount } = await import('./element.js');
      this.unmount();
      if (this.isConnected) this.unmount = mount(this, connect);
    }

    disconnectedCallback() {
      this.unmount();
    }
  }
  customElements.define('live-scoreboard', LiveScoreboard);
}
