/**
 * What the console says of a refused origin. Loaded by scoreboard.js when one may have been refused: a browser hides
 * from a page why the answer to another origin's API did not come.
 */
const PROBE_TIMEOUT = 3_000; // ms for each of two requests
/** Servers that were explained: one line each. @type {Set<string>} */ const explained = new Set();

/** Tells whoever builds the page what to set. @param {string} server */
export function explain(server) {
  if (explained.has(server)) return;
  explained.add(server);
  const { origin = 'this origin' } = globalThis.location ?? {};
  console.error(
    `Scoreboard: ${server} refuses pages of ${origin}. Add "${origin}" to server.allowed_origins there; ` +
      "if it is the server's own address, set server.public_url to it.",
  );
}

/**
 * The answer that was hidden, or null if there was none. The server's files are for everybody: they come where the API
 * does not. The API is asked once more, so that a server that has just come back is not taken for one that refuses.
 * @param {string} server
 */
export async function refusal(server) {
  if (!globalThis.location || location.origin === server) return null;
  const comes = (/** @type {string} */ path) =>
    fetch(server + path, { cache: 'no-store', signal: AbortSignal.timeout(PROBE_TIMEOUT) })
      .then(() => true, () => false);
  if (!(await comes('/static/favicon.svg')) || (await comes('/api/v1/scores/leaderboard?limit=1'))) return null;
  explain(server);
  const detail = 'Pages of this origin are not allowed here.';
  return Response.json({ success: false, status: 403, code: 'FORBIDDEN', detail }, { status: 403 });
}
