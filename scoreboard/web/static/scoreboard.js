/**
 * The client, for pages, workers and node: a live board over whatever gets through, log-in, signed actions.
 *
 *   const live = connect({ url, token });   // events: board, personal, viewers, state
 *   live.addEventListener('board', ({ detail }) => draw(detail.leaderboard));
 *
 * The rest comes when needed: fallback.js (other transports), account.js, actions.js, element.js (<live-scoreboard>). Types: scoreboard.d.ts.
 * @import { Board, Delta, Entry, Link, Live, Personal, State, Token } from './scoreboard.js'
 * @typedef {typeof import('./scoreboard.js')} Client
 */
const PROOF = 3_000; // ms for a transport's first message
const PING = 25_000; // ms of silence until a ping
const ANSWER = 10_000; // ms for a pong, an answer or a token
const LATE = 1_500; // ms that a promised heartbeat may be late until it shows
const HIDE = 5_000; // ms out of sight until it pauses
const CLIMB = [60_000, 600_000]; // ms until a better transport is tried: at first, at most
const STEADY = 10_000; // ms; what lasted longer was no failure
const BACKOFF = [500, 30_000]; // ms; ceiling of the first wait and of any
const MEMORY = 'scoreboard:transport';
const page = globalThis.document; // none in a worker or in node

/** What got through last. Without storage that is found out anew. */
function memory(transport = '') {
  try {
    if (transport) sessionStorage.setItem(MEMORY, transport);
    else return sessionStorage.getItem(MEMORY);
  } catch {}
}

/** Full jitter: a crowd comes back spread out. */
const jittered = (attempt = 0) => Math.random() * Math.min(BACKOFF[1], BACKOFF[0] * 2 ** attempt);

/** The server's origin: of `url`, else the page's own. */
function serverOf(url = '') {
  const here = globalThis.location?.href;
  if (!/^https?:\/\/./i.test(url || here)) throw new TypeError(url ? 'url is no http address: ' + url : 'url is missing: which server?');
  return new URL(url || here).origin;
}

/** One request to the API; never rejects for what the network does: status 0 is no answer. `wait` is Retry-After in ms. @type {Client['ask']} */
export async function ask(path = '', { url = '', body = '', token = '', headers = {}, signal = AbortSignal.timeout(ANSWER) } = {}) {
  const server = serverOf(url);
  const type = body && { 'Content-Type': 'application/json' };
  const proof = token && { Authorization: 'Bearer ' + token };
  /** @type {RequestInit} */
  const options = { method: body ? 'POST' : 'GET', body: body || null, headers: { ...headers, ...type, ...proof }, signal, cache: 'no-store' };
  if (path.startsWith('auth/')) options.credentials = 'include'; // the refresh cookie
  const answer = await fetch(server + '/api/v1/' + path, options).catch(async () => (signal.aborted ? null : (await origins()).refusal(server)));
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
  socket.onclose = ({ code, reason = '' }) => link.lost(code, 0, reason.split(';')[0]);
  link.signal.onabort = () => (socket.readyState ? socket.close() : (socket.onopen = () => socket.close()));
}

const fallback = import('./fallback.js'); // now: the network may fail
fallback.catch(() => {});
const again = () => import(/* @vite-ignore */ /* webpackIgnore: true */ new URL('fallback.js?' + Date.now(), import.meta.url).href);
const origins = () => import('./origins.js').catch(() => ({ refusal: () => null, explain() {} }));
const NAMES = /** @type {const} */ (['WebSocket', 'SSE', 'polling']);

/** @param {Link} link */
const start = async (link) => (link.level ? (await fallback.catch(again)).start(link, ask) : overWebSocket(link));

// ---- the live board ----

/** A board that keeps itself current as long as somebody watches. @param {string} url @param {string} mode @param {Token} token */
function openConnection(url, mode, token) {
  const end = new AbortController();
  const fine = { silent: '', code: 0, reason: '', layer: '', viewers: 0 };
  /** @type {State} */ const state = { name: 'connecting', transport: '', retryAt: 0, stale: '', ...fine };
  /** @type {Set<EventTarget>} */ const watching = new Set();
  /** @type {Board | null} */ let board = null;
  /** @type {Personal | null} */ let personal = null;
  /** @type {Link | null} */ let link = null; // has proven itself
  /** @type {Link | null} */ let trial = null; // not yet
  /** @type {Record<string, ReturnType<typeof setTimeout>>} */ const timers = {};
  /** @type {ReturnType<typeof setTimeout> | undefined} */ let hiding;
  const first = globalThis.WebSocket ? 0 : 1; // the best transport that there is
  let attempt = 0; // failures in a row
  let climb = CLIMB[0];
  let best = Math.max(first, NAMES.findIndex((name) => name === memory()));

  const emit = (type = '', detail = {}, to = watching) => [...to].forEach((each) => each.dispatchEvent(new CustomEvent(type, { detail })));
  const tell = (/** @type {Partial<State>} */ change) => emit('state', { ...Object.assign(state, change) });
  const after = (name = '', ms = 0, act = () => {}) => {
    clearTimeout(timers[name]);
    timers[name] = setTimeout(act, ms);
  };
  /** No token, or a fixed one refused: it watches as a stranger. */
  const prove = async (renew = false) => (typeof token === 'function' ? token(renew) : renew ? (token = null) : token);

  async function open(level = first, renew = false) {
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
      lost: (...why) => signal.aborted || lost(mine, ...why),
    };
    trial = mine;
    if (!link) tell({ name: 'connecting' });
    const asked = prove(renew).catch(() => '');
    mine.token = (await Promise.race([asked, new Promise((none) => after('token', ANSWER, () => none('')))])) || '';
    if (signal.aborted) return;
    clearTimeout(timers.token);
    asked.then((late) => signal.aborted || (late && identify(late)));
    after('proof', PROOF, () => mine.lost(0));
    start(mine).catch(() => mine.lost(0));
  }

  function hear(/** @type {Link} */ from, { event = '', data = /** @type {any} */ (0) }) {
    if (event === 'error') from.layer = data.layer;
    else if (from === trial) adopt(from);
    if (from !== link) return;
    if (event === 'subscribed') from.quiet = 1000 * data.heartbeatSeconds || 0;
    if (state.silent) tell({ silent: '' });
    beat();
    listen();
    if (event === 'leaderboard:update') show(data);
    if (event === 'leaderboard:stale') tell({ stale: data.since });
    if (event === 'authenticated') emit('personal', (personal = data));
    if (event === 'score:personal') {
      personal = { score: data.newScore, rank: data.rank };
      emit('personal', { ...personal, points: data.pointsAwarded });
    }
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
    if (best > first) after('climb', climb, () => open());
    else climb = CLIMB[0];
    memory(NAMES[best]);
    tell({ name: 'live', transport: NAMES[best], ...fine });
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

  function lost(/** @type {Link} */ dead, code = 0, wait = 0, reason = '', layer = dead.layer ?? '') {
    const proven = dead === link;
    const next = dead.level + 1;
    dead.close();
    if (proven) link = null;
    else trial = null;
    if (link || trial) {
      if (!link) tell({ name: 'connecting' });
      if (link && next < link.level) open(next);
      else if (link) after('climb', (climb = Math.min(CLIMB[1], climb * 2)), () => open());
      return;
    }
    if (Date.now() - dead.began > STEADY) attempt = 0;
    const { stop, renew, down, delay } = afterClose(code, attempt, { anonymous: !dead.token, proven });
    if (down && !stop && next < NAMES.length) return open(next);
    drop();
    if (code === 4403) origins().then(({ explain }) => explain(url));
    if (stop) return tell({ name: 'stopped', code, reason, layer, transport: '' });
    attempt++;
    const retryAt = Date.now() + wait + delay;
    after('dial', wait + delay, () => open(down ? first : code === 1013 ? best : dead.level, renew)); // 1013: too many, whatever the transport
    tell({ name: 'waiting', code: code || 1006, reason, layer, retryAt });
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
    if (page?.hidden) return;
    listen();
    if (link) link.level > first ? open() : link.level || beat(0);
    else if (!trial && state.name !== 'stopped') open(best);
  }

  function seen() {
    clearTimeout(hiding);
    if (!page?.hidden) return wake();
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
    personal = null;
    open(best);
    if (page?.hidden) seen();
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

  /** Once it listens it is told what the others know. @param {EventTarget} one */
  function join(one) {
    watching.add(one);
    queueMicrotask(() => {
      const to = new Set(watching.has(one) ? [one] : []);
      emit('state', { ...state }, to);
      if (board) emit('board', board, to);
      if (personal) emit('personal', personal, to);
    });
  }

  /** The last one ends it, unless another comes at once: a component that is mounted anew. @param {EventTarget} one */
  function leave(one, ended = () => {}) {
    watching.delete(one);
    setTimeout(() => {
      if (watching.size) return;
      ended();
      end.abort();
      clearTimeout(hiding);
      drop();
    });
  }

  page?.addEventListener('visibilitychange', seen, end);
  globalThis.addEventListener?.('online', wake, end);
  globalThis.addEventListener?.('pagehide', pause, end); // an open connection keeps a page out of the back/forward cache
  globalThis.addEventListener?.('pageshow', (event) => event.persisted && redial(), end);
  redial();
  const isFor = (/** @type {unknown[]} */ ...asked) => state.name !== 'stopped' && [url, mode, token].every((own, place) => own === asked[place]);
  return { state, watching, isFor, join, leave, identify, redial, board: () => board, isOneToken: () => typeof token !== 'function' };
}

/** @type {Set<ReturnType<typeof openConnection>>} */ const connections = new Set();

/** One of those who share a connection. @implements {Live} */
class Watcher extends EventTarget {
  #at;
  #asked;

  /** @param {[url: string, mode: string]} asked @param {Token} token */
  constructor(asked, token) {
    super();
    this.#asked = asked;
    this.#at = this.#join(token);
  }

  get state() {
    return this.#at.state;
  }

  get board() {
    return this.#at.board();
  }

  #join(/** @type {Token} */ token) {
    const connection = [...connections].find((each) => each.isFor(...this.#asked, token)) ?? openConnection(...this.#asked, token);
    connections.add(connection);
    connection.join(this);
    return connection;
  }

  identify(token = '') {
    if (!this.#at.watching.has(this)) return; // closed
    if (this.#at.watching.size < 2 || !this.#at.isOneToken()) return this.#at.identify(token);
    this.close(); // the others stay who they are
    this.#at = this.#join(token);
  }

  redial() {
    if (this.#at.watching.has(this)) this.#at.redial();
  }

  close() {
    const at = this.#at;
    at.leave(this, () => connections.delete(at));
  }
}

/** Whoever asks alike shares a connection. @type {Client['connect']} */
export function connect({ url = '', token = null, mode = 'delta' } = {}) {
  if (mode !== 'delta' && mode !== 'full') throw new TypeError('mode is delta or full, not ' + mode);
  return new Watcher([serverOf(url), mode], token);
}

// ---- what comes when needed ----

/** @type {Client['submitAction']} */
export const submitAction = async (action) => (await import('./actions.js')).submit(action, ask);
/** @type {Client['login']} */
export const login = async (who) => (await import('./account.js')).begin('login', who);
/** @type {Client['register']} */
export const register = async (who) => (await import('./account.js')).begin('register', who);
/** @type {Client['resume']} */
export const resume = async (options) => (await import('./account.js')).resume(options);
/** @type {Client['logout']} */
export const logout = (session) => session.logout();

/** <live-scoreboard src limit theme>; how it looks is fetched with the first one. */
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
