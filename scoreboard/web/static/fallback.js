/**
 * The transports for networks that let no WebSocket through: Server-Sent Events, then long poll. Loaded by scoreboard.js, which
 * hands in the connection and `ask`, has them proven by a first message and says what comes next.
 * @typedef {import('./scoreboard.js').Link} Link
 * @typedef {typeof import('./scoreboard.js').ask} Ask
 */
const HOLD = 2.5; // s that the server may hold a poll; a longer silence says that it is frozen
const GRACE = 10_000; // ms for the answer's way
const PACE = 1_000; // ms between polls: a busy board changes ten times a second

/** What an answer that is none would have been as a close code. @type {Record<number, number>} */
const CLOSING = { 401: 4401, 429: 1013, 503: 1013 };
const closing = (/** @type {number} */ status) => CLOSING[status] ?? 1006;

/** Why, in the server's words: their first sentence; and which limit it was. @returns {[string, string]} */
const reason = (/** @type {any} */ said) => [said?.detail?.split('. ')[0].replace(/\.$/, '') ?? '', said?.layer ?? ''];

/** Server-Sent Events, by fetch: an EventSource would put the token into the URL. @param {Link} link @param {Ask} ask */
async function overStream({ url, mode, token, signal, since, hear, lost }, ask) {
  const headers = since() ? { 'Last-Event-ID': since() } : {};
  const { status, wait, said, stream } = await ask('scores/stream?mode=' + mode, { url, token, headers, signal });
  if (!stream) return lost(closing(status), wait, ...reason(said));
  let end = 1012; // streams end without a close code
  const reader = stream.pipeThrough(new TextDecoderStream()).getReader();
  for (let rest = '', read; !(read = await reader.read()).done; ) {
    hear({});
    const events = (rest + read.value).split(/\r?\n\r?\n/);
    rest = events.pop() ?? '';
    for (const event of events) {
      const data = event.match(/^data: ?(.+)/m);
      const message = data ? JSON.parse(data[1]) : {};
      if (message.data?.code === 'UNAUTHORIZED') end = 4401;
      hear(message);
    }
  }
  lost(end);
}

/** Long poll. It tells nothing of the user's own score: that is asked for beside it. @param {Link} link @param {Ask} ask */
async function overPoll(link, ask) {
  const { url, token, signal, since, hear, lost } = link;
  link.quiet = 1000 * HOLD + PACE;
  for (let hold = 1; !signal.aborted; hold = HOLD) {
    const path = `scores/poll?wait=${hold}` + (since() && '&since=' + encodeURIComponent(since()));
    const limit = AbortSignal.any([signal, AbortSignal.timeout(1000 * hold + GRACE)]);
    const { status, wait, said } = await ask(path, { url, token, signal: limit });
    if (said?.data) hear({ event: 'leaderboard:update', data: said.data });
    else if (status === 204) hear({});
    else return lost(closing(status), wait, ...reason(said));
    if (said?.data && token) {
      const { said: mine } = await ask('scores/leaderboard?limit=1', { url, token });
      if (mine?.data?.currentUser) hear({ event: 'authenticated', data: mine.data.currentUser });
    }
    await new Promise((done) => setTimeout(done, Math.max(PACE, wait)));
  }
}

/** @param {Link} link @param {Ask} ask */
export const start = (link, ask) => (link.level === 1 ? overStream : overPoll)(link, ask);
