/**
 * The transports for networks that let no WebSocket through: Server-Sent Events, then long poll. Loaded by
 * scoreboard.js, which hands in the link and `ask`, waits for a first message and decides what comes next.
 * @typedef {import('./scoreboard.js').Link} Link
 * @typedef {typeof import('./scoreboard.js').ask} Ask
 */
const POLL_HOLD_SECONDS = 2.5; // that the server may hold a poll; a longer silence says that it is frozen
const POLL_GRACE = 10_000; // ms for the answer's way
const POLL_INTERVAL = 1_000; // ms between polls: a busy board changes ten times a second

/** HTTP statuses as close codes. @type {Record<number, number>} */
const CLOSE_CODES = { 401: 4401, 429: 1013, 503: 1013 };
/** The close code that stands for a status. */
const closeCode = (/** @type {number} */ status) => CLOSE_CODES[status] ?? 1006;

/** The first sentence of a problem's detail, and its limit. @returns {[string, string]} */
const reasonOf = (/** @type {any} */ problem) => [
  problem?.detail?.split('. ')[0].replace(/\.$/, '') ?? '',
  problem?.layer ?? '',
];

/** Server-Sent Events, by fetch: EventSource would put the token into the URL. @param {Link} link @param {Ask} ask */
async function openStream({ url, mode, token, signal, since, receive, lost }, ask) {
  const headers = since() ? { 'Last-Event-ID': since() } : {};
  const { status, wait, json, stream } = await ask('scores/stream?mode=' + mode, { url, token, headers, signal });
  if (!stream) return lost(closeCode(status), wait, ...reasonOf(json));
  let code = 1012; // streams end without a close code
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = '', read; !(read = await reader.read()).done; ) {
    receive({});
    const events = (rest + read.value).split(/\r?\n\r?\n/);
    rest = events.pop() ?? '';
    for (const event of events) {
      const data = event.match(/^data: ?(.+)/m);
      const message = data ? JSON.parse(data[1]) : {};
      if (message.data?.code === 'UNAUTHORIZED') code = 4401;
      receive(message);
    }
  }
  lost(code);
}

/** Long poll. It has no score of the user's own: that is asked for beside it. @param {Link} link @param {Ask} ask */
async function poll(link, ask) {
  const { url, token, signal, since, receive, lost } = link;
  link.heartbeat = 1000 * POLL_HOLD_SECONDS + POLL_INTERVAL;
  for (let hold = 1; !signal.aborted; hold = POLL_HOLD_SECONDS) {
    const path = `scores/poll?wait=${hold}` + (since() && '&since=' + encodeURIComponent(since()));
    const limit = AbortSignal.any([signal, AbortSignal.timeout(1000 * hold + POLL_GRACE)]);
    const { status, wait, json } = await ask(path, { url, token, signal: limit });
    if (json?.data) receive({ event: 'leaderboard:update', data: json.data });
    else if (status === 204) receive({});
    else return lost(closeCode(status), wait, ...reasonOf(json));
    if (json?.data && token) {
      const { json: mine } = await ask('scores/leaderboard?limit=1', { url, token });
      if (mine?.data?.currentUser) receive({ event: 'authenticated', data: mine.data.currentUser });
    }
    await new Promise((done) => setTimeout(done, Math.max(POLL_INTERVAL, wait)));
  }
}

/** Opens the transport of the link's level. @param {Link} link @param {Ask} ask */
export const start = (link, ask) => (link.level === 1 ? openStream : poll)(link, ask);
